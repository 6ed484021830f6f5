"""From a HEAR archive or folder to a prepared task: checked, resampled, packed in three files.

An archive is read once, member after member, and nothing is unpacked to disk: wavs are decoded from
memory and resampled as they come, in any order, into one file aside. When the archive has been read
to its end, and its checksum with it, the clips are copied into the order of the metadata. So the
same content gives the same bytes, whatever the order of the members, archive or folder. For a while
this takes the disk space of the prepared audio twice.
"""

import collections
import contextlib
import gzip
import hashlib
import io
import json
import shutil
import tarfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import numpy as np
import soundfile
import soxr
from filelock import FileLock, Timeout
from numpy.lib import format as npy
from tqdm import tqdm

from workflow_scripts.hear2021.run.configuration import TaskRow
from workflow_scripts.hear2021.tasks.sources import files_below
from workflow_scripts.hear2021.tasks.task import (
    METADATA_FILE,
    VOCABULARY_FILE,
    Annotation,
    Task,
    TaskError,
    read_metadata,
    read_split,
    read_vocabulary,
)

GZIP_MAGIC = b"\x1f\x8b"
UNKNOWN_RIFF_SIZES = (0, 0xFFFFFFFF)  # written by encoders that could not seek back

Content = tuple[PurePosixPath, Callable[[], bytes]]


def prepare_task(
    source: Path,
    task: str,
    sample_rate: int,
    out_dir: Path,
    threads: int,
    row: TaskRow | None = None,
) -> Task:
    """Pack a task in the HEAR layout for one sample rate, whole or not at all.

    Audio already at `sample_rate` is kept bit for bit. Otherwise that of the highest rate there is
    becomes float32, is resampled by soxr at HQ quality (ffmpeg's `aresample=resampler=soxr`, which
    HEAR's own preprocessing uses), rounded and clipped to 16 bits.

    Args:
        source: a tar or tar.gz archive with `<task>/` at its root, in `tasks/` or in
            `hear-2021.0.6/tasks/`, or a folder that is or holds the task's.
        task: the name of the task's directory.
        sample_rate: in Hz.
        out_dir: the folder that gets task.json, clips.json and audio.npy.
        threads: how many clips are decoded and resampled side by side.
        row: what config/tasks.csv says of the task, to be compared with its metadata.

    Raises:
        TaskError: if the source is damaged, unsafe, incomplete or another task than the row says,
            naming the file and what to do.
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    aside = out_dir / ".partial"
    try:
        with FileLock(out_dir / ".lock", timeout=0), _emptied(aside):
            description = _pack(source, task, sample_rate, aside, threads, row)
            (out_dir / "task.json").unlink(missing_ok=True)
            for name in ("audio.npy", "clips.json", "task.json"):
                (aside / name).replace(out_dir / name)
    except Timeout as error:
        raise TaskError(f"another process is preparing {task} in {out_dir}; wait for it") from error
    print(f"{task}: {description} at {sample_rate} Hz in {out_dir}", flush=True)
    return Task.load(out_dir)


@contextlib.contextmanager
def _emptied(folder: Path) -> Iterator[None]:
    shutil.rmtree(folder, ignore_errors=True)  # of a job that was killed
    folder.mkdir()
    try:
        yield
    finally:
        shutil.rmtree(folder)


def _pack(
    source: Path, task: str, sample_rate: int, aside: Path, threads: int, row: TaskRow | None
) -> str:
    texts: dict[str, bytes] = {}
    with AudioSpool(aside / "arrival.int16", sample_rate, threads) as spool:
        for path, read in _contents(source, task):
            if len(path.parts) == 1 and path.suffix in {".json", ".csv"}:
                texts[path.name] = read()
            elif len(path.parts) > 2 and path.parts[0].isdigit():
                spool.offer(int(path.parts[0]), str(path.relative_to(path.parts[0])), read)
        spool.finish()
        if not texts and not spool.clips:
            raise TaskError(
                f"{source} holds no {task}/ at its root, in tasks/ or in hear-*/tasks/. Is it the "
                f"archive of another task?"
            )
        metadata = read_metadata(task, _text(texts, METADATA_FILE, task, source))
        if row is not None:
            _refuse_another_task(metadata, row, source)
        return _write(texts, metadata, spool, task, source, aside)


def _write(
    texts: Mapping[str, bytes],
    metadata: dict[str, Any],
    spool: "AudioSpool",
    task: str,
    source: Path,
    aside: Path,
) -> str:
    labels = read_vocabulary(task, _text(texts, VOCABULARY_FILE, task, source))
    annotations = {
        split: read_split(
            task, split, _text(texts, f"{split}.json", task, source), metadata, labels
        )
        for split in metadata["splits"]
    }
    listed = {
        f"{split}/{name}": (split, name) for split in annotations for name in annotations[split]
    }
    _refuse_incomplete(listed, spool, task, source)
    kind = "events" if metadata["embedding_type"] == "event" else "labels"
    clips: dict[str, list[dict[str, Any]]] = {split: [] for split in annotations}
    total = 0
    for path, (split, name) in listed.items():
        n_samples = spool.clips[path].n_samples
        annotation: Annotation = annotations[split][name]
        clips[split].append(
            {"name": name, "start": total, "n_samples": n_samples, kind: annotation}
        )
        total += n_samples
    content = hashlib.sha256(
        _json({"metadata": metadata, "labels": labels, "rate": spool.sample_rate}, sort_keys=True)
    )
    content.update(_json(clips))
    with (aside / "audio.npy").open("wb") as audio:
        npy.write_array_header_1_0(
            audio, {"descr": "<i2", "fortran_order": False, "shape": (total,)}
        )
        for path in listed:
            samples = spool.read(path)
            content.update(samples)
            audio.write(samples)
    (aside / "clips.json").write_bytes(_json(clips))
    description = {
        "task": task,
        "metadata": metadata,
        "labels": labels,
        "splits": {split: len(listed) for split, listed in clips.items()},
        "sample_rate": spool.sample_rate,
        "seconds": total / spool.sample_rate,
        "sha256": content.hexdigest(),
    }
    (aside / "task.json").write_bytes(_json(description, indent=1))
    unlisted = len(spool.clips) + len(spool.damaged) - len(listed)
    return (
        f"{len(listed)} clips, {total / spool.sample_rate / 3600:.2f} hours, from "
        f"{spool.source_rate} Hz ({unlisted} unlisted files ignored)"
    )


def _json(content: Any, **options: Any) -> bytes:
    return (json.dumps(content, **options) + "\n").encode()


def _text(texts: Mapping[str, bytes], name: str, task: str, source: Path) -> str:
    if name not in texts:
        raise TaskError(f"{task}: {name} is missing in {source}; it belongs beside {METADATA_FILE}")
    try:
        return texts[name].decode()
    except UnicodeDecodeError as error:
        raise TaskError(f"{task}: {name} in {source} is not UTF-8: {error}") from error


def _refuse_another_task(metadata: Mapping[str, Any], row: TaskRow, source: Path) -> None:
    # By the score it would be reported as. The name in the metadata does not tell: HEAR's own
    # mridangam_tonic calls itself mridangam_stroke.
    found = (metadata["embedding_type"], metadata["prediction_type"], metadata["evaluation"][0])
    if found != row.kind:
        raise TaskError(
            f"{row.task}: {METADATA_FILE} in {source} says {', '.join(found)}, and "
            f"config/tasks.csv {', '.join(row.kind)}. Is it another task? If not, correct the row"
        )


def _refuse_incomplete(
    listed: Mapping[str, Any], spool: "AudioSpool", task: str, source: Path
) -> None:
    damaged = [f"{path} ({spool.damaged[path]})" for path in listed if path in spool.damaged]
    if damaged:
        raise TaskError(
            f"{task}: {len(damaged)} of {len(listed)} clips in {source} cannot be used: "
            f"{_first_five(damaged)}. Fetch the archive again or correct these files."
        )
    missing = [path for path in listed if path not in spool.clips]
    if missing:
        rate = spool.source_rate or spool.sample_rate
        raise TaskError(
            f"{task}: {len(missing)} of {len(listed)} listed clips are not in {source}: "
            f"{_first_five([f'{rate}/{path}' for path in missing])}. "
            f"Fetch the archive again or take them off the lists."
        )


def _first_five(names: list[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")


def _contents(source: Path, task: str) -> Iterator[Content]:
    """Yield the files of a task, paths relative to its folder; read each before taking the next."""
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
            f"short: delete it and fetch it again"
        ) from error


@contextlib.contextmanager
def _opened(source: Path) -> Iterator[BinaryIO | gzip.GzipFile]:
    with source.open("rb") as file:
        compressed = file.read(2) == GZIP_MAGIC
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
        kind = "link" if member.issym() or member.islnk() else "member"
        raise TaskError(
            f"{source}: refusing the {kind} {member.name!r}. A task's archive holds plain files "
            f"and folders under its own root; do not use it, or pack it again without this one"
        )


def _within_task(path: PurePosixPath, task: str) -> PurePosixPath | None:
    """Return `path` relative to the task's folder, None if it lies elsewhere."""
    for depth in range(min(3, len(path.parts))):
        if path.parts[depth] == task and (depth == 0 or path.parts[depth - 1] == "tasks"):
            return PurePosixPath(*path.parts[depth + 1 :])
    return None


@dataclass(frozen=True)
class SpooledClip:
    """Where a clip lies in the spool, in samples."""

    start: int
    n_samples: int


@dataclass
class AudioSpool:
    """The clips of one source rate at the target rate, in the order they arrive, in a file aside.

    Which rates an archive has is known only at its end: when clips of a better rate arrive, those
    of the other are dropped. Best is the target's own, then the highest.

    Args:
        path: the file aside.
        sample_rate: the target's.
        threads: how many clips are worked on at a time; twice as many are held in memory.
    """

    path: Path
    sample_rate: int
    threads: int
    source_rate: int | None = None
    clips: dict[str, SpooledClip] = field(default_factory=dict)
    damaged: dict[str, str] = field(default_factory=dict)

    def __enter__(self) -> "AudioSpool":
        """Open the file and the pool."""
        self._file = self.path.open("w+b")
        self._pool = ThreadPoolExecutor(self.threads)
        self._waiting: collections.deque[tuple[str, Future[np.ndarray]]] = collections.deque()
        self._progress = tqdm(unit="clip", mininterval=5)
        return self

    def __exit__(self, *exception: object) -> None:
        """Close them; what is under way is dropped."""
        self._pool.shutdown(cancel_futures=True)
        self._file.close()
        self._progress.close()

    def offer(self, rate: int, path: str, read: Callable[[], bytes]) -> None:
        """Take the clip `<split>/<name>` of the folder of `rate`, unless a better rate was seen."""
        if self.source_rate is not None and rate != self.source_rate:
            if self._merit(rate) < self._merit(self.source_rate):
                return
            self._drop()
        self.source_rate = rate
        self._waiting.append((path, self._pool.submit(_decoded, read(), rate, self.sample_rate)))
        while len(self._waiting) > 2 * self.threads:
            self._write_next()

    def finish(self) -> None:
        """Wait for the clips under way."""
        while self._waiting:
            self._write_next()

    def read(self, path: str) -> bytes:
        """Return the samples of a clip, int16, as bytes."""
        clip = self.clips[path]
        self._file.seek(2 * clip.start)
        return self._file.read(2 * clip.n_samples)

    def _merit(self, rate: int) -> tuple[bool, int]:
        return rate == self.sample_rate, rate

    def _write_next(self) -> None:
        path, under_way = self._waiting.popleft()
        try:
            samples = under_way.result()
        except AudioError as error:
            self.damaged[path] = str(error)
            return
        self.clips[path] = SpooledClip(self._file.tell() // 2, len(samples))
        self._file.write(samples.astype("<i2", copy=False).data)
        self._progress.update()

    def _drop(self) -> None:
        for _, under_way in self._waiting:
            under_way.cancel()
        self._waiting.clear()
        self.clips.clear()
        self.damaged.clear()
        self._file.seek(0)
        self._file.truncate()


class AudioError(ValueError):
    """Why a wav is not a clip of a task."""


def _decoded(wav: bytes, rate: int, sample_rate: int) -> np.ndarray:
    return resample(decode(wav, rate), rate, sample_rate)


def decode(wav: bytes, sample_rate: int) -> np.ndarray:
    """Decode a mono 16-bit wav into int16 (n_samples,).

    Raises:
        AudioError: if it is not that, not at `sample_rate`, empty or cut short.
    """
    try:
        with soundfile.SoundFile(io.BytesIO(wav)) as sound:
            if sound.format not in {"WAV", "WAVEX"} or sound.subtype != "PCM_16":
                raise AudioError(f"is {sound.format} {sound.subtype}, not 16-bit wav")
            if sound.channels != 1:
                raise AudioError(f"has {sound.channels} channels, not 1")
            if sound.samplerate != sample_rate:
                raise AudioError(f"is at {sound.samplerate} Hz in the folder {sample_rate}/")
            samples = sound.read(dtype="int16")
    except soundfile.SoundFileError as error:
        raise AudioError(f"is no wav: {error}") from error
    declared = int.from_bytes(wav[4:8], "little")  # of the RIFF chunk, after these eight bytes
    if declared not in UNKNOWN_RIFF_SIZES and declared + 8 > len(wav):
        raise AudioError(f"is cut short: {len(wav)} of {declared + 8} bytes")
    if not len(samples):
        raise AudioError("has no samples")
    return samples


def resample(samples: np.ndarray, rate: int, sample_rate: int) -> np.ndarray:
    """Resample int16 (n_samples,) by soxr HQ, rounded and clipped; equal rates change nothing.

    Raises:
        AudioError: if nothing is left of the few samples there are.
    """
    if rate == sample_rate:
        return samples
    resampled = soxr.resample(samples.astype(np.float32), rate, sample_rate, quality="HQ")
    if not len(resampled):
        raise AudioError(f"has {len(samples)} samples at {rate} Hz and none at {sample_rate} Hz")
    return np.clip(np.rint(resampled), -32768, 32767).astype(np.int16)
