"""Sound events: from annotations to labels of timestamps, from label probabilities to events.

Same results as heareval 2021.1.3 (`get_labels_for_timestamps`, `create_events_from_prediction`), on
arrays of all events at once instead of dictionaries of single frames and events. Times are in
milliseconds, as in HEAR's files.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

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


class Windows(NamedTuple):
    """Where a median filter of one width looks, as indices.

    Attributes:
        padded: of predictions, the clips of this width one after the other, each padded.
        first: of a window's first value among these, for each row.
        rows: by clip and time, that the windows are of.
    """

    padded: torch.Tensor
    first: torch.Tensor
    rows: torch.Tensor


class Timestamps:
    """The timestamps of several clips, clip after clip as the rows of predictions are.

    Args:
        times_ms: (n_timestamps,) a clip, in any order, no two of a clip equal.
        device: where the predictions are.

    Attributes:
        n_clips: number of clips.
        clip: index of the clip, by clip and time, int (n_rows,).
        time: ms, by clip and time, float64 (n_rows,).
        is_first, is_last: of its clip, by clip and time, bool (n_rows,), on the device.
    """

    def __init__(self, times_ms: Sequence[np.ndarray], device: torch.device | str = "cpu") -> None:
        times = np.concatenate([np.asarray(of_clip, dtype=float) for of_clip in times_ms])
        self.n_clips = len(times_ms)
        self.clip = np.repeat(np.arange(self.n_clips), [len(of_clip) for of_clip in times_ms])
        self._order = np.lexsort((times, self.clip))
        self.time = times[self._order]
        self._device = torch.device(device)
        changes = np.diff(self.clip) != 0
        self._rows = np.split(np.arange(len(times)), np.flatnonzero(changes) + 1)
        self.is_first = torch.as_tensor(np.append(True, changes), device=device)
        self.is_last = torch.as_tensor(np.append(changes, True), device=device)
        self._windows: dict[float, dict[int, Windows]] = {}

    def filtered(self, active: torch.Tensor, median_filter_ms: float) -> torch.Tensor:
        """Filter along the time of each clip, as scipy.ndimage.median_filter does numbers.

        The filter takes the value of rank width // 2 in the window, which is above a threshold
        where at least width - width // 2 values of the window are.

        Args:
            active: which values are above it, bool (n_rows, n_labels), as predictions are ordered.
            median_filter_ms: length of the filter; 0 for none.

        Returns:
            bool (n_rows, n_labels), by clip and time.

        Raises:
            ValueError: for a clip with a single timestamp if there is a filter: its width is not
                known.
        """
        if median_filter_ms not in self._windows:
            self._windows[median_filter_ms] = self._windows_of(median_filter_ms)
        found = torch.empty_like(active)
        for width, windows in self._windows[median_filter_ms].items():
            dtype = torch.uint8 if width < 256 else torch.int32
            above = active.index_select(0, windows.padded).to(dtype)
            count = above[: len(above) - width + 1].clone()
            for shift in range(1, width):
                count += above[shift : shift + len(count)]
            enough = count >= width - width // 2
            found.index_copy_(0, windows.rows, enough.index_select(0, windows.first))
        return found

    def _windows_of(self, median_filter_ms: float) -> dict[int, Windows]:
        by_width: dict[int, list[np.ndarray]] = defaultdict(list)
        for rows in self._rows:
            width = 1
            if median_filter_ms:
                if len(rows) < 2:
                    raise ValueError(
                        "a clip with one timestamp has no hop to lay a median filter by"
                    )
                width = max(1, round(median_filter_ms / np.mean(np.diff(self.time[rows]))))
            by_width[width].append(rows)
        windows = {}
        for width, clips in by_width.items():
            before = width // 2
            padding = (before, width - before - 1)
            padded = [np.pad(rows, padding, mode="symmetric") for rows in clips]
            is_of_a_row = [np.arange(len(p)) < len(r) for p, r in zip(padded, clips, strict=True)]
            indices = (
                self._order[np.concatenate(padded)],
                np.flatnonzero(np.concatenate(is_of_a_row)),
                np.concatenate(clips),
            )
            windows[width] = Windows(*(torch.as_tensor(i, device=self._device) for i in indices))
        return windows


def detect_events(
    probabilities: torch.Tensor,
    timestamps: Timestamps,
    *,
    median_filter_ms: float = 150,
    min_duration: float = 60.0,
    threshold: float = THRESHOLD,
) -> Events:
    """Turn label probabilities into events.

    heareval's `create_events_from_prediction`: a median filter along the time of a clip, a
    threshold, then every run of timestamps above it is an event from the first to the last of them,
    if long enough. All clips at once, where the probabilities are; only the events leave a GPU.

    Args:
        probabilities: (n_rows, n_labels)
        timestamps: what the rows are, on the same device.
        median_filter_ms: length of the median filter; 0 for none.
        min_duration: ms from first to last timestamp that an event must have.
        threshold: probability above which a label is active.

    Returns:
        The events by label, clip and start.

    Raises:
        ValueError: for a clip with a single timestamp if there is a filter.
    """
    active = timestamps.filtered(probabilities > threshold, median_filter_ms).t().contiguous()
    begins, ends = active.clone(), active.clone()
    begins[:, 1:] &= active[:, :-1].logical_not() | timestamps.is_first[1:]
    ends[:, :-1] &= active[:, 1:].logical_not() | timestamps.is_last[:-1]
    # The nth begin goes with the nth end, both being by label and then row.
    label, first = np.divmod(_true_at(begins), len(timestamps.time))
    last = _true_at(ends) % len(timestamps.time)
    long_enough = timestamps.time[last] - timestamps.time[first] >= min_duration
    label, first, last = label[long_enough], first[long_enough], last[long_enough]
    return Events(
        n_clips=timestamps.n_clips,
        clip=timestamps.clip[first],
        label=label,
        start=timestamps.time[first],
        end=timestamps.time[last],
    )


def _true_at(values: torch.Tensor) -> np.ndarray:
    return values.view(-1).nonzero().squeeze(1).cpu().numpy()
