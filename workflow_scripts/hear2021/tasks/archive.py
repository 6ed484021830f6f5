"""The files of one task in an archive or a folder, of which nothing is unpacked to disk."""

import contextlib
import gzip
import tarfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from workflow_scripts.hear2021.run.fingerprints import files_below
from workflow_scripts.hear2021.tasks.hear_layout import METADATA_FILE
from workflow_scripts.hear2021.tasks.task import TaskError

GZIP_MAGIC = b"\x1f\x8b"
OTHER_ARCHIVES = {
    b"PK": "zip",
    b"\xfd7zXZ": "tar.xz",
    b"BZh": "tar.bz2",
    b"\x28\xb5\x2f\xfd": "zst",
}

Content = tuple[PurePosixPath, Callable[[], bytes]]


def contents(source: Path, task: str) -> Iterator[Content]:
    """Yield the files of a task in the HEAR layout; read each before taking the next.

    Args:
        source: a tar or tar.gz archive, or a folder.
        task: the name of the task's directory.

    Returns:
        Paths relative to the task's directory, each with a function that reads the file.

    Raises:
        TaskError: for an archive that is damaged, unsafe or not there, a folder of no task.
    """
    if not source.exists():
        raise TaskError(
            f"{task}: no such archive or folder: {source}; fetch it or correct its path"
        )
    if source.is_dir():
        yield from _folder_contents(source, task)
    else:
        yield from _archive_contents(source, task)


def _folder_contents(source: Path, task: str) -> Iterator[Content]:
    folders = [source / "tasks" / task, source / task, source]
    found = [folder for folder in folders if (folder / METADATA_FILE).is_file()]
    if not found:
        raise TaskError(f"{task}: {source} is no folder of a task: it has no {METADATA_FILE}")
    for path in files_below(found[0]):
        yield PurePosixPath(path.relative_to(found[0])), path.read_bytes


def _archive_contents(source: Path, task: str) -> Iterator[Content]:
    seen: set[PurePosixPath] = set()
    with _damage_named(source), _opened(source) as stream:
        with tarfile.open(fileobj=stream, mode="r|") as archive:
            for member in archive:
                _refuse_unsafe(member, source)
                path = _within_task(PurePosixPath(member.name), task)
                if member.isdir() or path is None:
                    continue
                if path in seen:
                    raise TaskError(f"{source}: {member.name} occurs twice; pack the archive again")
                seen.add(path)
                yield path, _reader(archive, member, source)
        while stream.read(1 << 20):  # to the end, where gzip compares the checksum
            pass


def _reader(archive: tarfile.TarFile, member: tarfile.TarInfo, source: Path) -> Callable[[], bytes]:
    def read() -> bytes:
        with _damage_named(source):
            file = archive.extractfile(member)
            assert file is not None  # a regular file, see _refuse_unsafe
            return file.read()

    return read


@contextlib.contextmanager
def _damage_named(source: Path) -> Iterator[None]:
    try:
        yield
    except (EOFError, gzip.BadGzipFile, zlib.error, tarfile.TarError) as error:
        raise TaskError(
            f"{source} cannot be read as a tar or tar.gz archive ({error}). It is damaged or cut "
            f"short: fetch or pack it again"
        ) from error


@contextlib.contextmanager
def _opened(source: Path) -> Iterator[BinaryIO | gzip.GzipFile]:
    with source.open("rb") as file:
        start = file.read(6)
        for magic, kind in OTHER_ARCHIVES.items():
            if start.startswith(magic):
                raise TaskError(f"{source} is a {kind} archive; pack the task as tar or tar.gz")
        compressed = start.startswith(GZIP_MAGIC)
        file.seek(0)
        if compressed:
            with gzip.GzipFile(fileobj=file) as stream:
                yield stream
        else:
            yield file


def _refuse_unsafe(member: tarfile.TarInfo, source: Path) -> None:
    path = PurePosixPath(member.name)
    plain = member.isdir() or (member.isreg() and not member.issparse())
    if path.is_absolute() or ".." in path.parts or not plain:
        kind, remedy = "member", "pack it again without this one"
        if member.issym() or member.islnk():
            kind = "link"
            remedy = "pack the file itself (GNU tar: --dereference --hard-dereference)"
        raise TaskError(
            f"{source}: refusing the {kind} {member.name!r}. A task's archive holds plain files "
            f"and folders under its own root; do not use it, or {remedy}"
        )


def _within_task(path: PurePosixPath, task: str) -> PurePosixPath | None:
    """Return `path` relative to the task's folder, None if it lies elsewhere."""
    for depth in range(min(3, len(path.parts))):
        if path.parts[depth] == task and (depth == 0 or path.parts[depth - 1] == "tasks"):
            return PurePosixPath(*path.parts[depth + 1 :])
    return None
