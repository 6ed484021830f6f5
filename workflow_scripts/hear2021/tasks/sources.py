"""Where the data of a task comes from: a file or folder of one's own, or a published archive.

Light on purpose, like `configuration`: the Snakefile asks for fingerprints.
"""

import hashlib
import importlib.util
import os
import re
import socket
from pathlib import Path
from typing import Any

from hear_mn.download import ZENODO, DownloadError, fetch, zenodo_listing
from workflow_scripts.hear2021.run.configuration import TaskRow

RECORD_URL = re.compile(r"^https://zenodo\.org/records/(?P<record>\d+)/files/(?P<file>[^/?]+)$")
ENDS = 1 << 20


class SourceError(ValueError):
    """A task whose data is nowhere to be had, with what to do."""


def fingerprint(path: Path | str) -> str:
    """Return a hash that tells whether a file or folder has changed, without reading all of it.

    Of a file: its size and its first and last MiB (the trailers of gzip and zip hold checksums).
    Of a folder: the names and sizes of its files and the content of those that end in .json or
    .csv.
    """
    path = Path(path)
    digest = hashlib.sha256()
    if path.is_dir():
        for file in files_below(path):
            digest.update(f"{file.relative_to(path)}\0{file.stat().st_size}\0".encode())
            if file.suffix in {".json", ".csv"}:
                digest.update(file.read_bytes())
    else:
        size = path.stat().st_size
        digest.update(f"{size}\0".encode())
        with path.open("rb") as content:
            digest.update(content.read(ENDS))
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

    All files of its top-level package count, for any may be imported. What a module that is a
    single file imports does not count. Nothing is imported.
    """
    spec = importlib.util.find_spec(module.partition(".")[0])
    if spec is None:
        return ""
    digest = hashlib.sha256()
    for place in map(Path, spec.submodule_search_locations or [str(spec.origin)]):
        for file in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
            content = file.read_bytes()
            digest.update(f"{file.relative_to(place)}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def not_here(path: Path | str, record: Path) -> str:
    """Say what to do about a fetched file that is not there, of which `record` says where it is."""
    return (
        f"{socket.gethostname()} has no {path}, of which {record} says where it is. If it was "
        f"moved, or this machine does not see it, put it or a link there, or move the cache to "
        f"a folder that all machines see (`cache` in slurm/site.yaml, or HEAR_MN_CACHE). To fetch "
        f"it again delete {record} too; what was made from it is then made again"
    )


def local_source(path: Path) -> dict[str, Any]:
    """Describe an archive or a folder that is here already.

    Raises:
        SourceError: if it is not.
    """
    if not path.exists():
        raise SourceError(f"no such archive or folder: {path}; correct task_sources in the config")
    return {
        "path": str(path.resolve()),
        "kind": "folder" if path.is_dir() else "archive",
        "fingerprint": fingerprint(path),
    }


def published_source(row: TaskRow, cache: Path, *, zenodo: str = ZENODO) -> dict[str, Any]:
    """Fetch a task's published archive into `cache`, unless it is there, and describe it.

    Where config/tasks.csv has no md5 or size, the Zenodo record's own listing gives them.

    Args:
        row: the task.
        cache: the folder for archives.
        zenodo: the base of Zenodo's addresses.

    Raises:
        SourceError: if no published archive is known.
        DownloadError: if it cannot be had, with what to do.
    """
    parsed = RECORD_URL.match(row.url)
    if parsed is None:
        raise SourceError(
            f"{row.task} has no published archive in config/tasks.csv; name yours in the config: "
            f"task_sources: {{{row.task}: /path/to/{row.archive or row.task}}}"
        )
    md5, size = row.md5, row.size
    if not (md5 and size):
        try:
            listing = zenodo_listing(parsed["record"], cache, base=zenodo)
        except DownloadError as error:
            raise DownloadError(
                f"{error}; or, if you have the archive, name it in the config: task_sources: "
                f"{{{row.task}: /path/to/{row.archive}}}"
            ) from error
        if parsed["file"] not in listing:
            raise DownloadError(
                f"{row.task}: the Zenodo record {parsed['record']} has no {parsed['file']}; "
                f"correct url in config/tasks.csv. It has: {', '.join(sorted(listing))}"
            )
        listed = listing[parsed["file"]]
        md5, size = md5 or listed.md5, size or listed.size
    path = fetch(row.url.replace(ZENODO, zenodo, 1), cache / parsed["file"], size=size, md5=md5)
    return {"path": str(path.resolve()), "kind": "archive", "size": size, "md5": md5}
