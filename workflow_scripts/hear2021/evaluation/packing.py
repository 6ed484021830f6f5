"""Embeddings and targets of a task as heareval packs them: each split in its shuffled order.

heareval shuffles the clips of a split once, when it packs their embeddings into one file, and never
again: this order is the order of the training batches.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from workflow_scripts.hear2021.evaluation.events import Events, active_labels
from workflow_scripts.hear2021.tasks.task import Clip, Task

CHECKED_ROWS = 8192
FLOAT_BYTES = 4
ALIGNMENT = 64  # bytes; torch's allocations begin at multiples of it
ROWS_SHARE = 0.5  # of a GPU's free memory; the rest is for the predictors


class TaskEmbeddings(Protocol):
    """A task with embeddings of its clips, as `EmbeddedTask` reads them from files.

    Attributes:
        task: the task.
        size: number of values of one embedding.
    """

    task: Task

    @property
    def size(self) -> int:
        """The number of values of one embedding."""

    def rows(self, split: str) -> np.ndarray:
        """Return float32 (n_rows, size), clip after clip in the task's order.

        A clip has one row in a scene task, and one a timestamp in an event task.
        """

    def times_ms(self, split: str) -> list[np.ndarray]:
        """Return the times of each clip's timestamps, in the task's order; event tasks only."""


@dataclass(frozen=True)
class PackedSplit:
    """A split's clips in heareval's order.

    Attributes:
        clips: the clips.
        start, stop: their rows in the packed task.
        times_ms: (n_timestamps,) a clip; empty for scene tasks.
        events: the true events, numbered as `clips`; without events for scene tasks.
    """

    clips: list[Clip]
    start: int
    stop: int
    times_ms: list[np.ndarray]
    events: Events


@dataclass(frozen=True)
class PackedTask:
    """All splits' rows in one matrix.

    Attributes:
        task: the task.
        rows: float32 (n_rows, size), on the device; in host memory where they have no room there.
        active: float32 (n_rows, n_labels), 1 where a label applies.
        targets: what the loss takes: the label's index, int64 (n_rows,), for multiclass tasks;
            `active` for multilabel ones.
        splits: by name.
    """

    task: Task
    rows: torch.Tensor
    active: torch.Tensor
    targets: torch.Tensor
    splits: dict[str, PackedSplit]

    @property
    def device(self) -> torch.device:
        """Where predictors are trained."""
        return self.targets.device

    def row_ranges(self, splits: Sequence[str], batch_size: int) -> list[list[slice]]:
        """Return the rows of each batch over `splits`, in order, without shuffling.

        A batch is several ranges where it goes over from one split to the next.
        """
        ranges = [slice(self.splits[name].start, self.splits[name].stop) for name in splits]
        batches: list[list[slice]] = [[]]
        room = batch_size
        for rows in ranges:
            start = rows.start
            while start < rows.stop:
                if room == 0:
                    batches.append([])
                    room = batch_size
                stop = min(start + room, rows.stop)
                batches[-1].append(slice(start, stop))
                room -= stop - start
                start = stop
        return batches

    def batches(
        self, splits: Sequence[str], batch_size: int
    ) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Return the batches (rows, targets) over `splits`, views where rows are contiguous."""
        return [
            (
                _joined([self.rows[rows] for rows in ranges]),
                _joined([self.targets[rows] for rows in ranges]),
            )
            for ranges in self.row_ranges(splits, batch_size)
        ]

    def on_device(self, rows: torch.Tensor) -> torch.Tensor:
        """Return a batch's rows where predictors are trained.

        On a CPU as aligned in memory as heareval's, which are copies: products of rows that are
        not may sum in another order (MKL's of two or three rows do on an AMD EPYC).
        """
        if self.device.type == "cpu" and rows.data_ptr() % ALIGNMENT:
            return rows.clone()
        return rows.to(self.device, non_blocking=True)


def _joined(parts: list[torch.Tensor]) -> torch.Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def packed_clips(task: Task) -> dict[str, list[int]]:
    """Return, for each split, the indices of its clips in heareval's packed order.

    One generator with seed 0 shuffles the splits in the order of the task's metadata
    (heareval.embeddings.task_embeddings).
    """
    generator = random.Random(0)
    order = {}
    for split in task.metadata["splits"]:
        order[split] = list(range(len(task.splits[split])))
        generator.shuffle(order[split])
    return order


def pack(embedded: TaskEmbeddings, device: torch.device | str = "cpu") -> PackedTask:
    """Put a task's rows and targets in heareval's order, on `device`.

    Memory: the packed matrix, and one split's rows while they are read. A matrix that would take
    more than half of a GPU's free memory stays in the host's and goes to the GPU batch by batch.

    Raises:
        ValueError: for a split without clips, rows that do not fit the clips, NaN or Inf, or
            not exactly one label a row in a multiclass task; names the task, the split and, where
            there is one, the clip.
    """
    task = embedded.task
    order = packed_clips(task)
    splits, active, start = {}, [], 0
    for name in order:
        clips = [task.splits[name][i] for i in order[name]]
        times_ms: list[np.ndarray] = []
        if task.embedding_type == "event":
            unpacked_times = embedded.times_ms(name)
            times_ms = [unpacked_times[i] for i in order[name]]
        active.append(_active(task, name, clips, times_ms))
        stop = start + len(active[-1])
        splits[name] = PackedSplit(clips, start, stop, times_ms, true_events(task, clips))
        start = stop
    device = torch.device(device)
    resident = _has_room(start * embedded.size * FLOAT_BYTES, device)
    rows = torch.empty(start, embedded.size)
    for name, split in splits.items():
        unpacked = embedded.rows(name)
        if unpacked.shape != (split.stop - split.start, embedded.size):
            raise ValueError(
                f"{task.name}, split {name}: embeddings of shape {unpacked.shape}, expected "
                f"{(split.stop - split.start, embedded.size)}"
            )
        packed = rows[split.start : split.stop]
        np.take(unpacked, _row_order(order[name], split), axis=0, out=packed.numpy(), mode="clip")
        _refuse_non_finite(task, name, split, packed)
    multi_hot = torch.from_numpy(np.concatenate(active).astype(np.float32)).to(device)
    multiclass = task.prediction_type == "multiclass"
    return PackedTask(
        task=task,
        rows=rows.to(device) if resident else rows,
        active=multi_hot,
        targets=multi_hot.argmax(dim=1) if multiclass else multi_hot,
        splits=splits,
    )


def _has_room(size: int, device: torch.device) -> bool:
    if device.type != "cuda":
        return True
    torch.cuda.empty_cache()  # what torch keeps of an earlier seed's rows does not count as free
    free, _ = torch.cuda.mem_get_info(device)
    return size <= ROWS_SHARE * free


def true_events(task: Task, clips: Sequence[Clip]) -> Events:
    """Return the true events of clips, numbered in the order given; none for scene tasks."""
    return Events.from_lists([clip.events for clip in clips], task.labels)


def active_at_timestamps(task: Task, clip: Clip, times_ms: np.ndarray) -> np.ndarray:
    """Return which labels are active at which timestamp of a clip, bool (n_timestamps, n_labels).

    Raises:
        ValueError: for events that end before they start, or equal times, naming the clip.
    """
    where = f"{task.name}, split {clip.split}, clip {clip.name}"
    if len(np.unique(times_ms)) < len(times_ms):
        raise ValueError(f"{where}: two timestamps have the same time")
    try:
        return active_labels(true_events(task, [clip]), times_ms, len(task.labels))
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _active(task: Task, split: str, clips: list[Clip], times_ms: list[np.ndarray]) -> np.ndarray:
    """Return the labels of each row of a split, bool (n_rows, n_labels)."""
    if not clips:
        raise ValueError(
            f"{task.name}, split {split}: no clips, and the protocol needs some in every split"
        )
    if task.embedding_type == "event":
        of_clips = [
            active_at_timestamps(task, clip, times)
            for clip, times in zip(clips, times_ms, strict=True)
        ]
    else:
        index = {label: i for i, label in enumerate(task.labels)}
        of_clips = [np.zeros((1, len(index)), dtype=bool) for _ in clips]
        for clip, labels in zip(clips, of_clips, strict=True):
            labels[0, [index[label] for label in clip.labels]] = True
    if task.prediction_type == "multiclass":
        for clip, labels in zip(clips, of_clips, strict=True):
            if not (labels.sum(axis=1) == 1).all():
                raise ValueError(
                    f"{task.name}, split {split}, clip {clip.name}: not exactly one label, as a "
                    f"multiclass task needs; correct it in the task's archive or folder"
                )
    return np.concatenate(of_clips)


def _row_order(order: list[int], split: PackedSplit) -> np.ndarray:
    """Return where the rows of a split lie in the task's own order of clips."""
    n_rows = np.array([len(times) for times in split.times_ms] or [1] * len(order))
    in_task_order = n_rows[np.argsort(order)]
    first = np.cumsum(in_task_order) - in_task_order
    return np.concatenate([np.arange(first[i], first[i] + in_task_order[i]) for i in order])


def _refuse_non_finite(task: Task, name: str, split: PackedSplit, rows: torch.Tensor) -> None:
    for start in range(0, len(rows), CHECKED_ROWS):
        finite = torch.isfinite(rows[start : start + CHECKED_ROWS]).all(dim=1)
        if not finite.all():
            row = start + int(finite.logical_not().nonzero()[0])
            ends = np.cumsum([len(times) for times in split.times_ms] or [1] * len(split.clips))
            clip = split.clips[int(np.searchsorted(ends, row, side="right"))]
            raise ValueError(
                f"{task.name}, split {name}, clip {clip.name}: NaN or Inf in its embeddings"
            )
