"""An export is what heareval's embedding runner writes, and is there whole or not at all."""

import json
import pickle
import random

import numpy as np
import pytest

from tests.benchmarks.inputs import MadeEmbeddings
from tests.test_protocol import FOLDS, TASKS, scene_task
from workflow_scripts.hear2021.evaluation.export import export


def test_rows_lie_in_the_order_heareval_shuffles_the_clips(tmp_path):
    embedded = TASKS["scene, multiclass, folds"]()
    export(embedded, tmp_path / "exported")
    generator = random.Random(0)
    for split, n_clips in FOLDS.items():
        clips = embedded.task.splits[split]
        files = [f"{clip.name}.embedding.npy" for clip in clips]
        generator.shuffle(files)
        order = [int(name.split(".")[0]) for name in files]
        dimensions = json.loads(
            (tmp_path / f"exported/{split}.embedding-dimensions.json").read_text()
        )
        rows = np.memmap(
            tmp_path / f"exported/{split}.embeddings.npy", np.float32, "r", shape=tuple(dimensions)
        )
        labels = pickle.loads((tmp_path / f"exported/{split}.target-labels.pkl").read_bytes())
        assert dimensions == [n_clips, embedded.size]
        assert np.array_equal(rows, embedded.rows(split)[order])
        assert labels == [list(clips[i].labels) for i in order]


def test_every_timestamp_of_an_event_task_has_its_file_time_and_labels(tmp_path):
    embedded = TASKS["event, folds, as MAESTRO"]()
    export(embedded, tmp_path / "exported")
    stamps = json.loads((tmp_path / "exported/fold01.filename-timestamps.json").read_text())
    labels = pickle.loads((tmp_path / "exported/fold01.target-labels.pkl").read_bytes())
    events = json.loads((tmp_path / "exported/fold01.json").read_text())
    assert len(stamps) == len(labels) == len(embedded.rows("fold01"))
    for (path, time_ms), found in zip(stamps, labels, strict=True):
        clip = events[path.rsplit("/", 1)[1]]
        assert set(found) == {e["label"] for e in clip if e["start"] <= time_ms < e["end"] + 1e-4}


def test_nothing_is_left_behind_when_the_embeddings_cannot_be_read(tmp_path):
    embedded = TASKS["scene, multiclass, folds"]()

    class Broken(MadeEmbeddings):
        def rows(self, split):
            raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        export(Broken(embedded.task, embedded.embeddings), tmp_path / "exported")
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_left_behind_when_the_export_cannot_be_written(tmp_path, monkeypatch):
    def full(*args):
        raise OSError("no space left on device")

    monkeypatch.setattr(pickle, "dump", full)
    with pytest.raises(OSError, match="no space left"):
        export(TASKS["scene, multiclass, folds"](), tmp_path / "exported")
    assert list(tmp_path.iterdir()) == []


def test_an_export_does_not_overwrite_another(tmp_path):
    embedded = scene_task(FOLDS, prediction_type="multilabel", evaluation=["mAP"])
    export(embedded, tmp_path / "exported")
    with pytest.raises(FileExistsError, match="exported exists"):
        export(embedded, tmp_path / "exported")
