"""Files that are there whole or not at all: written aside, then put in place."""

import json
import os
import socket
from pathlib import Path
from typing import Any


def name_aside(path: Path) -> Path:
    """Return a name in the same folder that no other process writes to, on this host or another."""
    return path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}")


def write_whole(path: Path, content: bytes) -> None:
    """Write a file; its folder is made if it is not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = name_aside(path)
    aside.write_bytes(content)
    aside.replace(path)


def write_json_whole(path: Path, content: Any, indent: int = 1) -> None:
    """Write a JSON file."""
    write_whole(path, (json.dumps(content, indent=indent) + "\n").encode())
