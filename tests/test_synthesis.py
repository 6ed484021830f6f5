"""The mini benchmark: every kind of task and score, and sounds that can be told apart."""

import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from workflow_scripts.hear2021.run.configuration import task_table
from workflow_scripts.hear2021.tasks.hear_layout import SCORES
from workflow_scripts.hear2021.tasks.prepare import prepare_task
from workflow_scripts.hear2021.tasks.synthesis.mini_tasks import MINI_TASKS, synthesise_task
from workflow_scripts.hear2021.tasks.task import Task

SINGLE_LABEL = [
    name for name, task in MINI_TASKS.items() if task.metadata["prediction_type"] == "multiclass"
]
EVENTS = [name for name, task in MINI_TASKS.items() if task.metadata["embedding_type"] == "event"]


@pytest.fixture(scope="module")
def archives(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("archives")
    for name in MINI_TASKS:
        synthesise_task(name, folder / f"{name}.tar.gz")
    return {name: folder / f"{name}.tar.gz" for name in MINI_TASKS}


@pytest.fixture(scope="module")
def prepared(archives, tmp_path_factory) -> dict[str, Task]:
    folder = tmp_path_factory.mktemp("prepared")
    return {
        name: prepare_task(archive, name, MINI_TASKS[name].sample_rate, folder / name, threads=1)
        for name, archive in archives.items()
    }


def test_the_table_says_of_the_mini_tasks_what_they_are(prepared):
    rows = {name: row for name, row in task_table().items() if row.benchmark == "mini"}
    assert list(rows) == list(MINI_TASKS)
    for name, row in rows.items():
        task = prepared[name]
        assert row.embedding_type == task.embedding_type
        assert row.prediction_type == task.prediction_type
        assert row.primary_metric == task.metadata["evaluation"][0]
        assert row.split_mode == task.metadata["split_mode"]
        assert row.folds == (1 if row.split_mode == "trainvaltest" else len(task.splits))
        assert (row.clips, row.labels) == (len(task.clips), len(task.labels))
        assert row.sample_duration == task.metadata["sample_duration"]
        seconds = sum(clip.n_samples for clip in task.clips) / task.sample_rate
        assert row.hours == pytest.approx(seconds / 3600, abs=1e-4)


def test_every_kind_of_task_and_every_score_is_there(prepared):
    metadata = [task.metadata for task in prepared.values()]
    kinds = {
        (each["embedding_type"], each["prediction_type"], each["split_mode"] == "trainvaltest")
        for each in metadata
    }
    assert kinds == {
        ("scene", "multiclass", True),
        ("scene", "multiclass", False),
        ("scene", "multilabel", True),
        ("event", "multilabel", True),
        ("event", "multilabel", False),
    }
    scores = {score for each in metadata for score in each["evaluation"]}
    assert scores == {*SCORES["scene"], *SCORES["event"]}
    categories = Counter(task_table()[name].category for name in prepared)
    assert min(categories[name] for name in ("speech", "music", "general")) >= 2
    assert any(not each.get("use_scoring_for_early_stopping", True) for each in metadata)
    assert len({recipe.sample_rate for recipe in MINI_TASKS.values()} - {32000}) > 1


def test_an_archive_is_the_same_byte_for_byte_each_time(archives, tmp_path):
    again = tmp_path / "again.tar.gz"
    synthesise_task("mini_weather", again)
    assert again.read_bytes() == archives["mini_weather"].read_bytes()
    with tarfile.open(again) as archive:
        assert {member.mtime for member in archive} == {0}


def test_the_archives_are_small_and_nothing_is_left_aside(archives):
    files = list(next(iter(archives.values())).parent.iterdir())
    assert sorted(files) == sorted(archives.values())
    assert sum(file.stat().st_size for file in files) < 12e6


@pytest.mark.parametrize("name", [name for name in MINI_TASKS if name not in EVENTS])
def test_each_split_has_every_label_more_than_once_and_not_always(prepared, name):
    task = prepared[name]
    counted = {
        split: Counter(label for clip in clips for label in clip.labels)
        for split, clips in task.splits.items()
    }
    for split, counts in counted.items():
        least = 1 if split == "valid" else 2
        for label in task.labels:
            assert least <= counts[label] <= len(task.splits[split]) - least


@pytest.mark.parametrize("name", EVENTS)
def test_each_split_has_events_of_every_label_within_its_clips(prepared, name):
    task = prepared[name]
    for clips in task.splits.values():
        assert {event["label"] for clip in clips for event in clip.events} == {*task.labels}
    for clip in task.clips:
        length = 1000 * clip.n_samples / task.sample_rate
        assert all(0 < event["start"] < event["end"] <= length for event in clip.events)


def test_every_clip_can_be_heard_and_none_is_clipped(prepared):
    for task in prepared.values():
        peaks = [np.abs(task.audio(clip)).max() for clip in task.clips]
        assert min(peaks) > 0.005
        assert max(peaks) < 0.99


def spectral_features(audio: np.ndarray, bands: int) -> np.ndarray:
    """Mean and deviation over time of the log energy in bands, the narrower the lower."""
    frames = np.lib.stride_tricks.sliding_window_view(audio, 1024)[::256] * np.hanning(1024)
    power = np.abs(np.fft.rfft(frames)) ** 2
    edges = np.unique(np.geomspace(2, power.shape[1], bands).astype(int))
    energy = np.log(1e-6 + np.add.reduceat(power, edges[:-1], axis=1))
    return np.concatenate([energy.mean(axis=0), energy.std(axis=0)])


@pytest.mark.parametrize("name", SINGLE_LABEL)
def test_labels_can_be_told_from_the_spectrum(prepared, name):
    task = prepared[name]
    held_out = list(task.splits)[-1]
    training = [clip for clip in task.clips if clip.split != held_out]
    testing = task.splits[held_out]
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
    classifier.fit(
        [spectral_features(task.audio(clip), 200) for clip in training],
        [clip.labels[0] for clip in training],
    )
    predicted = classifier.predict([spectral_features(task.audio(clip), 200) for clip in testing])
    accuracy = np.mean(
        [found == clip.labels[0] for found, clip in zip(predicted, testing, strict=True)]
    )
    assert accuracy > 0.5 + 0.5 / len(task.labels)


def test_the_pitch_of_each_note_is_its_label(prepared):
    task = prepared["mini_notes"]
    notes = [(clip, event) for clip in task.clips for event in clip.events]
    for clip, event in notes[:20]:
        start, end = (round(event[key] * task.sample_rate / 1000) for key in ("start", "end"))
        note = task.audio(clip)[start:end]
        spectrum = np.abs(np.fft.rfft(note * np.hanning(len(note)), 1 << 17))
        low, high = (int(f * (1 << 17) / task.sample_rate) for f in (200, 480))
        pitch = (low + spectrum[low:high].argmax()) * task.sample_rate / (1 << 17)
        assert 69 + 12 * np.log2(pitch / 440) == pytest.approx(int(event["label"]), abs=0.3)


def test_an_unknown_mini_task_is_refused(tmp_path: Path):
    with pytest.raises(KeyError):
        synthesise_task("mini_nothing", tmp_path / "archive.tar.gz")
