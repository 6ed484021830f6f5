"""What a run is said to cost, and what its jobs ask for, from the tables alone."""

import dataclasses
from types import SimpleNamespace

import pytest
import yaml

from hear_mn.checkpoints import checkpoint
from hear_mn.variants import parse_variant
from workflow_scripts.hear2021 import resources
from workflow_scripts.hear2021.configuration import CONFIG, read_run, task_table
from workflow_scripts.hear2021.estimate import as_text, estimate_run

ESC50 = task_table()["esc50-v2.0.0-full"]
FILES = [yaml.safe_load((CONFIG / name).read_text()) for name in ("config.yaml", "hear2021.yaml")]
RUN = read_run(FILES[0] | FILES[1])
VARIANTS = [parse_variant(name) for name in ("mn04_as_e1", "mn04_as_e1_l")]


def by_name(*arguments):
    return {row.name: row for row in estimate_run(*arguments)}


def test_the_download_is_the_weights_and_the_archives():
    estimates = by_name(VARIANTS, [ESC50])
    assert estimates["mn04_as"].download == 4_066_513
    assert estimates[ESC50.task].download == pytest.approx(
        2.78 * 3600 * 48_000 * 2 * 0.85, rel=1e-6
    )


def test_what_is_on_this_machine_already_is_not_downloaded():
    estimates = by_name(VARIANTS, [ESC50], [ESC50.task], ["mn04_as"])
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


def test_the_table_ends_with_sum_and_disk():
    text = as_text(estimate_run(VARIANTS, [ESC50]))
    assert "in all" in text
    assert "Disk in all: " in text


@pytest.mark.parametrize(
    "limit",
    [
        resources.embed_minutes,
        resources.evaluate_minutes(RUN),
        resources.evaluate_on_gpu_minutes(RUN),
        resources.prepare_minutes,
    ],
)
def test_a_job_gets_more_time_at_each_attempt(limit):
    wildcards = SimpleNamespace(task=ESC50.task, checkpoint="mn40_as", variant="mn40_as_e1_l")
    assert limit(wildcards, 1) < limit(wildcards, 2) < limit(wildcards, 3)


def test_an_evaluation_gets_time_for_its_grid_points_folds_and_seeds():
    assert resources.trainings(ESC50, RUN) == 8 + 4
    assert resources.trainings(ESC50, dataclasses.replace(RUN, seeds=5)) == 5 * (8 + 4)
    single_split = task_table()["fsd50k-v1.0-full"]
    assert resources.trainings(single_split, dataclasses.replace(RUN, grid_points=4)) == 4


@pytest.mark.parametrize("memory", [resources.embed_memory, resources.evaluate_memory])
def test_a_job_gets_more_memory_at_each_attempt(memory):
    wildcards = SimpleNamespace(task=ESC50.task, checkpoint="mn40_as", variant="mn40_as_e1_l")
    assert memory(wildcards, 1) < memory(wildcards, 2)


def test_an_evaluation_has_room_for_its_embeddings_twice():
    wildcards = SimpleNamespace(task="maestro-v3.0.0-5h", variant="mn40_as_ext_e1_l_all_se")
    matrix = 6.17 * 3600 * 20 * 8423 * 4 / 1e6
    assert resources.evaluate_memory(wildcards, 1) > 2 * matrix


def test_a_wider_network_gets_more_time():
    narrow, wide = (resources.embed_seconds(ESC50, name) for name in ("mn04_as", "mn40_as"))
    assert narrow < wide
    assert checkpoint("mn40_as").macs_10s > checkpoint("mn04_as").macs_10s


@pytest.mark.parametrize(("visible", "count"), [("", 0), ("-1", 0), ("0", 1), ("GPU-1,GPU-2", 2)])
def test_the_gpus_that_a_process_may_use_are_counted(monkeypatch, visible, count):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert resources.gpus_here() == count
