"""Clips through a device: read ahead, sent, computed and fetched, so that no GPU has to wait."""

import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from operator import attrgetter
from typing import TypeVar

import torch

from hear_mn.audio import AudioError
from hear_mn.checkpoints import CheckpointError
from hear_mn.embedding import Embedder
from workflow_scripts.hear2021.embedding.embedded_task import EmbeddingError
from workflow_scripts.hear2021.tasks.task import Clip, Task

Item = TypeVar("Item")


@dataclass(frozen=True)
class Feed:
    """How a kind of device gets its audio.

    Attributes:
        batch_seconds, batch_clips: seconds of audio, and clips, that a batch has at most. The
            embedder takes it in one go or in a few.
        piece_seconds: seconds of audio that are read at a time.
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
CPU_FEED = Feed(
    batch_seconds=80.0,
    batch_clips=256,
    piece_seconds=80.0,
    readers=1,
    ahead=2,
    samples=torch.float32,
)
# A GPU goes through audio faster than one core reads it, so several read pieces of its batches,
# somewhat more than a batch ahead, in int16: half of the bytes. At 32 kHz a piece is 66 MB, a
# little under the power of two that page-locked memory comes in.
CUDA_FEED = Feed(
    batch_seconds=8192.0,
    batch_clips=8192,
    piece_seconds=1024.0,
    readers=4,
    ahead=12,
    samples=torch.int16,
)


def embedded_batches(
    task: Task, clips: Sequence[Clip], embedder: Embedder, times_ms: dict[str, list[float]]
) -> Iterator[tuple[list[Clip], torch.Tensor, bool]]:
    """Embed clips batch by batch.

    Args:
        task: that the clips are of.
        clips: ordered by length.
        embedder: gives all features in one pass.
        times_ms: by a clip's length in samples, as text, the times of its timestamps; event tasks
            add those of lengths that are new.

    Returns:
        The clips of each batch in turn, their embeddings on the CPU, float32 (n_clips, size) or
        (1, n_timestamps, size), and whether all values are finite.

    Raises:
        EmbeddingError: for a clip that cannot be embedded, naming it.
    """
    batches = _on_device(_read_ahead(task, clips, embedder), embedder.device)
    return _on_host(_computed(batches, embedder, task, times_ms), embedder.device)


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

    executor = ThreadPoolExecutor(max_workers=feed.readers)
    try:
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
    finally:
        # Not waited for: of a pass that failed the collector ends this, where it may hold a lock
        # that a thread takes to end (Python's, while another thread is being started).
        executor.shutdown(wait=False, cancel_futures=True)


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
    times_ms: dict[str, list[float]],
) -> Iterator[tuple[list[Clip], torch.Tensor]]:
    """Yield each batch with its features side by side, on the embedder's device.

    Without waiting for a GPU, but for the times of a length of clips that is new.
    """
    for batch, audio in batches:
        try:
            if task.embedding_type == "event":
                matrix, times = embedder.timestamps(audio)
                length = str(batch[0].n_samples)
                if length not in times_ms:
                    times_ms[length] = times[0].tolist()
            elif batch[0].n_samples == batch[-1].n_samples:
                matrix = embedder.scene(audio)
            else:
                matrix = embedder.scene(audio, lengths=[clip.n_samples for clip in batch])
        except (AudioError, CheckpointError) as error:
            clip = f"{batch[0].split}/{batch[0].name}"
            others = f" and {len(batch) - 1} clips of about its length" if len(batch) > 1 else ""
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
                # "cpu" is said, for a module may have set another device as torch's default.
                torch.empty(there.shape, dtype=there.dtype, device="cpu", pin_memory=True).copy_(
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
