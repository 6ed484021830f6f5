"""Scores of sound events, with sed_eval's numbers.

Same results as heareval 2021.1.3 (`EventBasedScore`, `SegmentBasedScore`) and sed_eval 0.2.1, on
arrays of all events at once instead of dictionaries of single events.
"""

from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching

from workflow_scripts.hear2021.evaluation.events import Events
from workflow_scripts.hear2021.evaluation.heareval_definitions import definitions

if TYPE_CHECKING:
    from heareval.score import SoundEventScore

# sed_eval's own; its package imports dcase_util.
metric = SimpleNamespace(
    **definitions(
        "sed_eval.metric",
        [
            *("precision", "recall", "f_measure"),
            *("error_rate", "substitution_rate", "deletion_rate", "insertion_rate"),
        ],
        {"numpy": np},
    )
)

COLLAR_SLACK = 1e-3  # seconds; candidate pairs are looked up this much too widely, then checked


def score(function: "SoundEventScore", estimated: Events, reference: Events) -> dict[str, float]:
    """Score the events of clips as `function(estimated, reference)` of heareval would.

    Args:
        function: one of heareval's for events, `heareval_definitions.EVENT_SCORES`.
        estimated: the events found.
        reference: the true events of the same clips, numbered alike.

    Returns:
        The function's scores by name, its primary score first. NaN as sed_eval gives it: for a
        precision without estimated events, a recall without true ones, and what follows of them.

    Raises:
        NotImplementedError: for a score this module does not know.
    """
    kind = type(function).__name__  # heareval's own class is another than that of its definition
    if kind == "EventBasedScore":
        scores = _event_based(estimated, reference, **function.params)
    elif kind == "SegmentBasedScore":
        scores = _segment_based(estimated, reference, len(function.label_to_idx), **function.params)
    else:
        raise NotImplementedError(f"the score {function} is not one for events")
    unknown = [name for name in function.scores if name not in scores]
    if unknown:
        raise NotImplementedError(f"the score {function} asks for {', '.join(unknown)}")
    return {name: scores[name] for name in function.scores}


def _event_based(
    estimated: Events,
    reference: Events,
    *,
    evaluate_onset: bool,
    evaluate_offset: bool,
    t_collar: float,
    percentage_of_length: float = 0.5,
) -> dict[str, float]:
    """Overall (micro) F-measure, precision, recall of sed_eval.sound_event.EventBasedMetrics."""
    if not evaluate_onset:
        raise NotImplementedError("event scores without the onset")
    true_onset, true_offset = reference.start / 1000.0, reference.end / 1000.0
    onset, offset = estimated.start / 1000.0, estimated.end / 1000.0
    true_event, event = _near(reference, estimated, t_collar + COLLAR_SLACK)
    hit = np.abs(true_onset[true_event] - onset[event]) <= t_collar
    if evaluate_offset:
        length = (true_offset - true_onset)[true_event]
        allowed = np.maximum(t_collar, percentage_of_length * length)
        hit &= np.abs(true_offset[true_event] - offset[event]) <= allowed
    true_event, event = true_event[hit], event[hit]
    graph = csr_array(
        (np.ones(len(event), dtype=np.int8), (true_event, event)),
        shape=(len(reference), len(estimated)),
    )
    matched = maximum_bipartite_matching(graph) if len(event) else np.array([])
    correct = float((matched >= 0).sum())
    precision = metric.precision(Ntp=correct, Nsys=float(len(estimated)))
    recall = metric.recall(Ntp=correct, Nref=float(len(reference)))
    return {
        "f_measure": metric.f_measure(precision=precision, recall=recall),
        "precision": precision,
        "recall": recall,
    }


def _near(reference: Events, estimated: Events, collar: float) -> tuple[np.ndarray, np.ndarray]:
    """Return all pairs (reference, estimated) of one clip and label with onsets within `collar`.

    Clips and labels are laid one after another on a single time axis, so far apart that no pair
    bridges two of them.
    """
    n_labels = max(reference.label.max(initial=0), estimated.label.max(initial=0)) + 1
    onsets = np.concatenate([reference.start, estimated.start]) / 1000.0
    span = np.ptp(onsets) + 4 * collar if len(onsets) else 0.0

    def on_one_axis(events: Events) -> np.ndarray:
        return events.start / 1000.0 + (events.clip * n_labels + events.label) * span

    axis = on_one_axis(estimated)
    order = np.argsort(axis)
    first = np.searchsorted(axis[order], on_one_axis(reference) - collar, side="left")
    after = np.searchsorted(axis[order], on_one_axis(reference) + collar, side="right")
    count = after - first
    true_event = np.repeat(np.arange(len(reference)), count)
    position = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    return true_event, order[np.repeat(first, count) + position]


def _segment_based(
    estimated: Events, reference: Events, n_labels: int, *, time_resolution: float
) -> dict[str, float]:
    """Overall (micro) error rate of sed_eval.sound_event.SegmentBasedMetrics."""
    length = np.zeros(reference.n_clips)
    for events in (estimated, reference):
        np.maximum.at(length, events.clip, events.end / 1000.0)
    n_segments = np.ceil(length * 1 / time_resolution).astype(int)
    begin = np.cumsum(n_segments + 1) - (n_segments + 1)  # one more a clip, for events to end in

    def roll(events: Events) -> np.ndarray:
        onset = np.floor(events.start / 1000.0 * 1 / time_resolution).astype(int)
        offset = np.ceil(events.end / 1000.0 * 1 / time_resolution).astype(int)
        begun = np.zeros((int((n_segments + 1).sum()), n_labels), dtype=int)
        np.add.at(begun, (begin[events.clip] + onset, events.label), 1)
        np.add.at(begun, (begin[events.clip] + offset, events.label), -1)
        return np.cumsum(begun, axis=0) > 0

    true_roll, roll_ = roll(reference), roll(estimated)
    correct = (true_roll & roll_).sum(axis=1)
    n_true, n_found = true_roll.sum(axis=1), roll_.sum(axis=1)
    n_reference = float(n_true.sum())
    return {
        "error_rate": metric.error_rate(
            metric.substitution_rate(
                Nref=n_reference,
                Nsubstitutions=float((np.minimum(n_true, n_found) - correct).sum()),
            ),
            metric.deletion_rate(
                Nref=n_reference, Ndeletions=float(np.maximum(0, n_true - n_found).sum())
            ),
            metric.insertion_rate(
                Nref=n_reference, Ninsertions=float(np.maximum(0, n_found - n_true).sum())
            ),
        )
    }
