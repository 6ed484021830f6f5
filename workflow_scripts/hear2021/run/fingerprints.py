"""Whether files of one's own have changed: archives, folders, weights, Python modules."""

import hashlib
import importlib.util
import os
from pathlib import Path

ENDS = 1 << 20
CHECKSUMMED = (b"\x1f\x8b", b"PK\x03\x04")  # gzip and zip, whose ends hold checksums of the rest


def fingerprint(path: Path | str) -> str:
    """Return a hash that tells whether a file or folder has changed, without reading all of it.

    Of a file: its size and its first and last MiB; where these hold no checksums of the rest, as
    those of gzip and zip do, also when it was changed.
    Of a folder: the names and sizes of its files and the content of those that end in .json or
    .csv.
    """
    path = Path(path)
    digest = hashlib.sha256()
    if path.is_dir():
        for file in files_below(path):
            name = os.fsencode(file.relative_to(path))  # which need not be UTF-8
            digest.update(name + f"\0{file.stat().st_size}\0".encode())
            if file.suffix in {".json", ".csv"}:
                digest.update(file.read_bytes())
    else:
        status = path.stat()
        size = status.st_size
        digest.update(f"{size}\0".encode())
        with path.open("rb") as content:
            start = content.read(ENDS)
            if size > 2 * ENDS and not start.startswith(CHECKSUMMED):
                digest.update(f"{status.st_mtime_ns}\0".encode())
            digest.update(start)
            content.seek(max(content.tell(), size - ENDS))
            digest.update(content.read(ENDS))
    return digest.hexdigest()


def files_below(folder: Path) -> list[Path]:
    """Return the files in a folder, those of linked folders included, in one order everywhere."""
    return sorted(
        Path(parent, name)
        for parent, _, names in os.walk(folder, followlinks=True)
        for name in names
        if Path(parent, name).is_file()
    )


def module_fingerprint(module: str) -> str:
    """Return a hash of the Python files of an importable module; nothing if it is not here.

    All files of its top-level package count, for any may be imported; hidden ones, which editors
    leave there, may not. What a module that is a single file imports does not count. Nothing is
    imported.
    """
    spec = importlib.util.find_spec(module.partition(".")[0])
    if spec is None:
        return ""
    digest = hashlib.sha256()
    for place in map(Path, spec.submodule_search_locations or [str(spec.origin)]):
        for file in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
            name = file.relative_to(place)
            if any(part.startswith(".") for part in name.parts):  # Emacs' lock is a dangling link
                continue
            content = file.read_bytes()
            digest.update(f"{name}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()
