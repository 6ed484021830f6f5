"""What to do where a fetched file is not."""

import socket
from pathlib import Path


def not_here(path: Path | str, record: Path) -> str:
    """Say what to do about a fetched file that is not there, of which `record` says where it is."""
    return (
        f"{socket.gethostname()} has no {path}, of which {record} says where it is. If it was "
        f"moved, or this machine does not see it, put it or a link there, or move the cache to "
        f"a folder that all machines see (`cache` in slurm/site.yaml, or HEAR_MN_CACHE). To fetch "
        f"it again delete {record} too; what was made from it is then made again"
    )
