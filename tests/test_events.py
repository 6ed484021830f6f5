"""Event detection and event scores equal heareval's and sed_eval's, number for number."""

import math
import time

import more_itertools
import numpy as np
import pytest
import torch
from heareval.score import available_scores
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from intervaltree import IntervalTree
from scipy.ndimage import median_filter

from workflow_scripts.hear2021.evaluation.event_scores import score
from workflow_scripts.hear2021.evaluation.events import (
    Events,
    Timestamps,
    active_labels,
    detect_events,
)
from workflow_scripts.hear2021.evaluation.heareval_definitions import definitions

LABELS = ["engine", "speech", "bird"]
INDEX = {label: i for i, label in enumerate(LABELS)}
EVENT_SCORES = [
    *(
        available_scores[name](label_to_idx=INDEX)
        for name in (
            "event_onset_200ms_fms",
            "event_onset_50ms_fms",
            "event_onset_offset_50ms_20perc_fms",
            "segment_1s_er",
        )
    ),
    *(
        available_scores["segment_1s_er"](
            label_to_idx=INDEX, name=f"segments of {seconds} s", params={"time_resolution": seconds}
        )
        for seconds in (0.25, 3.0)  # of no HEAR task
    ),
]


@pytest.fixture(scope="module")
def heareval_create_events():
    names = {"np": np, "more_itertools": more_itertools, "median_filter": median_filter}
    module = "heareval.predictions.task_predictions"
    function = "create_events_from_prediction"
    return definitions(module, [function], names)[function]


@pytest.fixture(scope="module")
def heareval_labels_for_timestamps():
    module = "heareval.embeddings.task_embeddings"  # importing it needs TensorFlow
    function = "get_labels_for_timestamps"
    return definitions(module, [function], {"IntervalTree": IntervalTree})[function]


# Times on a coarse grid make ties, exact collars and shared borders common.
times = st.integers(0, 60).map(lambda n: n * 25.0) | st.floats(0, 1500)


@st.composite
def events_of_a_clip(draw, max_size=8):
    spans = draw(st.lists(st.tuples(st.sampled_from(LABELS), times, times), max_size=max_size))
    return [{"label": name, "start": min(a, b), "end": max(a, b)} for name, a, b in spans]


@st.composite
def predicted_clips(draw):
    """The probabilities and times of clips of one vocabulary, the timestamps in any order."""
    n_labels = draw(st.integers(1, 3))
    values = st.sampled_from([0.0, 0.2, 0.5, 0.5000001, 0.7, 1.0])
    clips = []
    for n_times in draw(st.lists(st.integers(2, 40), min_size=1, max_size=3)):
        size = n_times * n_labels
        flat = draw(st.lists(values, min_size=size, max_size=size))
        times_ms = np.arange(n_times) * draw(st.sampled_from([50.0, 40.0]))
        probabilities = np.array(flat, dtype=np.float32).reshape(n_times, n_labels)
        clips.append((probabilities, np.array(draw(st.permutations(times_ms.tolist())))))
    return clips


@settings(max_examples=200, deadline=None)
@given(
    clips=predicted_clips(),
    median_filter_ms=st.sampled_from([0, 20, 50, 100, 150, 200, 250, 600, 1000]),
    min_duration=st.sampled_from([0, 50, 60.0, 125, 250]),
)
def test_detected_events_equal_hearevals(
    heareval_create_events, clips, median_filter_ms, min_duration
):
    # From eight times as many timestamps on, scipy 1.17 gives other values than a sort.
    assume(all(median_filter_ms / 40.0 < 8 * len(times_ms) for _, times_ms in clips))
    arguments = {"median_filter_ms": median_filter_ms, "min_duration": min_duration}
    expected = [
        heareval_create_events(
            dict(zip(times_ms.tolist(), torch.from_numpy(probabilities), strict=True)),
            dict(enumerate(LABELS)),
            **arguments,
        )
        for probabilities, times_ms in clips
    ]
    assert as_lists(detected(clips, **arguments)) == expected


def detected(clips, **arguments):
    probabilities, times_ms = zip(*clips, strict=True)
    joined = torch.from_numpy(np.concatenate(probabilities))
    return detect_events(joined, Timestamps(times_ms), **arguments)


@pytest.mark.parametrize("width", [255, 256, 300])
def test_a_median_filter_of_hundreds_of_timestamps_counts_them_all(width):
    active = np.zeros((1200, 1), dtype=np.float32)
    active[400:700] = 1.0
    found = detected([(active, np.arange(1200.0))], median_filter_ms=width, min_duration=0)
    (event,) = as_lists(found)[0]
    expected = np.flatnonzero(median_filter(active, size=(width, 1)))
    assert (event["start"], event["end"]) == (expected[0], expected[-1])


def test_a_filter_far_longer_than_a_clip_still_takes_the_median():
    # Reflected to 40 values, 20 of them are above the threshold: the median of rank 20 is.
    clips = [(np.array([[0.2], [0.9]]), np.array([0.0, 50.0]))]
    (event,) = as_lists(detected(clips, median_filter_ms=2000, min_duration=0))[0]
    assert (event["start"], event["end"]) == (0.0, 50.0)


def test_a_prediction_that_is_nan_is_below_the_threshold():
    clips = [(np.array([[0.9], [math.nan], [0.9]]), np.arange(3) * 50.0)]
    assert len(detected(clips, median_filter_ms=0, min_duration=0)) == 2


def test_a_clip_with_one_timestamp_is_an_event_only_without_a_filter():
    clips = [(np.ones((1, 1)), np.zeros(1))]
    assert len(detected(clips, median_filter_ms=0, min_duration=0)) == 1
    with pytest.raises(ValueError, match="one timestamp"):
        detected(clips, median_filter_ms=150)


@settings(max_examples=150, deadline=None)
@given(events=events_of_a_clip(), timestamps=st.lists(times, min_size=1, unique=True))
def test_labels_of_timestamps_equal_hearevals(heareval_labels_for_timestamps, events, timestamps):
    timestamps = np.array(timestamps)
    (expected,) = heareval_labels_for_timestamps([events], [timestamps])
    active = active_labels(Events.from_lists([events], LABELS), timestamps, len(LABELS))
    assert [{LABELS[i] for i in np.flatnonzero(row)} for row in active] == list(map(set, expected))


def test_a_label_still_holds_at_the_very_end_of_its_event_late_in_a_clip():
    event = [{"label": "bird", "start": 100_000.0, "end": 119_950.0}]
    late = np.array([119_950.0, 120_000.0], dtype=np.float32)
    active = active_labels(Events.from_lists([event], LABELS), late, len(LABELS))
    assert active[:, INDEX["bird"]].tolist() == [True, False]


def test_an_event_that_ends_before_it_starts_is_refused():
    event = [{"label": "bird", "start": 10.0, "end": 5.0}]
    with pytest.raises(ValueError, match=r"ends at 5\.0 ms"):
        active_labels(Events.from_lists([event], LABELS), np.zeros(1), len(LABELS))


@pytest.mark.parametrize("function", EVENT_SCORES, ids=str)
@settings(max_examples=60, deadline=None)
@given(clips=st.lists(st.tuples(events_of_a_clip(), events_of_a_clip()), max_size=3))
def test_event_scores_equal_sed_evals(function, clips):
    expected = dict(
        function(
            {f"{i}.wav": estimated for i, (estimated, _) in enumerate(clips)},
            {f"{i}.wav": reference for i, (_, reference) in enumerate(clips) if reference},
        )
    )
    found = score(
        function,
        Events.from_lists([estimated for estimated, _ in clips], LABELS),
        Events.from_lists([reference for _, reference in clips], LABELS),
    )
    assert list(found) == list(expected)
    np.testing.assert_array_equal(list(found.values()), list(expected.values()))


def test_one_to_one_matching_is_the_largest_there_is():
    # taken greedily, the first true event takes the only estimate that the second one could have
    estimated = [{"label": "bird", "start": start, "end": start + 500.0} for start in (0, 180)]
    reference = [{"label": "bird", "start": start, "end": start + 500.0} for start in (190, 370)]
    function = available_scores["event_onset_200ms_fms"](label_to_idx=INDEX)
    found = score(
        function, Events.from_lists([estimated], LABELS), Events.from_lists([reference], LABELS)
    )
    assert found == {"f_measure": 1.0, "precision": 1.0, "recall": 1.0}


def test_a_label_outside_the_vocabulary_is_refused():
    with pytest.raises(ValueError, match="not in the vocabulary: siren"):
        Events.from_lists([[{"label": "siren", "start": 0, "end": 1}]], LABELS)


def test_detection_and_scoring_take_a_twentieth_of_hearevals_time(heareval_create_events):
    generator = np.random.default_rng(0)
    n_clips, n_times, n_labels = 14, 2401, 11
    labels = [f"label {i}" for i in range(n_labels)]
    smooth = generator.random((n_clips, n_times // 20 + 1, n_labels), dtype=np.float32)
    probabilities = np.repeat(smooth, 20, axis=1)[:, :n_times] ** 3
    times_ms = np.arange(n_times) * 50.0
    timestamps = Timestamps([times_ms] * n_clips)
    rows = torch.from_numpy(probabilities).flatten(end_dim=1)
    truth = as_lists(detect_events(rows.flip(0), timestamps), labels)
    reference = Events.from_lists(truth, labels)
    function = available_scores["event_onset_200ms_fms"](label_to_idx=dict.fromkeys(labels, 0))
    arguments = {"median_filter_ms": 250, "min_duration": 125}

    def ours():
        return score(function, detect_events(rows, timestamps, **arguments), reference)

    def hearevals():
        frames = torch.from_numpy(probabilities)
        found = {
            f"{i}.wav": heareval_create_events(
                {float(t): frame for t, frame in zip(times_ms, clip, strict=True)},
                dict(enumerate(labels)),
                **arguments,
            )
            for i, clip in enumerate(frames)
        }
        return function(found, {f"{i}.wav": events for i, events in enumerate(truth)})

    ours()
    seconds = min(timed(ours)[0] for _ in range(5))
    expected_seconds, expected = timed(hearevals)
    assert ours() == dict(expected)
    assert expected_seconds > 20 * seconds


def timed(function):
    started = time.perf_counter()
    result = function()
    return time.perf_counter() - started, result


def as_lists(events, labels=LABELS):
    """Events in heareval's form and order, a list of dictionaries a clip."""
    clips = [[] for _ in range(events.n_clips)]
    columns = (events.clip, events.label, events.start, events.end)
    by_start = np.lexsort((events.label, events.start))
    for clip, label, start, end in zip(*(values[by_start] for values in columns), strict=True):
        clips[clip].append({"label": labels[label], "start": start, "end": end})
    return clips
