"""What a run is said to cost, and what its jobs ask for, from the tables alone."""

import dataclasses
import math
from types import SimpleNamespace

import pytest
import yaml

from hear_mn.checkpoints import checkpoint
from hear_mn.variants import parse_variant
from workflow_scripts.hear2021.run import resources
from workflow_scripts.hear2021.run.config_tables import CONFIG
from workflow_scripts.hear2021.run.configuration import read_run, task_table
from workflow_scripts.hear2021.run.estimate import as_text, assumed, estimate_run

ESC50 = task_table()["esc50-v2.0.0-full"]
FILES = [yaml.safe_load((CONFIG / name).read_text()) for name in ("config.yaml", "hear2021.yaml")]
RUN = read_run(FILES[1])
VARIANTS = [parse_variant(name) for name in ("mn04_as_e1", "mn04_as_e1_l")]


PROTOCOL = {"grid_points": 8, "seeds": 1, "evaluation_device": "cpu"}


def by_name(variants, tasks, **changes):
    return {row.name: row for row in estimate_run(variants, tasks, **PROTOCOL | changes)}


def test_the_download_is_the_weights_and_the_archives():
    estimates = by_name(VARIANTS, [ESC50])
    assert estimates["mn04_as"].download == 4_066_513
    assert estimates[ESC50.task].download == pytest.approx(
        2.78 * 3600 * 48_000 * 2 * 0.85, rel=1e-6
    )


def test_what_is_on_this_machine_already_is_not_downloaded():
    estimates = by_name(VARIANTS, [ESC50], local_tasks=[ESC50.task], local_weights=["mn04_as"])
    assert estimates["mn04_as"].download == estimates[ESC50.task].download == 0.0


def test_a_published_task_that_is_not_of_hear_is_downloaded_too():
    extra = dataclasses.replace(ESC50, benchmark="extra", size=5 * 10**9)
    assert by_name(VARIANTS, [extra])[ESC50.task].download == 5e9


def test_the_embeddings_of_a_checkpoint_are_counted_once_with_every_part_its_variants_want():
    logits_and_e1 = 527 + 384
    assert by_name(VARIANTS, [ESC50])[ESC50.task].embeddings == 2000 * logits_and_e1 * 4


def test_a_task_of_timestamps_has_twenty_embeddings_a_second():
    maestro = task_table()["maestro-v3.0.0-5h"]
    assert resources.embedding_rows(maestro) == int(6.17 * 3600 * 20)


def test_the_study_takes_the_disk_that_the_documents_say():
    estimates = estimate_run(RUN.variants, RUN.tasks, **PROTOCOL | {"evaluation_device": "gpu"})
    sizes = {
        name: sum(getattr(row, name) for row in estimates) / 1e9
        for name in ("download", "audio", "embeddings")
    }
    assert sizes == pytest.approx({"download": 133.2, "audio": 104.0, "embeddings": 79.4}, abs=0.05)
    text = as_text(estimates)
    assert "Disk in all: 316.6 GB" in text
    (total,) = (line.split() for line in text.splitlines() if line.startswith("in all"))
    assert total[2:6] == ["133.20", "104.00", "79.44", "11.48"]


def test_what_is_assumed_of_a_task_is_said():
    ours = dataclasses.replace(ESC50, task="ours", hours=None)
    assert assumed([ESC50, ours]).endswith("config/tasks.csv does not say (clips, hours): ours\n")
    assert assumed([ESC50]) == ""


def test_hours_of_evaluations_are_where_the_run_evaluates():
    short = dataclasses.replace(ESC50, clips=100, folds=5)
    products = 3 * (911 + 1024) * 1024 * 200 * (8 + 4)
    (_, on_core, _), (_, on_core_too, on_gpu) = (
        estimate_run(VARIANTS[1:], [short, ESC50], **PROTOCOL | {"evaluation_device": device})
        for device in ("cpu", "gpu")
    )
    assert on_core == on_core_too
    assert on_core.evaluation_core_hours == pytest.approx(products * 100 / 20e9 / 3600)
    assert on_gpu.evaluation_gpu_hours == pytest.approx(products * 2000 / 1e12 / 3600)
    assert on_core.evaluation_gpu_hours == on_gpu.evaluation_core_hours == 0


@pytest.mark.parametrize(
    ("task", "frames", "clips"),
    [
        ("esc50-v2.0.0-full", 2.78 * 3600 * 100, 2000),
        # 160 ms of audio every 50 ms
        ("dcase2016_task2-hear2021-full", 2.4 * 3600 * 20 * 16, 72),
        # 10 s every 2.5 s
        ("tfds_gtzan-1.0.0-full", 8.33 * 3600 * 100 * 4, 1000),
    ],
)
def test_embedding_takes_its_multiply_adds_and_the_reading_of_its_clips(task, frames, clips):
    row = task_table()[task]
    macs = checkpoint("mn04_as").macs_10s
    expected = frames / 1000 * macs / 0.5e12 + clips / 50
    assert resources.embed_seconds(row, "mn04_as") == pytest.approx(expected, rel=0.01)
    wildcards = SimpleNamespace(task=task, checkpoint="mn04_as")
    assert resources.embed_minutes(wildcards, 1) == math.ceil(10 + expected / 60)


def test_an_evaluation_takes_the_products_of_its_trainings():
    wildcards = SimpleNamespace(task=ESC50.task, variant="mn04_as_e1_l")
    forward_and_backward = 3 * 2000 * (911 + 1024) * 1024
    expected = forward_and_backward * 200 * (8 + 4) / 20e9
    assert resources.evaluate_minutes(RUN)(wildcards, 1) == math.ceil(10 + expected / 60)


LIMITS = [
    resources.embed_minutes,
    resources.evaluate_minutes(RUN),
    resources.evaluate_on_gpu_minutes(RUN),
    resources.prepare_minutes,
]


@pytest.mark.parametrize("limit", LIMITS)
def test_a_job_gets_more_time_at_each_attempt(limit):
    wildcards = SimpleNamespace(task=ESC50.task, checkpoint="mn40_as", variant="mn40_as_e1_l")
    assert limit(wildcards, 1) < limit(wildcards, 2) < limit(wildcards, 3)


@pytest.mark.parametrize("kind", ["scene", "event"])
@pytest.mark.parametrize("limit", [*LIMITS, resources.embed_memory, resources.evaluate_memory])
def test_a_task_of_unknown_size_gets_no_less_than_esc50(limit, kind, monkeypatch):
    unknown = dict.fromkeys(("folds", "clips", "labels", "sample_duration", "hours"))
    ours = dataclasses.replace(ESC50, task="ours", embedding_type=kind, **unknown)
    monkeypatch.setattr(resources, "task_table", lambda: {ESC50.task: ESC50, "ours": ours})
    of_ours, of_esc50 = (
        SimpleNamespace(task=task, checkpoint="mn40_as", variant="mn40_as_e1_l")
        for task in ("ours", ESC50.task)
    )
    assert limit(of_ours, 1) >= limit(of_esc50, 1)


def test_preparing_takes_a_minute_for_an_hour_of_audio():
    assert resources.prepare_minutes(SimpleNamespace(task="maestro-v3.0.0-5h"), 1) == 10 + 7


def test_an_evaluation_gets_time_for_its_grid_points_folds_and_seeds():
    assert resources.trainings(ESC50, grid_points=8, seeds=1) == 8 + 4
    assert resources.trainings(ESC50, grid_points=8, seeds=5) == 5 * (8 + 4)
    single_split = task_table()["fsd50k-v1.0-full"]
    assert resources.trainings(single_split, grid_points=4, seeds=1) == 4


@pytest.mark.parametrize("memory", [resources.embed_memory, resources.evaluate_memory])
def test_a_job_gets_more_memory_at_each_attempt(memory):
    wildcards = SimpleNamespace(task=ESC50.task, checkpoint="mn40_as", variant="mn40_as_e1_l")
    assert memory(wildcards, 1) < memory(wildcards, 2)


def test_an_evaluation_has_room_for_its_embeddings_twice():
    wildcards = SimpleNamespace(task="maestro-v3.0.0-5h", variant="mn40_as_ext_e1_l_all_se")
    matrix = 6.17 * 3600 * 20 * 8423 * 4 / 1e6
    assert 2 * matrix < resources.evaluate_memory(wildcards, 1) < 3 * matrix


def test_the_longest_evaluation_of_the_study_takes_the_minutes_that_the_documents_say():
    limit = resources.evaluate_on_gpu_minutes(RUN)
    minutes = [
        limit(SimpleNamespace(task=row.task, variant=variant.name), 1)
        for variant in RUN.variants
        for row in RUN.tasks
    ]
    assert max(minutes) == 722


def test_a_wider_network_gets_more_time():
    narrow, wide = (resources.embed_seconds(ESC50, name) for name in ("mn04_as", "mn40_as"))
    assert narrow < wide
    assert checkpoint("mn40_as").macs_10s > checkpoint("mn04_as").macs_10s


@pytest.mark.parametrize(("visible", "count"), [("", 0), ("-1", 0), ("0", 1), ("GPU-1,GPU-2", 2)])
def test_the_gpus_that_a_process_may_use_are_counted(monkeypatch, visible, count):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert resources.gpus_here() == count


def test_the_gpus_of_a_machine_are_counted_where_none_are_chosen(monkeypatch, tmp_path):
    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm", "null"):
        (tmp_path / name).touch()
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(resources, "Path", {"/dev": tmp_path}.get)
    assert resources.gpus_here() == 2
