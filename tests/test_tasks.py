"""What a task must say of itself, and the errors of one that does not."""

import csv
import inspect
import json
from typing import Any

import numpy as np
import pytest

from tests.conftest import needs_shared
from workflow_scripts.hear2021.evaluation.events import detect_events
from workflow_scripts.hear2021.run.configuration import task_table
from workflow_scripts.hear2021.tasks.hear_layout import read_metadata, read_split, read_vocabulary
from workflow_scripts.hear2021.tasks.task import Clip, Task, TaskError

SCENE = {
    "task_name": "birds",
    "embedding_type": "scene",
    "prediction_type": "multiclass",
    "split_mode": "trainvaltest",
    "splits": ["train", "valid", "test"],
    "sample_duration": 1.0,
    "evaluation": ["top1_acc"],
}
EVENT = SCENE | {
    "embedding_type": "event",
    "prediction_type": "multilabel",
    "evaluation": ["event_onset_200ms_fms", "segment_1s_er"],
}
LABELS = ["owl", "wren"]


def metadata(**changes: Any) -> str:
    return json.dumps(SCENE | changes)


def test_metadata_is_kept_as_it_is():
    assert read_metadata("birds-v1", metadata(version="1.2")) == SCENE | {"version": "1.2"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"embedding_type": "clip"}, "embedding_type is 'clip'; allowed: scene, event"),
        ({"prediction_type": "single"}, "prediction_type is 'single'; allowed: multiclass, multil"),
        (
            {"split_mode": "random"},
            "split_mode is 'random'; allowed: trainvaltest, new_split_kfold",
        ),
        ({"splits": ["train", "test"]}, r"splits is \['train', 'test'\]; with trainvaltest it is"),
        ({"splits": ["train", "test", "test"]}, "plain names, each once"),
        ({"splits": ["train", "valid", "../test"]}, "plain names, each once"),
        ({"splits": "train"}, "splits is 'train', not a list of names"),
        (
            {"split_mode": "new_split_kfold", "splits": ["fold00", "fold01"]},
            "needs three or more folds",
        ),
        ({"sample_duration": -1}, "sample_duration is -1, not seconds above 0 or null"),
        ({"sample_duration": "1"}, "sample_duration is '1', not seconds"),
        ({"evaluation": []}, r"evaluation is \[\]; a task of scene embeddings is scored by one"),
        ({"evaluation": ["accuracy"]}, r"evaluation is \['accuracy'\].*top1_acc, pitch_acc"),
        ({"evaluation": [["top1_acc"]]}, r"evaluation is \[\['top1_acc'\]\]; a task of"),
        ({"evaluation_params": None}, "evaluation_params is None, not an object"),
        ({"evaluation_params": {"event_postprocessing_grid": []}}, r"grid is \[\]; of each key it"),
        (
            {"evaluation_params": {"task_specific_param_grid": {"batch_size": 64}}},
            "task_specific_param_grid is {'batch_size': 64}; of each key it lists values",
        ),
        (
            {"evaluation_params": {"event_postprocessing_grid": {"median_filter": [250]}}},
            "grid has median_filter; allowed: threshold, median_filter_ms, min_duration",
        ),
        ({"use_scoring_for_early_stopping": "false"}, "stopping is 'false', not true or false"),
        ({"evaluation": ["segment_1s_er"]}, "a task of scene embeddings is scored by"),
    ],
)
def test_wrong_metadata_is_named_with_what_is_allowed(changes, message):
    with pytest.raises(TaskError, match=rf"birds-v1: task_metadata\.json .*{message}"):
        read_metadata("birds-v1", metadata(**changes))


def test_every_setting_of_event_detection_may_have_values_to_try():
    grid = {"threshold": [0.3, 0.5], "median_filter_ms": [250], "min_duration": [125, 250]}
    parameters = {"event_postprocessing_grid": grid}
    assert grid.keys() == inspect.getfullargspec(detect_events).kwonlydefaults.keys()
    text = json.dumps(EVENT | {"evaluation_params": parameters})
    assert read_metadata("birds-v1", text)["evaluation_params"] == parameters


@pytest.mark.parametrize("key", SCENE)
def test_every_key_that_heareval_reads_must_be_there(key):
    text = json.dumps({name: value for name, value in SCENE.items() if name != key})
    with pytest.raises(TaskError, match=f"birds-v1: task_metadata.json has no {key}"):
        read_metadata("birds-v1", text)


@pytest.mark.parametrize("text", ["{", "[]", '{"task_name": 1, "task_name": 2}'])
def test_metadata_that_is_no_json_object_is_refused(text):
    with pytest.raises(TaskError, match=r"birds-v1: task_metadata\.json is not"):
        read_metadata("birds-v1", text)


def test_a_vocabulary_is_ordered_by_index_and_numbers_are_strings():
    assert read_vocabulary("birds-v1", "idx,label\n1,60\n0,59\n") == ["59", "60"]
    assert read_vocabulary("birds-v1", 'label,idx\n"owl, barn",0\n') == ["owl, barn"]
    assert read_vocabulary("birds-v1", "idx,label\r0,owl\r1,wren\r") == ["owl", "wren"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("idx,label\n0,owl\n2,wren\n", "idx must go from 0 to 1, each once"),
        ("idx,label\n0,owl\n0,wren\n", "idx must go from 0 to 1, each once"),
        ("idx,label\n0,owl\n1,owl\n", r"lists the labels \['owl'\] more than once"),
        ("idx,label\nowl,0\n", "an idx that is no integer"),
        ("index,name\n0,owl\n", "columns idx and label.* its first line is 'index,name'"),
        ("idx;label\n0;owl\n", "with a comma between them.* its first line is 'idx;label'"),
        ("idx,label\n", "columns idx and label"),
        ("idx,label\n0,owl\n1\n", "no label at idx 1"),
    ],
)
def test_a_wrong_vocabulary_is_refused(text, message):
    with pytest.raises(TaskError, match=rf"birds-v1: labelvocabulary\.csv .*{message}"):
        read_vocabulary("birds-v1", text)


def test_labels_of_a_split_become_strings_in_the_order_of_the_file():
    split = read_split("digits", "train", '{"b.wav": [7], "a.wav": ["8"]}', SCENE, ["7", "8"])
    assert list(split.items()) == [("b.wav", ("7",)), ("a.wav", ("8",))]


def test_a_multilabel_clip_may_have_no_label():
    multilabel = SCENE | {"prediction_type": "multilabel"}
    split = read_split(
        "birds-v1", "test", '{"a.wav": [], "b.wav": ["owl", "wren"]}', multilabel, LABELS
    )
    assert split == {"a.wav": (), "b.wav": ("owl", "wren")}


@pytest.mark.parametrize(
    ("annotations", "message"),
    [
        (
            {"a.wav": ["crow"]},
            r"a\.wav has labels that labelvocabulary\.csv does not list: .'crow'",
        ),
        ({"a.wav": []}, r"a\.wav has the labels \[\]; in a multiclass task it has one"),
        ({"a.wav": ["owl", "wren"]}, "in a multiclass task it has one"),
        ({"a.wav": "owl"}, "its annotation is 'owl', not a list"),
        ({"../a.wav": ["owl"]}, r"'\.\./a\.wav' is no file name within the split's folder"),
        ({"/a.wav": ["owl"]}, "is no file name"),
        ({}, "lists no clip"),
    ],
)
def test_a_wrong_split_names_the_clip(annotations, message):
    with pytest.raises(TaskError, match=rf"birds-v1: test\.json .*{message}"):
        read_split("birds-v1", "test", json.dumps(annotations), SCENE, LABELS)


def event_split(*events: Any) -> dict[str, Any]:
    return read_split("birds-v1", "test", json.dumps({"a.wav": events}), EVENT, LABELS)


def test_events_in_seconds_are_refused():
    event = {"label": "owl", "start": 0.05, "end": 0.15}
    with pytest.raises(
        TaskError, match=r"the last ends at 0\.15 ms, in clips of 1\.0 s; times are"
    ):
        read_split("birds-v1", "train", json.dumps({"a.wav": [event], "b.wav": []}), EVENT, LABELS)


def test_events_have_a_label_and_times_in_milliseconds():
    events = event_split({"label": "owl", "start": 0, "end": 250.5})["a.wav"]
    assert events == ({"label": "owl", "start": 0.0, "end": 250.5},)
    assert event_split() == {"a.wav": ()}


@pytest.mark.parametrize(
    "event",
    [
        {"label": "owl", "start": 300, "end": 200},
        {"label": "owl", "start": -1, "end": 200},
        {"label": "owl", "start": 8000, "end": 16000},  # samples, not ms
        {"label": "owl", "start": float("nan"), "end": 200},
        {"label": "owl", "start": 100},
        ["owl", 100, 200],
        {"label": "crow", "start": 100, "end": 200},
    ],
)
def test_a_wrong_event_names_the_clip(event):
    with pytest.raises(TaskError, match=r"birds-v1: test\.json a\.wav"):
        event_split(event)


def write_task(folder, splits=None, samples=(0, -32768, 32767, 1)):
    described = {
        "task": "birds-v1",
        "metadata": SCENE,
        "labels": LABELS,
        "splits": splits or {"train": 1, "test": 1},
        "sample_rate": 4,
        "seconds": 1.0,
        "sha256": "5",
    }
    clips = {
        "train": [{"name": "b.wav", "start": 0, "n_samples": 1, "labels": ["owl"]}],
        "test": [{"name": "a.wav", "start": 1, "n_samples": 3, "labels": ["wren"]}],
    }
    (folder / "task.json").write_text(json.dumps(described))
    (folder / "clips.json").write_text(json.dumps(clips))
    np.save(folder / "audio.npy", np.array(samples, dtype="<i2"))


def test_a_prepared_task_gives_its_clips_in_order_and_their_audio_as_soundfile_does(tmp_path):
    write_task(tmp_path)
    task = Task.load(tmp_path)
    first, second = task.clips
    assert (task.name, task.embedding_type, task.prediction_type) == (
        "birds-v1",
        "scene",
        "multiclass",
    )
    assert first == Clip("train", "b.wav", 0, 1, labels=("owl",))
    assert task.splits["test"] == [second]
    audio = task.audio(second)
    assert audio.dtype == np.float32
    assert audio.tolist() == [-1.0, 32767 / 32768, 1 / 32768]


@pytest.mark.parametrize(
    "changes", [{"splits": {"train": 2, "test": 1}}, {"samples": (0, 1)}, {"samples": [[0], [1]]}]
)
def test_files_of_different_runs_are_refused(tmp_path, changes):
    write_task(tmp_path, **changes)
    with pytest.raises(TaskError, match=r"are not of one run; delete .* and prepare"):
        Task.load(tmp_path)


def test_a_folder_without_a_task_says_what_to_do(tmp_path):
    with pytest.raises(TaskError, match=r"holds no prepared task .* prepare the task again"):
        Task.load(tmp_path)
    write_task(tmp_path)
    (tmp_path / "audio.npy").write_bytes(b"")
    with pytest.raises(TaskError, match="holds no prepared task"):
        Task.load(tmp_path)


def test_the_table_has_the_benchmark_in_the_order_of_the_figures():
    rows = [row for row in task_table().values() if row.benchmark == "hear2021"]
    assert [
        len([row for row in rows if row.category == name])
        for name in ("general", "music", "speech")
    ] == [8, 7, 5]
    assert len({row.leaderboard_column for row in rows}) == 19
    assert [row.task for row in rows][:2] == [
        "esc50-v2.0.0-full",
        "tfds_gtzan_music_speech-1.0.0-full",
    ]
    assert all(row.url.endswith(f"/6332517/files/hear2021-{row.task}-48000.tar.gz") for row in rows)


@needs_shared
def test_the_table_says_of_hears_tasks_what_is_known_of_them(shared):
    with (shared / "facts/tasks.csv").open(newline="") as table:
        known = {
            directory: row
            for row in csv.DictReader(table)
            for directory in row["task_dir"].split(";")
        }
    rows = {name: row for name, row in task_table().items() if row.benchmark == "hear2021"}
    assert rows.keys() == known.keys()
    same = ("category", "leaderboard_column", "embedding_type", "prediction_type")
    for name, row in rows.items():
        fact = known[name]
        assert [getattr(row, column) for column in same] == [fact[column] for column in same]
        assert (row.primary_metric, row.split_mode) == (fact["primary_metric"], fact["split_mode"])
        assert (row.folds, row.clips) == (int(fact["n_folds"]), int(fact["n_clips"]))
        assert row.archive in fact["zenodo_archive_48k"].split(";")
        assert row.md5 in ["", *fact["archive_md5"].split(";")]
        assert bool(row.md5) == bool(fact["archive_md5"])
        for value, text in (
            (row.labels, fact["n_labels"]),
            (row.sample_duration, fact["sample_duration_s"]),
            (row.hours, fact["hours"].removeprefix(">").removesuffix(" (documented)")),
        ):
            # MAESTRO's labels and FSD50K's lengths are bounds.
            assert value == float(text) if value is not None else not text.isdecimal()


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_clips_are_read_into_rows_wherever_they_lie(dtype):
    samples = np.arange(1, 15, dtype=np.int16)
    task = Task("a_task", {}, [], {}, 32_000, "t", samples)
    places = [(0, 2), (2, 2), (4, 3), (7, 2), (11, 2), (9, 2), (13, 1)]
    clips = [Clip("train", f"{start}.wav", start, length) for start, length in places]
    rows = np.full((len(clips), 4), 9, dtype=dtype)
    task.read(clips, rows)
    scale = 1 if dtype == np.int16 else 1 / 32768
    for row, (start, length) in zip(rows, places, strict=True):
        np.testing.assert_array_equal(row[:length], samples[start : start + length] * dtype(scale))
        assert not row[length:].any()
