"""Embeddings of a task: computed in one pass over its clips, kept as one matrix, read by feature.

Two files a pass. `<parts>.npy` holds float32 rows, `<parts>.json` says what they are. Rows follow
the clips ordered by length (equal lengths make full batches) and then by their order in the task,
so the layout follows from the task and no per-clip index is stored.
"""

import itertools
import json
import os
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np
import torch
from filelock import FileLock, Timeout
from numpy.lib import format as npy
from tqdm import tqdm

from hear_mn.audio import AudioError
from hear_mn.checkpoints import CheckpointError
from hear_mn.embedding import Embedder
from hear_mn.whole import write_json_whole
from workflow_scripts.hear2021.embedding.planning import existing_files
from workflow_scripts.hear2021.tasks.task import Clip, Task

SECONDS_BETWEEN_SAVES = 30.0
SYNC_BYTES = 64 << 20  # of rows that go to the disk together, while the next ones are computed

Item = TypeVar("Item")


@dataclass(frozen=True)
class Feed:
    """How a kind of device gets its audio.

    Attributes:
        batch_seconds, batch_clips: of a batch at most: what the network takes at a time, or a few
            times that.
        piece_seconds: of what is read at a time.
        readers: threads that read.
        ahead: pieces that are read before they are needed.
        samples: as they are in the file, or as the network takes them.
    """

    batch_seconds: float
    batch_clips: int
    piece_seconds: float
    readers: int
    ahead: int
    samples: torch.dtype


# Whole batches, made float32 beside the network's work.
CPU_FEED = Feed(80.0, 256, piece_seconds=80.0, readers=1, ahead=2, samples=torch.float32)
# A GPU goes through audio faster than one core reads it, so several read pieces of its batches,
# somewhat more than a batch ahead, in int16: half of the bytes. At 32 kHz a piece is 66 MB, a
# little under the power of two that page-locked memory comes in.
CUDA_FEED = Feed(8192.0, 8192, piece_seconds=1024.0, readers=4, ahead=12, samples=torch.int16)


class EmbeddingError(RuntimeError):
    """A pass that cannot go on, or embedding files that do not fit their task."""


@dataclass
class Progress:
    """How far a pass has come, saved beside its rows so that a killed job goes on from there."""

    identity: dict[str, Any]
    clips: int = 0
    rows: int = 0
    times_ms: dict[str, list[float]] = field(default_factory=dict)


def embed_task(
    task: Task,
    embedder: Embedder,
    embeddings: Path,
    manifest: Path,
    identity: dict[str, Any],
) -> dict[str, Any]:
    """Embed every clip of `task` and write the matrix and its manifest, whole or not at all.

    A pass that was killed goes on where its rows were last saved, if `identity` is the same.

    Args:
        task: the task at the embedder's sample rate.
        embedder: gives all features in one pass.
        embeddings: the .npy file to write, float32 (n_rows, sum of the feature sizes).
        manifest: the .json file to write; equal for equal `identity`, but for which others were
            there before it (`planning.existing_files`).
        identity: what the numbers depend on (weights, front end, task data, versions).

    Returns:
        How it went: seconds, clips a second, seconds of audio a second.

    Raises:
        EmbeddingError: for a wrong sample rate, a second writer, or NaN or Inf, naming the clip.
    """
    if task.sample_rate != embedder.sample_rate:
        raise EmbeddingError(
            f"{task.name} is at {task.sample_rate} Hz, the model wants {embedder.sample_rate} Hz"
        )
    embeddings.parent.mkdir(parents=True, exist_ok=True)
    part = embeddings.with_name(f".{embeddings.name}.part")
    try:
        with FileLock(part.with_suffix(".lock"), timeout=0):
            performance = _embed(task, embedder, part, identity)
            saved = _read_progress(part, identity)
            part.replace(embeddings)
            write_json_whole(
                manifest,
                {
                    "identity": identity,
                    "features": _columns(_sizes(task, embedder)),
                    "rows": saved.rows,
                    "times_ms": saved.times_ms or None,
                    "made_after": [
                        parts for parts in existing_files(manifest.parent) if parts != manifest.stem
                    ],
                },
            )
            _progress_file(part).unlink()
    except Timeout as error:
        raise EmbeddingError(
            f"another process is writing {embeddings}: a job of an earlier run that is still "
            f"going? Cancel it (squeue, scancel) or wait for it, then start again"
        ) from error
    part.with_suffix(".lock").unlink(missing_ok=True)
    return performance


def _embed(task: Task, embedder: Embedder, part: Path, identity: dict[str, Any]) -> dict[str, Any]:
    clips = clips_by_length(task)
    sizes = _sizes(task, embedder)
    width = sum(sizes.values())
    progress = _read_progress(part, identity)
    started, resumed = time.perf_counter(), progress.clips
    with (
        _open_rows(part, progress, width) as rows,
        _Writer(rows) as writer,
        tqdm(total=len(clips), initial=resumed, unit="clip", desc=task.name, mininterval=1) as bar,
    ):
        saved = time.perf_counter()
        batches = _on_device(_read_ahead(task, clips[resumed:], embedder), embedder.device)
        computed = _computed(batches, embedder, task, progress)
        for batch, matrix, finite in _on_host(computed, embedder.device):
            if not finite:
                _refuse_non_finite(matrix, batch, task, sizes)
            writer.write(matrix.numpy())
            progress.clips += len(batch)
            progress.rows += matrix.numel() // width
            bar.update(len(batch))
            if time.perf_counter() - saved > SECONDS_BETWEEN_SAVES:
                writer.finish()
                _save(part, rows, progress)
                saved = time.perf_counter()
        writer.finish()
        _write_header(rows, progress.rows, width)
        _save(part, rows, progress)
    seconds = time.perf_counter() - started
    embedded = clips[resumed:]
    return {
        "seconds": seconds,
        "clips": len(embedded),
        "clips_per_second": len(embedded) / seconds,
        "audio_seconds_per_second": sum(clip.n_samples for clip in embedded)
        / task.sample_rate
        / seconds,
        "resumed_at_clip": resumed,
    }


def _sizes(task: Task, embedder: Embedder) -> dict[str, int]:
    events = task.embedding_type == "event"
    return embedder.timestamp_feature_sizes if events else embedder.feature_sizes


def clips_by_length(task: Task) -> list[Clip]:
    """Return the clips of a task in the order of their embedding rows."""
    return sorted(task.clips, key=attrgetter("n_samples"))


@dataclass(frozen=True)
class Piece:
    """Neighbouring clips of a batch with their audio.

    Attributes:
        batch: all clips of the batch.
        start: which of them is the piece's first.
        audio: of the piece's clips (n_clips, n_samples of the batch's longest), zero behind them.
    """

    batch: list[Clip]
    start: int
    audio: torch.Tensor


def _read_ahead(task: Task, clips: Sequence[Clip], embedder: Embedder) -> Iterator[Piece]:
    """Yield batches piece by piece, for a GPU in page-locked memory.

    The next pieces are being read meanwhile.
    """
    feed, pinned = _feed(embedder.device), embedder.device.type == "cuda"

    def read(batch: list[Clip], start: int, stop: int) -> Piece:
        shape = stop - start, batch[-1].n_samples
        audio = torch.empty(shape, dtype=feed.samples, pin_memory=pinned)
        task.read(batch[start:stop], audio.numpy())
        return Piece(batch, start, audio)

    with ThreadPoolExecutor(max_workers=feed.readers) as executor:
        ahead: deque[Future[Piece]] = deque()
        for batch in _batches(task, clips, embedder):
            size = max(1, int(feed.piece_seconds * task.sample_rate / batch[-1].n_samples))
            for start in range(0, len(batch), size):
                stop = min(start + size, len(batch))
                ahead.append(executor.submit(read, batch, start, stop))
                if len(ahead) > feed.ahead:
                    yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


def _feed(device: torch.device) -> Feed:
    return CUDA_FEED if device.type == "cuda" else CPU_FEED


def _batches(task: Task, clips: Sequence[Clip], embedder: Embedder) -> Iterator[list[Clip]]:
    """Yield scenes that are alike together, the longest last, up to what a device gets at a time.

    Clips of events are so long that each is a batch.
    """
    if task.embedding_type == "event":
        yield from ([clip] for clip in clips)
        return
    feed = _feed(embedder.device)
    of_length = (
        (n_samples, list(group))
        for n_samples, group in itertools.groupby(clips, key=attrgetter("n_samples"))
    )
    for _, groups in itertools.groupby(of_length, key=lambda one: embedder.alike(one[0])):
        alike = [clip for _, group in groups for clip in group]
        fitting = int(feed.batch_seconds * task.sample_rate / alike[-1].n_samples)
        size = max(1, min(feed.batch_clips, fitting))
        for start in range(0, len(alike), size):
            yield alike[start : start + size]


def _on_device(
    pieces: Iterable[Piece], device: torch.device
) -> Iterator[tuple[list[Clip], torch.Tensor]]:
    """Yield batches with their audio on a device; a GPU gets the next while it computes on one."""
    if device.type != "cuda":
        yield from ((piece.batch, piece.audio) for piece in pieces)
        return
    uploads = torch.cuda.Stream(device)
    computing = torch.cuda.current_stream(device)

    def sent() -> Iterator[tuple[list[Clip], torch.Tensor, torch.cuda.Event]]:
        for piece in pieces:
            n_clips, (n_read, n_samples) = len(piece.batch), piece.audio.shape
            with torch.cuda.stream(uploads):
                if piece.start == 0:
                    audio = piece.audio.new_empty(n_clips, n_samples, device=device)
                audio[piece.start : piece.start + n_read].copy_(piece.audio, non_blocking=True)
                if piece.start + n_read < n_clips:
                    continue
                arrived = torch.cuda.Event()
                arrived.record()
            yield piece.batch, audio, arrived

    for batch, audio, arrived in _one_behind(sent()):
        computing.wait_event(arrived)
        audio.record_stream(computing)
        yield batch, audio


def _computed(
    batches: Iterable[tuple[list[Clip], torch.Tensor]],
    embedder: Embedder,
    task: Task,
    progress: Progress,
) -> Iterator[tuple[list[Clip], torch.Tensor]]:
    """Yield each batch with its features side by side, on the embedder's device.

    Without waiting for a GPU, but for the times of a length of clips that is new.
    """
    for batch, audio in batches:
        try:
            if task.embedding_type == "event":
                matrix, times = embedder.timestamps(audio)
                length = str(batch[0].n_samples)
                if length not in progress.times_ms:
                    progress.times_ms[length] = times[0].tolist()
            elif batch[0].n_samples == batch[-1].n_samples:
                matrix = embedder.scene(audio)
            else:
                matrix = embedder.scene(audio, lengths=[clip.n_samples for clip in batch])
        except (AudioError, CheckpointError) as error:
            clip = f"{batch[0].split}/{batch[0].name}"
            others = f" and {len(batch) - 1} clips as long" if len(batch) > 1 else ""
            raise EmbeddingError(f"{task.name}: clip {clip}{others}: {error}") from error
        yield batch, matrix


def _on_host(
    computed: Iterable[tuple[list[Clip], torch.Tensor]], device: torch.device
) -> Iterator[tuple[list[Clip], torch.Tensor, bool]]:
    """Yield batches with their rows on the CPU and whether all are finite.

    What a GPU gave is yielded when it has its next batch.
    """
    if device.type != "cuda":
        for batch, matrix in computed:
            yield batch, matrix.contiguous(), bool(_all_finite(matrix))
        return

    def fetched() -> Iterator[tuple[list[Clip], list[torch.Tensor], torch.cuda.Event]]:
        for batch, matrix in computed:
            here = [
                torch.empty(there.shape, dtype=there.dtype, pin_memory=True).copy_(
                    there, non_blocking=True
                )
                for there in (matrix, _all_finite(matrix))
            ]
            copied = torch.cuda.Event(blocking=True)  # a core that waits is one that reads
            copied.record()
            yield batch, here, copied

    for batch, (rows, finite), copied in _one_behind(fetched()):
        copied.synchronize()
        yield batch, rows, bool(finite)


def _all_finite(matrix: torch.Tensor) -> torch.Tensor:
    return torch.isfinite(matrix).all()


def _one_behind(items: Iterable[Item]) -> Iterator[Item]:
    """Yield each item once the next one is there."""
    waiting: list[Item] = []
    for item in items:
        yield from waiting
        waiting = [item]
    yield from waiting


def _refuse_non_finite(
    matrix: torch.Tensor, batch: Sequence[Clip], task: Task, feature_sizes: dict[str, int]
) -> None:
    """Raise EmbeddingError that names the clip and the feature with NaN or Inf."""
    for clip, values in zip(batch, matrix, strict=True):
        finite = torch.isfinite(values).reshape(-1, values.shape[-1]).all(dim=0)
        for name, (start, stop) in _columns(feature_sizes).items():
            if not finite[start:stop].all():
                raise EmbeddingError(
                    f"{task.name}: the feature {name} of clip {clip.split}/{clip.name} has NaN or "
                    f"Inf. Listen to the clip; a MobileNet in half precision may need "
                    f"`precision: float32`"
                )


def _columns(feature_sizes: dict[str, int]) -> dict[str, list[int]]:
    stops = list(itertools.accumulate(feature_sizes.values()))
    starts = [0, *stops]
    return {
        name: [start, stop]
        for name, start, stop in zip(feature_sizes, starts[:-1], stops, strict=True)
    }


# Rows are appended to a .npy file whose header is written again at the end: numpy leaves room in
# the header for the number of rows to grow.
def _write_header(rows: BinaryIO, n_rows: int, width: int) -> None:
    rows.seek(0)
    npy.write_array_header_1_0(
        rows, {"descr": "<f4", "fortran_order": False, "shape": (n_rows, width)}
    )


def _open_rows(part: Path, progress: Progress, width: int) -> BinaryIO:
    rows = part.open("r+b" if progress.rows else "w+b")
    _write_header(rows, progress.rows, width)
    rows.truncate(rows.tell() + progress.rows * width * 4)
    rows.seek(0, os.SEEK_END)
    return rows


class _Writer:
    """Writes rows to a file, and onto the disk, beside the thread that gives them.

    Written at the end of a pass, they would keep a GPU waiting for as long as the disk takes. The
    disk has a thread of its own, so that rows go to the file while it takes those before them.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._writing, self._syncing = (ThreadPoolExecutor(max_workers=1) for _ in range(2))
        self._written: Future[None] | None = None
        self._synced: Future[None] | None = None
        self._unsynced = 0

    def __enter__(self) -> "_Writer":
        return self

    def __exit__(self, *exception: object) -> None:
        self._writing.shutdown()  # before what it hands on to
        self._syncing.shutdown()

    def write(self, rows: np.ndarray) -> None:
        """Take rows once those before them are written. Raises OSError of earlier ones."""
        if self._written is not None:
            self._written.result()
        self._written = self._writing.submit(self._write, rows)

    def finish(self) -> None:
        """Wait until all rows are written. Raises OSError."""
        if self._written is not None:
            self._written.result()  # which may hand on to the disk
        if self._synced is not None:
            self._synced.result()

    def _write(self, rows: np.ndarray) -> None:
        self._file.write(rows.data)
        self._unsynced += rows.nbytes
        if self._unsynced >= SYNC_BYTES:
            self._file.flush()
            if self._synced is not None:
                self._synced.result()  # the disk gets no further behind than this
            self._synced = self._syncing.submit(os.fdatasync, self._file.fileno())
            self._unsynced = 0


def _progress_file(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _save(part: Path, rows: BinaryIO, progress: Progress) -> None:
    rows.flush()
    os.fsync(rows.fileno())
    write_json_whole(_progress_file(part), vars(progress))


def _read_progress(part: Path, identity: dict[str, Any]) -> Progress:
    saved = _progress_file(part)
    if part.exists() and saved.exists():
        try:
            progress = Progress(**json.loads(saved.read_text()))
        except (ValueError, TypeError):  # of a node that crashed while it wrote
            return Progress(identity)
        if progress.identity == identity:
            return progress
    return Progress(identity)


class EmbeddedTask:
    """A task with the embeddings of one variant: what the evaluation works on.

    Args:
        task: the task.
        manifests: the manifests of embedding files that together hold `features`; their matrices
            lie beside them.
        features: in the order of concatenation; one may be named twice.

    Raises:
        EmbeddingError: if a file is missing, truncated or of other data, or a feature in none.
    """

    def __init__(self, task: Task, manifests: Sequence[Path], features: Sequence[str]) -> None:
        self.task = task
        self.identity: list[dict[str, Any]] = []
        self._times_ms: dict[str, list[float]] = {}
        stored: dict[str, np.ndarray] = {}
        for path in manifests:
            manifest = json.loads(path.read_text())
            matrix = _matrix(path.with_suffix(".npy"), manifest)
            if manifest["identity"]["task_sha256"] != task.sha256:
                raise EmbeddingError(
                    f"{path} was made from other data than {task.name} is now; delete it and "
                    f"start again"
                )
            self.identity.append(manifest["identity"])
            self._times_ms |= manifest["times_ms"] or {}
            for feature, (start, stop) in manifest["features"].items():
                stored.setdefault(feature, matrix[:, start:stop])
        absent = [feature for feature in features if feature not in stored]
        if absent:
            raise EmbeddingError(
                f"{task.name}: {', '.join(map(str, manifests))} hold no {', '.join(absent)}"
            )
        self._stored = [stored[feature] for feature in features]
        self._rows_of = self._row_ranges()

    @property
    def size(self) -> int:
        """The number of values of one embedding."""
        return sum(matrix.shape[1] for matrix in self._stored)

    def rows(self, split: str) -> np.ndarray:
        """Return the embeddings of a split's clips in their order, float32 (n_rows, size)."""
        wanted = np.concatenate([self._rows_of[clip] for clip in self._clips(split)])
        rows = np.empty((len(wanted), self.size), dtype=np.float32)
        column = 0
        for matrix in self._stored:
            rows[:, column : column + matrix.shape[1]] = matrix[wanted]
            column += matrix.shape[1]
        return rows

    def times_ms(self, split: str) -> list[np.ndarray]:
        """Return the times of the timestamp embeddings, one float32 array a clip of the split."""
        return [
            np.asarray(self._times_ms[str(clip.n_samples)], dtype=np.float32)
            for clip in self.task.splits[split]
        ]

    def _clips(self, split: str) -> list[tuple[str, str]]:
        return [(split, clip.name) for clip in self.task.splits[split]]

    def _row_ranges(self) -> dict[tuple[str, str], np.ndarray]:
        events = self.task.embedding_type == "event"
        ranges, start = {}, 0
        for clip in clips_by_length(self.task):
            count = len(self._times_ms[str(clip.n_samples)]) if events else 1
            ranges[clip.split, clip.name] = np.arange(start, start + count)
            start += count
        if any(len(matrix) != start for matrix in self._stored):
            raise EmbeddingError(f"{self.task.name}: the embeddings do not have {start} rows")
        return ranges


def _matrix(path: Path, manifest: dict[str, Any]) -> np.ndarray:
    try:
        matrix = np.load(path, mmap_mode="r")
    except (OSError, ValueError) as error:
        raise EmbeddingError(
            f"{path} cannot be read ({error}); delete it and its .json and start again"
        ) from error
    if len(matrix) != manifest["rows"]:
        raise EmbeddingError(
            f"{path} has {len(matrix)} rows, its .json says {manifest['rows']}; delete both and "
            f"start again"
        )
    return matrix
