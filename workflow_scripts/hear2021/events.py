"""Sound events: from annotations to labels of timestamps, from label probabilities to events.

Same results as heareval 2021.1.3 (`get_labels_for_timestamps`, `create_events_from_prediction`), on
arrays of all events at once instead of dictionaries of single frames and events. Times are in
milliseconds, as in HEAR's files.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

THRESHOLD = 0.5
END_TOLERANCE_MS = 0.0001  # heareval adds it to an event's end, so that the end is in the event


@dataclass(frozen=True)
class Events:
    """The events of several clips as columns.

    Attributes:
        n_clips: number of clips, those without events included.
        clip: index of the clip, int (n_events,).
        label: index into the label vocabulary, int (n_events,).
        start: ms, float64 (n_events,).
        end: ms, float64 (n_events,).
    """

    n_clips: int
    clip: np.ndarray
    label: np.ndarray
    start: np.ndarray
    end: np.ndarray

    def __len__(self) -> int:
        """Return the number of events."""
        return len(self.clip)

    def of(self, clip: int) -> "Events":
        """Return the events of one clip."""
        rows = self.clip == clip
        return Events(
            1, np.zeros(rows.sum(), int), self.label[rows], self.start[rows], self.end[rows]
        )

    @classmethod
    def from_lists(
        cls, clips: Sequence[Sequence[Mapping[str, Any]]], labels: Sequence[str]
    ) -> "Events":
        """Read the events of clips from HEAR's form, dictionaries of label, start and end.

        Raises:
            ValueError: for a label that is not in `labels`.
        """
        index = {label: i for i, label in enumerate(labels)}
        events = [(i, event) for i, clip in enumerate(clips) for event in clip]
        unknown = sorted({str(event["label"]) for _, event in events} - index.keys())
        if unknown:
            raise ValueError(f"event labels that are not in the vocabulary: {', '.join(unknown)}")
        return cls(
            n_clips=len(clips),
            clip=np.array([i for i, _ in events], dtype=int),
            label=np.array([index[str(event["label"])] for _, event in events], dtype=int),
            start=np.array([event["start"] for _, event in events], dtype=float),
            end=np.array([event["end"] for _, event in events], dtype=float),
        )

    @classmethod
    def concatenate(cls, clips: Sequence["Events"]) -> "Events":
        """Join the events of single clips, numbered in the order given."""
        return cls(
            n_clips=len(clips),
            clip=np.repeat(np.arange(len(clips)), [len(events) for events in clips]),
            label=np.concatenate([events.label for events in clips]),
            start=np.concatenate([events.start for events in clips]),
            end=np.concatenate([events.end for events in clips]),
        )


def active_labels(events: Events, times_ms: np.ndarray, n_labels: int) -> np.ndarray:
    """Return which labels are active at which time: start <= time < end + 0.0001 ms.

    heareval's `get_labels_for_timestamps`, in double precision as with the numpy 1.19 it was
    released for. (From numpy 2 on, its comparison of float32 times with Python numbers is done in
    float32, which loses the 0.0001 ms after the first two seconds.)

    Args:
        events: of one clip.
        times_ms: (n_timestamps,), in any order.
        n_labels: size of the vocabulary.

    Returns:
        bool (n_timestamps, n_labels)

    Raises:
        ValueError: for an event that ends before it starts.
    """
    reversed_events = np.flatnonzero(events.start >= events.end + END_TOLERANCE_MS)
    if len(reversed_events):
        first = reversed_events[0]
        raise ValueError(f"an event ends at {events.end[first]} ms, before its start")
    order = np.argsort(times_ms, kind="stable")
    times = np.asarray(times_ms, dtype=float)[order]
    begun = np.zeros((len(times) + 1, n_labels), dtype=int)
    np.add.at(begun, (np.searchsorted(times, events.start), events.label), 1)
    np.add.at(begun, (np.searchsorted(times, events.end + END_TOLERANCE_MS), events.label), -1)
    active = np.empty((len(times), n_labels), dtype=bool)
    active[order] = np.cumsum(begun, axis=0)[:-1] > 0
    return active


def detect_events(
    probabilities: np.ndarray,
    times_ms: np.ndarray,
    *,
    median_filter_ms: float = 150,
    min_duration: float = 60.0,
    threshold: float = THRESHOLD,
) -> Events:
    """Turn the label probabilities of one clip's timestamps into events.

    heareval's `create_events_from_prediction`: a median filter along time, a threshold, then every
    run of timestamps above it is an event from the first to the last of them, if long enough.

    Args:
        probabilities: (n_timestamps, n_labels)
        times_ms: (n_timestamps,), in any order, no two equal.
        median_filter_ms: length of the median filter; 0 for none.
        min_duration: ms from first to last timestamp that an event must have.
        threshold: probability above which a label is active.

    Returns:
        The events of the clip, by start, then label.

    Raises:
        ValueError: for a clip with a single timestamp if there is a filter: its width is not known.
    """
    order = np.argsort(times_ms, kind="stable")
    times = np.asarray(times_ms, dtype=float)[order]
    active = (np.asarray(probabilities)[order] > threshold).T
    if median_filter_ms:
        if len(times) < 2:
            raise ValueError("a clip with one timestamp has no hop to lay a median filter by")
        active = _median_filter(active, round(median_filter_ms / np.mean(np.diff(times))))
    silent = np.zeros((len(active), 1), dtype=np.int8)
    change = np.diff(active.astype(np.int8), axis=1, prepend=silent, append=silent)
    label, first = np.nonzero(change == 1)
    _, after = np.nonzero(change == -1)
    start, end = times[first], times[after - 1]
    long_enough = np.flatnonzero(end - start >= min_duration)
    by_start = long_enough[np.argsort(start[long_enough], kind="stable")]
    clip = np.zeros(len(by_start), dtype=int)
    return Events(1, clip, label[by_start], start[by_start], end[by_start])


def _median_filter(active: np.ndarray, width: int) -> np.ndarray:
    """Filter boolean rows as scipy.ndimage.median_filter does numbers before a threshold.

    The filter takes the value of rank width // 2 in the window, which is above the threshold where
    at least width - width // 2 values of the window are.
    """
    if width == 0:
        return active
    before = width // 2
    padded = np.pad(active, ((0, 0), (before, width - before - 1)), mode="symmetric")
    above = np.cumsum(padded, axis=1, dtype=np.int32)
    above = np.concatenate([np.zeros((len(above), 1), np.int32), above], axis=1)
    return above[:, width:] - above[:, :-width] >= width - before
