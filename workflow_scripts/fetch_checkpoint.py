"""Rule fetch_checkpoint: a checkpoint's weights, found, made or fetched."""

import importlib.metadata
from pathlib import Path
from typing import Any

from hear_mn.checkpoints import Checkpoint, CheckpointError, locate
from hear_mn.checkpoints import checkpoint as checkpoint_row
from hear_mn.download import file_hashes
from hear_mn.whole import write_json_whole
from workflow_scripts.command_line import command_line


def fetch_checkpoint(checkpoint: str, local: str, output: Path) -> None:
    """Find a checkpoint's weights, or fetch them into the cache (HEAR_MN_CACHE).

    Args:
        checkpoint: a row of config/checkpoints.csv.
        local: a weights file to take; empty for the published one.
        output: the .json to write: path, size and sha256. A module that is not ours and finds its
            own weights has neither, but the version of its package.
    """
    row = checkpoint_row(checkpoint)
    if local:
        found = _described(Path(local))
    elif row.module:
        found = {"path": None, "size": None, "sha256": None, **_installed(row)}
    else:
        found = _described(locate(checkpoint))
    write_json_whole(output, {"checkpoint": checkpoint, **found})


def _described(weights: Path) -> dict[str, Any]:
    if not weights.is_file():
        raise CheckpointError(f"no such weights file: {weights}; correct `weights` in the config")
    return {
        "path": str(weights.resolve()),
        "size": weights.stat().st_size,
        **file_hashes(weights, {"sha256"}),
    }


def _installed(row: Checkpoint) -> dict[str, str]:
    package = str(row.module).partition(".")[0]
    distributions = importlib.metadata.packages_distributions().get(package, [])
    if not distributions:
        raise CheckpointError(
            f"{row.checkpoint} is the module {row.module}, which is not installed; install its "
            f"package in the environment of the workflow"
        )
    return {"module": str(row.module), "version": importlib.metadata.version(distributions[0])}


if __name__ == "__main__":
    command_line(fetch_checkpoint)
