"""The files of a Zenodo record, where HEAR's archives are published."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hear_mn.download import fetch_json

ZENODO = "https://zenodo.org"


@dataclass(frozen=True)
class ListedFile:
    """A file of a record, as the record lists it: its size in bytes, its md5 in hexadecimal."""

    size: int
    md5: str


def zenodo_listing(record: str, cache: Path, *, base: str = ZENODO) -> dict[str, ListedFile]:
    """Return the files of a record by name; asked of Zenodo once and kept in `cache`.

    Raises:
        DownloadError: if Zenodo does not answer, or not with a record's list of files.
    """

    def sizes_and_hashes(answer: Any) -> dict[str, dict[str, Any]]:
        return {
            file["key"]: {
                "size": int(file["size"]),
                "md5": file["checksum"].removeprefix("md5:"),
            }
            for file in answer["files"]
        }

    kept = cache / f"zenodo-record-{record}.json"
    listed = fetch_json(f"{base}/api/records/{record}", kept, sizes_and_hashes)
    return {name: ListedFile(**file) for name, file in listed.items()}
