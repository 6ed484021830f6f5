"""Where the data of a task comes from: a file or folder of one's own, or a published archive."""

import re
from pathlib import Path
from typing import Any

from hear_mn.download import DownloadError, fetch
from workflow_scripts.hear2021.run.configuration import TaskRow
from workflow_scripts.hear2021.run.fingerprints import fingerprint
from workflow_scripts.hear2021.tasks.zenodo import ZENODO, zenodo_listing

RECORD_URL = re.compile(r"^https://zenodo\.org/records/(?P<record>\d+)/files/(?P<file>[^/?]+)$")


class SourceError(ValueError):
    """A task whose data is nowhere to be had, with what to do."""


def local_source(path: Path) -> dict[str, Any]:
    """Describe an archive or a folder that is here already.

    Raises:
        SourceError: if it is not.
    """
    if not path.exists():
        raise SourceError(f"no such archive or folder: {path}; correct task_sources in the config")
    return {
        "path": str(path),  # as it is given: one in the clone is there when the clone moves
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
