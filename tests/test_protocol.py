"""The evaluation gives the stock runner's numbers, and says what it cannot work on."""

import dataclasses
import json
import math
import os
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch

from tests.benchmarks.inputs import MadeEmbeddings
from tests.benchmarks.stock_runner import STOCK_RUNNER, comparable
from workflow_scripts.hear2021.evaluation import dropout, packing, training
from workflow_scripts.hear2021.evaluation.export import export
from workflow_scripts.hear2021.evaluation.heareval_definitions import get_splits_from_metadata
from workflow_scripts.hear2021.evaluation.packing import pack
from workflow_scripts.hear2021.evaluation.protocol import evaluate, grid
from workflow_scripts.hear2021.evaluation.scoring import Scorer
from workflow_scripts.hear2021.evaluation.training import (
    BestEpoch,
    lay_out_by_input,
    new_predictor,
)
from workflow_scripts.hear2021.tasks.task import Clip, Task

THREADS = 1  # of both sides

pytestmark = pytest.mark.usefixtures("one_thread")
HOP_MS = 50.0

# heareval's grid with small networks and early stops: the same code in a fraction of the time
SMALL_GRID = {"hidden_dim": [32], "patience": [4], "max_epochs": [60]}


def task_of(splits, labels, **metadata):
    described = {"task_name": "made_up", "split_mode": "trainvaltest", "splits": list(splits)}
    described |= {"sample_duration": 4.0, "evaluation_params": {}} | metadata
    described["evaluation_params"] = {"task_specific_param_grid": SMALL_GRID} | described[
        "evaluation_params"
    ]
    audio = np.zeros(0, dtype=np.int16)
    return Task("made_up-v1", described, labels, splits, 16000, "0" * 64, audio)


def scene_task(clips_in_split, *, size=12, n_labels=4, noise=2.5, **metadata):
    """A scene task whose labels can be learned from its embeddings, but not quite."""
    generator = np.random.default_rng(1)
    labels = [f"label {i}" for i in range(n_labels)]
    directions = generator.normal(size=(n_labels, size))
    splits, embeddings = {}, {}
    for split, n_clips in clips_in_split.items():
        if metadata["prediction_type"] == "multiclass":
            active = np.eye(n_labels)[generator.integers(n_labels, size=n_clips)]
        else:
            active = (generator.random((n_clips, n_labels)) < 0.4).astype(float)
        noisy = active @ directions + noise * generator.normal(size=(n_clips, size))
        embeddings[split] = noisy.astype(np.float32)
        splits[split] = [
            Clip(split, f"{i}.wav", 0, 1, labels=tuple(labels[j] for j in np.flatnonzero(row)))
            for i, row in enumerate(active)
        ]
    return MadeEmbeddings(task_of(splits, labels, embedding_type="scene", **metadata), embeddings)


def event_task(clips_in_split, *, n_times=80, size=8, n_labels=3, noise=0.7, **metadata):
    """An event task, four seconds a clip, whose events show in the embeddings of their frames."""
    generator = np.random.default_rng(2)
    labels = [f"label {i}" for i in range(n_labels)]
    directions = generator.normal(size=(n_labels, size))
    times_ms = (np.arange(n_times) * HOP_MS).astype(np.float32)
    splits, embeddings, times = {}, {}, {}
    for split, n_clips in clips_in_split.items():
        splits[split], rows = [], []
        for i in range(n_clips):
            starts = generator.uniform(0, n_times * HOP_MS - 900, size=4)
            events = tuple(
                {"label": labels[j], "start": start, "end": start + generator.uniform(300, 900)}
                for j, start in zip(generator.integers(n_labels, size=4), starts, strict=True)
            )
            active = np.zeros((n_times, n_labels))
            for event in events:
                sounds = (event["start"] <= times_ms) & (times_ms <= event["end"])
                active[sounds, labels.index(event["label"])] = 1
            noisy = active @ directions + noise * generator.normal(size=(n_times, size))
            rows.append(noisy.astype(np.float32))
            splits[split].append(Clip(split, f"{i}_{split}.wav", 0, 1, events=events))
        embeddings[split] = np.concatenate(rows)
        times[split] = [times_ms] * n_clips
    task = task_of(splits, labels, embedding_type="event", prediction_type="multilabel", **metadata)
    return MadeEmbeddings(task, embeddings, times)


FOLDS = {"fold00": 60, "fold01": 50, "fold02": 55, "fold03": 47}
SINGLE = {"train": 90, "valid": 50, "test": 50}
TASKS = {
    "scene, multiclass, folds": lambda: scene_task(
        FOLDS,
        prediction_type="multiclass",
        split_mode="new_split_kfold",
        evaluation=["top1_acc", "chroma_acc"],
    ),
    "scene, multilabel, single split": lambda: scene_task(
        SINGLE, prediction_type="multilabel", evaluation=["mAP", "d_prime", "aucroc"]
    ),
    "scene, folds of few clips, rows of an odd size": lambda: scene_task(
        {"fold00": 1, "fold01": 21, "fold02": 2, "fold03": 3, "fold04": 50},
        size=33,
        prediction_type="multilabel",
        split_mode="presplit_kfold",
        evaluation=["top1_acc", "mAP"],
        use_scoring_for_early_stopping=False,
    ),
    "scene, small batches and no dropout": lambda: scene_task(
        SINGLE,
        size=33,
        prediction_type="multiclass",
        evaluation=["top1_acc"],
        evaluation_params={
            "task_specific_param_grid": SMALL_GRID | {"batch_size": [9], "dropout": [0]}
        },
    ),
    "scene, layers of several blocks": lambda: scene_task(
        SINGLE,
        size=500,
        noise=12,
        prediction_type="multiclass",
        evaluation=["top1_acc"],
        evaluation_params={"task_specific_param_grid": SMALL_GRID | {"hidden_dim": [400]}},
    ),
    "event, single split, as DCASE 2016": lambda: event_task(
        {"train": 14, "valid": 5, "test": 5},
        task_name="dcase2016_task2",
        evaluation=["event_onset_200ms_fms", "segment_1s_er"],
    ),
    "event, nothing found": lambda: event_task(
        {"train": 4, "valid": 3, "test": 3},
        task_name="dcase2016_task2",
        evaluation=["event_onset_200ms_fms"],
        evaluation_params={  # events as long as the clip
            "event_postprocessing_grid": {"median_filter_ms": [150], "min_duration": [3950, 4000]}
        },
    ),
    "event, folds, as MAESTRO": lambda: event_task(
        {"fold00": 4, "fold01": 5, "fold02": 14},
        split_mode="presplit_kfold",
        evaluation=["event_onset_50ms_fms", "event_onset_offset_50ms_20perc_fms"],
        use_scoring_for_early_stopping=False,
        evaluation_params={
            "event_postprocessing_grid": {"median_filter_ms": [150], "min_duration": [50]},
            "task_specific_param_grid": SMALL_GRID | {"check_val_every_n_epoch": [1]},
        },
    ),
}


GRID_POINTS = 2


@pytest.fixture(scope="module")
def stock_results(tmp_path_factory):
    """What `python -m heareval.predictions.runner` makes of the exports of all tasks, by kind."""
    folder = tmp_path_factory.mktemp("stock")
    exports = [folder / f"task{i}" for i in range(len(TASKS))]
    for make, directory in zip(TASKS.values(), exports, strict=True):
        export(make(), directory)
    environment = {"TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1", "OMP_NUM_THREADS": str(THREADS)}
    run = subprocess.run(
        [sys.executable, "-c", STOCK_RUNNER, *exports, "--grid-points", str(GRID_POINTS)],
        cwd=folder,
        env=os.environ | environment | {"CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    results = [json.loads((d / "test.predicted-scores.json").read_text()) for d in exports]
    return dict(zip(TASKS, results, strict=True))


@pytest.mark.parametrize("kind", TASKS)
def test_results_equal_the_stock_runners(kind, stock_results, blocks_worthwhile, monkeypatch):
    monkeypatch.setattr(dropout, "VALUES_WORTHWHILE", 0)
    found = evaluate(TASKS[kind](), grid_points=GRID_POINTS)
    assert comparable(json.loads(json.dumps(found))) == comparable(stock_results[kind])


def test_a_score_that_is_not_defined_ends_the_training(stock_results):
    result = stock_results["event, nothing found"]
    assert result["test"]["validation_score"] == -math.inf
    assert result["test"]["epoch"] == 9
    assert math.isnan(result["test"]["test_score"])


def test_the_grid_is_tried_in_hearevals_order():
    tried = grid(TASKS["scene, multilabel, single split"]().task.metadata | NO_PARAMETERS, seed=42)
    names = {"xavier_normal_": "normal", "xavier_uniform_": "uniform"}
    points = [
        (point["hidden_layers"], point["lr"], names[point["initialization"].__name__])
        for point in tried
    ]
    assert len(points) == 16
    assert points[:8] == [
        (1, 1e-4, "normal"),
        (2, 1e-3, "uniform"),
        (1, 1e-3, "normal"),
        (1, 3.2e-4, "normal"),
        (2, 3.2e-4, "normal"),
        (2, 3.2e-4, "uniform"),
        (2, 3.2e-3, "normal"),
        (2, 3.2e-3, "uniform"),
    ]


NO_PARAMETERS: dict[str, dict] = {"evaluation_params": {}}


def test_training_side_by_side_gives_the_same_scores_on_average():
    embedded = TASKS["scene, multiclass, folds"]()
    in_turn, at_once = (
        [evaluate(embedded, grid_points=3, seed=seed, side_by_side=together) for seed in range(5)]
        for together in (False, True)
    )
    scores, together = (
        [result["aggregated_scores"]["test_score_mean"] for result in results]
        for results in (in_turn, at_once)
    )
    assert set(at_once[0]) == set(in_turn[0])
    assert abs(np.mean(together) - np.mean(scores)) < np.ptp(scores)
    assert np.mean(together) > 1.5 / len(embedded.task.labels)


def test_events_are_learned_side_by_side():
    embedded = TASKS["event, single split, as DCASE 2016"]()
    result = evaluate(embedded, grid_points=3, side_by_side=True)
    assert result["test"]["test_score"] > 0.5


def test_progress_counts_the_trainings():
    seen = []
    embedded = TASKS["scene, multiclass, folds"]()
    evaluate(embedded, grid_points=2, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 5), (2, 5), (3, 5), (4, 5), (5, 5)]


def test_the_callers_random_state_is_left_alone():
    embedded = TASKS["scene, multilabel, single split"]()
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    evaluate(embedded, grid_points=1)
    assert torch.equal(torch.rand(1), expected)


def test_several_ways_of_postprocessing_need_a_score_that_chooses():
    made = event_task(
        {"train": 4, "valid": 3, "test": 3},
        evaluation=["event_onset_200ms_fms"],
        use_scoring_for_early_stopping=False,
    )
    with pytest.raises(ValueError, match="2 ways of postprocessing, and use_scoring_for_early_"):
        evaluate(made, grid_points=1)


def with_a_single_timestamp(split, grid, **metadata):
    made = event_task(
        {"train": 4, "valid": 3, "test": 3},
        evaluation=["event_onset_200ms_fms"],
        evaluation_params={"event_postprocessing_grid": grid},
        **metadata,
    )
    made.embeddings[split] = made.embeddings[split][79:]
    made.times[split] = [made.times[split][0][:1], *made.times[split][1:]]
    return made


@pytest.mark.parametrize("split", ["valid", "test"])
def test_a_clip_with_a_single_timestamp_is_named_before_training(split):
    made = with_a_single_timestamp(split, {"median_filter_ms": [0, 150]})
    seen = []
    with pytest.raises(ValueError, match=rf"split {split}, clip 0_{split}\.wav: a single timestam"):
        evaluate(made, grid_points=1, progress=lambda done, total: seen.append(done))
    assert not seen


@pytest.mark.parametrize(
    ("split", "filter_ms", "metadata"),
    [
        ("train", 150, {}),
        ("test", 0, {}),
        ("valid", 150, {"use_scoring_for_early_stopping": False}),
    ],
    ids=["not scored", "not filtered", "only its loss counts"],
)
def test_a_single_timestamp_does_where_no_filter_meets_it(split, filter_ms, metadata):
    made = with_a_single_timestamp(split, {"median_filter_ms": [filter_ms]}, **metadata)
    assert "test_score" in evaluate(made, grid_points=1)["test"]


def test_a_score_that_cannot_be_computed_is_named():
    made = scene_task(SINGLE, prediction_type="multilabel", evaluation=["mAP"])
    made.embeddings["valid"][:] = 3e38  # finite, but not what the network makes of it
    with pytest.raises(ValueError, match=r"made_up-v1, split valid: mAP of its predictions: .*NaN"):
        evaluate(made, grid_points=1)


def test_labels_that_no_scored_clip_has_are_named_once():
    made = scene_task(SINGLE, prediction_type="multilabel", evaluation=["mAP", "aucroc"])
    for split in ("train", "valid"):  # of which one is not scored
        clips = made.task.splits[split]
        clips[:] = [
            dataclasses.replace(clip, labels=tuple(set(clip.labels) - {"label 0"}))
            for clip in clips
        ]
    with pytest.warns() as caught:
        evaluate(made, grid_points=1)
    assert [str(warning.message) for warning in caught] == [
        "made_up-v1, split valid: 1 of 4 labels apply to no clip ('label 0'): in mAP each counts "
        "as 0, and aucroc and d_prime are not defined, as in heareval"
    ]


def test_a_label_that_every_scored_clip_has_is_named_where_a_score_is_undefined():
    for evaluation, messages in ((["mAP"], []), (["mAP", "aucroc"], ["split test: 1 of 4 labels"])):
        made = scene_task(SINGLE, prediction_type="multilabel", evaluation=evaluation)
        clips = made.task.splits["test"]
        clips[:] = [
            dataclasses.replace(clip, labels=tuple({*clip.labels, "label 0"})) for clip in clips
        ]
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            evaluate(made, grid_points=1)
        assert [str(warning.message) for warning in caught] == [
            f"made_up-v1, {message} apply to every clip ('label 0'): aucroc and d_prime are not "
            f"defined, as in heareval"
            for message in messages
        ]


@pytest.mark.parametrize("side_by_side", [False, True])
def test_a_grid_point_that_ends_before_its_first_validation_is_refused(side_by_side):
    made = scene_task(
        SINGLE,
        prediction_type="multilabel",
        evaluation=["mAP"],
        evaluation_params={"task_specific_param_grid": {"max_epochs": [2]}},  # one in three counts
    )
    with pytest.raises(ValueError, match="made_up-v1: no validation within 2 epochs"):
        evaluate(made, grid_points=1, side_by_side=side_by_side)


@pytest.mark.parametrize("same_bits", [True, False])
def test_weights_are_laid_out_by_input_only_if_no_bit_of_a_product_changes(same_bits, monkeypatch):
    packed = pack(TASKS["scene, multiclass, folds"]())
    predictor = new_predictor(packed, grid(packed.task.metadata, seed=42)[0])
    before, random_state = predictor.hidden[0].weight.clone(), torch.get_rng_state()
    monkeypatch.setattr(torch, "equal", lambda *products: same_bits)
    training._sums_alike_by_input.cache_clear()
    changed = lay_out_by_input(predictor, [len(packed.batches(["fold00"], 1024)[0][0])])
    training._sums_alike_by_input.cache_clear()
    monkeypatch.undo()
    weight = predictor.hidden[0].weight
    assert changed == weight.t().is_contiguous() == same_bits
    assert torch.equal(weight, before)
    assert torch.equal(torch.get_rng_state(), random_state)


@pytest.mark.parametrize(
    ("mode", "values", "epoch", "kept", "validations"),
    [
        ("max", [0.1, 0.3, 0.3, 0.2], 1, 0.3, 4),
        ("min", [0.3, 0.1, 0.1, 0.2, 0.05], 1, 0.1, 4),
        ("max", [0.1, math.nan, 0.5], 0, 0.1, 2),
        ("max", [math.nan, 0.5], 0, -math.inf, 1),
    ],
    ids=["ties keep the first", "patience ends it", "NaN ends it", "NaN first is the worst"],
)
def test_the_epoch_kept_follows_lightnings_rules(mode, values, epoch, kept, validations):
    best = BestEpoch(mode, patience=2)
    seen = 0
    for i, value in enumerate(values):
        best.update(i, value)
        seen += 1
        if best.stopped:
            break
    assert (best.epoch, best.value, seen) == (epoch, kept, validations)


def test_a_layer_too_small_to_tell_keeps_its_layout():
    packed = pack(TASKS["scene, multiclass, folds"]())
    conf = grid(packed.task.metadata, seed=42)[0]
    for size, can_tell in ((31, False), (32, True)):
        predictor = new_predictor(packed, conf | {"hidden_dim": size})
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(training, "_sums_alike_by_input", lambda *sizes: True)
            assert lay_out_by_input(predictor, [1]) == can_tell


def test_a_trained_predictor_has_hearevals_layout_again():
    packed = pack(TASKS["scene, multiclass, folds"]())
    metadata = packed.task.metadata
    data_split, conf = get_splits_from_metadata(metadata)[0], grid(metadata, seed=42)[0]
    trained = training.train(packed, data_split, conf, Scorer(packed))
    assert trained.predictor.hidden[0].weight.is_contiguous()


def changed(embedded, split, index, **changes):
    clips = embedded.task.splits[split]
    clips[index] = dataclasses.replace(clips[index], **changes)
    return embedded


def test_two_labels_in_a_multiclass_task_are_named():
    both = ("label 0", "label 1")
    embedded = changed(TASKS["scene, multiclass, folds"](), "fold01", 3, labels=both)
    with pytest.raises(ValueError, match=r"split fold01, clip 3\.wav: .*not exactly one label"):
        evaluate(embedded)


def test_a_split_without_clips_is_named():
    embedded = TASKS["scene, multilabel, single split"]()
    embedded.task.splits["valid"].clear()
    with pytest.raises(ValueError, match="made_up-v1, split valid: no clips"):
        evaluate(embedded)


def test_a_last_training_batch_of_one_row_is_refused_before_training():
    embedded = scene_task(
        SINGLE | {"train": 1025}, prediction_type="multilabel", evaluation=["mAP"]
    )
    with pytest.raises(ValueError, match=r"made_up-v1: .* train have 1025 rows"):
        evaluate(embedded)


def test_a_batch_of_one_row_is_refused_whatever_its_size():
    parameters = {"task_specific_param_grid": SMALL_GRID | {"batch_size": [1]}}
    embedded = scene_task(
        SINGLE, prediction_type="multilabel", evaluation=["mAP"], evaluation_params=parameters
    )
    with pytest.raises(ValueError, match=r"made_up-v1: .* the last batch of 1 is a single row"):
        evaluate(embedded)


def test_a_last_batch_of_one_row_trains_a_network_without_hidden_layers():
    parameters = {"task_specific_param_grid": SMALL_GRID | {"hidden_layers": [0]}}
    embedded = scene_task(
        SINGLE | {"train": 1025},
        prediction_type="multilabel",
        evaluation=["mAP"],
        evaluation_params=parameters,
    )
    assert evaluate(embedded, grid_points=1)["test"]["test_score"] > 0


def test_nan_in_an_embedding_names_the_clip(monkeypatch):
    monkeypatch.setattr(packing, "CHECKED_ROWS", 16)
    for clip in range(FOLDS["fold02"]):
        embedded = TASKS["scene, multiclass, folds"]()
        embedded.embeddings["fold02"][clip, 3] = math.nan
        with pytest.raises(ValueError, match=rf"split fold02, clip {clip}\.wav: NaN or Inf"):
            pack(embedded)


def test_infinity_in_the_embedding_of_a_timestamp_names_the_clip():
    events = TASKS["event, folds, as MAESTRO"]()
    events.embeddings["fold01"][2 * 80 + 5, 3] = math.inf
    with pytest.raises(ValueError, match=r"split fold01, clip 2_fold01\.wav: NaN or Inf"):
        evaluate(events)


def test_rows_go_to_a_gpu_where_they_take_no_more_than_half_of_its_free_memory(monkeypatch):
    sizes = []
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2000, 9000))
    assert packing._has_room(1000, torch.device("cuda"))
    assert not packing._has_room(1001, torch.device("cuda"))
    monkeypatch.setattr(packing, "_has_room", lambda size, device: sizes.append(size))
    assert sizes == [pack(TASKS["scene, multiclass, folds"]()).rows.nbytes]


def test_a_batch_lies_in_memory_as_aligned_as_a_copy_of_it():
    packed = pack(scene_task(FOLDS, size=33, prediction_type="multilabel", evaluation=["mAP"]))
    batches = [rows for split in FOLDS for rows, _ in packed.batches([split], 1024)]
    assert any(rows.data_ptr() % 64 for rows in batches)
    for rows in batches:
        assert packed.on_device(rows).data_ptr() % 64 == 0
        assert torch.equal(packed.on_device(rows), rows)


def test_embeddings_that_do_not_fit_the_clips_are_refused():
    embedded = TASKS["scene, multiclass, folds"]()
    embedded.embeddings["fold02"] = embedded.embeddings["fold02"][:-1]
    with pytest.raises(ValueError, match=r"split fold02: embeddings of shape \(54, 12\)"):
        evaluate(embedded)


def test_an_evaluation_job_starts_without_what_only_some_tasks_need():
    slow = {
        *("pytorch_lightning", "torch._dynamo", "tensorflow"),
        *("numba", "pandas", "scipy", "sed_eval", "sklearn"),
    }
    events = "workflow_scripts.hear2021.evaluation.event_scores"
    for module, absent in (
        ("workflow_scripts.evaluate", slow),
        (f"workflow_scripts.evaluate, {events}", slow - {"scipy"}),
    ):
        code = f"import sys, {module}\nassert not {absent} & sys.modules.keys()"
        subprocess.run([sys.executable, "-c", code], check=True)
