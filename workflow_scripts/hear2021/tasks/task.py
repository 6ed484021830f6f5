"""A prepared HEAR task: its metadata, labels, clips and their audio.

On disk a task at one sample rate is three files that `prepare` writes: `task.json` (what the task
is), `clips.json` (its clips by split) and `audio.npy` (all clips, one after another, int16). A task
is known by the name of its directory; `task_name` in the metadata of a released task can be that of
another one (mridangam_tonic says mridangam_stroke).
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict

import numpy as np


class TaskError(ValueError):
    """A task that cannot be used, with the task, the file at fault and what to do."""


class Event(TypedDict):
    """A labelled stretch of a clip, in the form heareval passes it around; times in ms."""

    label: str
    start: float
    end: float


@dataclass(frozen=True)
class Clip:
    """One sound of a task.

    Args:
        split: the split or fold it belongs to.
        name: its file name in the task, unique within the split.
        start: index of its first sample in the task's audio.
        n_samples: its length in samples.
        labels: the labels of a scene clip; a multilabel clip may have none.
        events: the events of an event clip, in the task's order.
    """

    split: str
    name: str
    start: int
    n_samples: int
    labels: tuple[str, ...] = ()
    events: tuple[Event, ...] = ()


@dataclass(frozen=True)
class Task:
    """A task at one sample rate, with its audio on disk.

    Args:
        name: the name of the task's directory, say `esc50-v2.0.0-full`.
        metadata: task_metadata.json as it was released.
        labels: the label vocabulary, by index.
        splits: the clips of each split, in the order of the metadata and of the split's JSON.
        sample_rate: in Hz.
        sha256: a hash over metadata, vocabulary, clips and audio.
        samples: int16 (sum of the clips' n_samples,), memory-mapped.
    """

    name: str
    metadata: dict[str, Any]
    labels: list[str]
    splits: dict[str, list[Clip]]
    sample_rate: int
    sha256: str
    samples: np.ndarray = field(repr=False)

    @property
    def embedding_type(self) -> str:
        """`scene` (one embedding a clip) or `event` (one a timestamp)."""
        return self.metadata["embedding_type"]

    @property
    def prediction_type(self) -> str:
        """`multiclass` (one label a clip) or `multilabel`."""
        return self.metadata["prediction_type"]

    @property
    def clips(self) -> list[Clip]:
        """All clips, split after split."""
        return [clip for clips in self.splits.values() for clip in clips]

    def read(self, clips: Sequence[Clip], out: np.ndarray) -> None:
        """Write clips' audio into the rows of `out`, and zeros behind the shorter ones.

        Clips of one length that lie one after another are one copy, during which other threads run.

        Args:
            clips: as many as `out` has rows.
            out: (n_clips, n_samples of the longest at least); int16 gets the samples as they are
                stored, float32 what soundfile reads from the wav, in [-1, 1).
        """
        for start, stop in _stretches(clips):
            first, count = clips[start], stop - start
            end = first.start + count * first.n_samples
            stored = self.samples[first.start : end].reshape(count, first.n_samples)
            rows = out[start:stop]
            if out.dtype == stored.dtype:
                rows[:, : first.n_samples] = stored
            else:
                np.multiply(stored, np.float32(1 / 32768), out=rows[:, : first.n_samples])
            rows[:, first.n_samples :] = 0

    def audio(self, clip: Clip) -> np.ndarray:
        """Return a clip's audio, float32 (n_samples,) in [-1, 1), as soundfile reads the wav."""
        audio = np.empty((1, clip.n_samples), dtype=np.float32)
        self.read([clip], audio)
        return audio[0]

    @classmethod
    def load(cls, directory: Path) -> "Task":
        """Read a prepared task.

        Raises:
            TaskError: if a file is missing, unreadable or does not fit the others.
        """
        remedy = f"delete {directory} and prepare the task again"
        try:
            described = json.loads((directory / "task.json").read_text())
            listed = json.loads((directory / "clips.json").read_text())
            # As a plain array: every slice of a numpy.memmap is a Python object that takes 10 us.
            samples = np.load(directory / "audio.npy", mmap_mode="r").view(np.ndarray)
        except (OSError, ValueError, EOFError) as error:
            raise TaskError(f"{directory} holds no prepared task ({error}); {remedy}") from error
        splits = {
            split: [
                Clip(
                    split=split,
                    name=clip["name"],
                    start=clip["start"],
                    n_samples=clip["n_samples"],
                    labels=tuple(clip.get("labels", ())),
                    events=tuple(clip.get("events", ())),
                )
                for clip in clips
            ]
            for split, clips in listed.items()
        }
        counted = {split: len(clips) for split, clips in splits.items()}
        n_samples = sum(clip.n_samples for clips in splits.values() for clip in clips)
        if counted != described["splits"] or samples.shape != (n_samples,):
            raise TaskError(
                f"{directory}: task.json, clips.json ({counted}, {n_samples} samples) and "
                f"audio.npy ({samples.shape} samples) are not of one run; {remedy}"
            )
        return cls(
            name=described["task"],
            metadata=described["metadata"],
            labels=described["labels"],
            splits=splits,
            sample_rate=described["sample_rate"],
            sha256=described["sha256"],
            samples=samples,
        )


def _stretches(clips: Sequence[Clip]) -> Iterator[tuple[int, int]]:
    """Yield the ranges of clips that are of one length and lie one after another."""
    start = 0
    for i in range(1, len(clips) + 1):
        before = clips[i - 1]
        if (
            i == len(clips)
            or clips[i].n_samples != before.n_samples
            or clips[i].start != before.start + before.n_samples
        ):
            yield start, i
            start = i
