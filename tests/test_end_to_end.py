"""The mini benchmark as the README runs it, and real spoken digits through the same rules."""

import csv
import json
import math
import os
import re
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.conftest import copy_workflow, needs_shared, planned_jobs, snakemake
from workflow_scripts.hear2021.report.figure_table import (
    figure_table,
    figures_of_run,
    published_figures,
)
from workflow_scripts.hear2021.run.config_tables import CONFIG
from workflow_scripts.hear2021.run.resources import gpus_here

MINI = yaml.safe_load((CONFIG / "config.yaml").read_text())


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as table:
        return list(csv.DictReader(table))


def test_every_pair_has_a_score(mini):
    for variant in MINI["variants"]:
        for task in MINI["tasks"]:
            scores = json.loads((mini / f"results/scores/{variant}/{task}.json").read_text())
            folds = scores.get("aggregated_scores")
            score = folds["test_score_mean"] if folds else scores["test"]["test_score"]
            assert 0.0 <= score <= 1.0, (variant, task)


@pytest.mark.parametrize(
    ("task", "at_least"),
    [("mini_vowels", 0.4), ("mini_instruments", 0.4), ("mini_hum", 0.6), ("mini_weather", 0.4)],
)
def test_sounds_that_differ_are_told_apart_even_by_untrained_weights(mini, task, at_least):
    table = rows(mini / "results/mini/tables/scores.csv")
    scores = {row["model"]: float(row["score"]) for row in table if row["task"] == task}
    assert max(scores.values()) >= at_least


def test_a_score_says_where_it_comes_from(mini):
    file = mini / "results/scores/mn04_seeded_e1_l_mels/mini_vowels.json"
    provenance = json.loads(file.read_text())["provenance"]
    (embedding,) = provenance["embeddings"]
    assert len(embedding["weights_sha256"]) == len(embedding["task_sha256"]) == 64
    assert provenance["seed"] == 42
    assert provenance["seconds"] > 0
    assert provenance["peak_memory_bytes"] > 0
    assert provenance["packages"]["heareval"] == "2021.1.3"


def test_the_tables_have_every_pair_and_nothing_missing(mini):
    pairs = {(row["model"], row["task"]) for row in rows(mini / "results/mini/tables/scores.csv")}
    assert len(pairs) == len(MINI["variants"]) * len(MINI["tasks"])
    assert rows(mini / "results/mini/tables/missing.csv") == []
    means = {row["model"]: row for row in rows(mini / "results/mini/tables/means.csv")}
    assert set(means) == set(MINI["variants"])


@pytest.mark.parametrize(
    ("benchmark", "figures"),
    [("mini", figures_of_run([], False)), ("published", published_figures())],
)
def test_every_figure_is_there_and_not_empty(mini, benchmark, figures):
    assert figures
    for figure in figures:
        path = mini / f"results/{benchmark}/figures/{figure}"
        png = path.with_suffix(".png").read_bytes()
        width, height = struct.unpack(">II", png[16:24])
        assert width > 800
        assert height > 300
        assert len(png) > 20_000
        assert "<svg" in path.with_suffix(".svg").read_text()[:1000]


def test_the_mini_figures_say_that_they_show_synthetic_audio_and_untrained_weights(mini):
    for figure in figures_of_run([], False):
        assert "synthetic audio" in (mini / f"results/mini/figures/{figure}.svg").read_text()


def test_a_job_computes_on_as_many_threads_as_it_holds_cores(mini):
    table = rows(mini / "results/mini/performance.csv")
    share = max(1, 4 // max(1, gpus_here()))  # of `-j4`
    threads = {"embed": str(min(share, len(os.sched_getaffinity(0)))), "evaluate": "1"}
    for rule, expected in threads.items():
        assert {row["threads"] for row in table if row["rule"] == rule} == {expected}


def test_the_report_is_one_file_of_figures_tables_and_claims_with_their_captions(mini, tmp_path):
    report = tmp_path / "report.html"
    result = snakemake(mini, "--nolock", "--report", str(report))
    assert result.returncode == 0, result.stdout
    text = report.read_text()
    assert not re.search(r"<(script|link|img)\b[^>]*\b(src|href)=.?https?:", text)
    assert all(f'"{category}"' in text for category in ("Figures", "Tables", "Claims"))
    for name in [*figures_of_run([], False), *published_figures()]:
        assert f"{name}.svg" in text
        assert figure_table()[name].caption in text
    assert "Mean normalised score in percent and number of tasks counted" in text
    assert "synthetic audio, untrained weights" in text


def test_a_second_run_has_nothing_to_do(mini):
    assert planned_jobs(mini) == {}


def test_a_pair_that_failed_is_tried_again_by_the_same_command(tmp_path):
    folder = copy_workflow(tmp_path)
    (folder / "damaged.tar.gz").write_bytes(b"this is no archive")
    variant, task, failing = "mn04_seeded_mels", "mini_hum", "mini_pitch"
    change = {"variants": [variant], "tasks": [task, failing], "grid_points": 1}
    change["task_sources"] = {failing: "damaged.tar.gz"}
    config = yaml.safe_load((folder / "config/config.yaml").read_text()) | change
    (folder / "config/config.yaml").write_text(yaml.safe_dump(config))
    failed = snakemake(folder, "-j2", "-k")
    assert failed.returncode != 0
    assert "1 of 2" in failed.stdout
    (missing,) = rows(folder / "results/mini/tables/missing.csv")
    assert missing["task"] == failing
    again = planned_jobs(folder)
    assert (again["evaluate"], again["aggregate"]) == (1, 1)
    without = planned_jobs(folder, "--config", f"tasks=[{task}]", "task_sources={}")
    assert "evaluate" not in without
    assert without["aggregate"] >= 1
    damaged = f"task_sources={{{task}: damaged.tar.gz, {failing}: damaged.tar.gz}}"
    assert snakemake(folder, "-j2", "-k", "--config", damaged).returncode != 0
    missing = rows(folder / "results/mini/tables/missing.csv")
    assert {row["task"] for row in missing} == {task, failing}  # a score of the data before


def test_the_published_comparison_in_the_repository_is_what_the_workflow_makes(mini, repository):
    made = mini / "results/published"
    committed = repository / "results/published"
    files = sorted(path.relative_to(committed) for path in committed.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(made) for path in made.rglob("*") if path.is_file())
    for file in files:
        assert (made / file).read_bytes() == (committed / file).read_bytes(), file


SPECTRUM = """
import torch

class Spectrum(torch.nn.Module):
    sample_rate = 16000
    scene_embedding_size = 129
    timestamp_embedding_size = 130

def load_model(model_file_path=""):
    return Spectrum()

def spectra(audio):
    frames = audio.unfold(1, 256, 800)
    return torch.log(torch.fft.rfft(frames).abs() + 1e-3)

def get_scene_embeddings(audio, model):
    return spectra(audio).mean(dim=1)

def get_timestamp_embeddings(audio, model):
    frames = spectra(audio)
    times = 50.0 * torch.arange(frames.shape[1]).expand(len(audio), -1)
    return torch.cat([frames, frames[..., :1]], dim=-1), times
"""


def test_a_module_of_ones_own_with_the_hear_api_goes_the_same_way(tmp_path):
    folder = copy_workflow(tmp_path)
    (folder / "spectrum.py").write_text(SPECTRUM)
    with (folder / "config/checkpoints.csv").open("a") as table:
        columns = (folder / "config/checkpoints.csv").read_text().split("\n")[0].split(",")
        row = {"checkpoint": "mine", "source": "module", "module": "spectrum"}
        row["sample_rate"] = "16000"
        table.write(",".join(row.get(column, "") for column in columns) + "\n")
    tasks = ["mini_hum", "mini_office"]
    pairs = [f"results/scores/mine/{task}.json" for task in tasks]
    result = snakemake(folder, "-j2", *pairs, "--config", "grid_points=1")
    assert result.returncode == 0, result.stdout
    scored = [json.loads((folder / pair).read_text())["test"]["test_score"] for pair in pairs]
    assert scored[0] > 0.6
    assert 0.0 <= scored[1] <= 1.0

    assert planned_jobs(folder, *pairs, "--config", "grid_points=1") == {}
    (folder / "spectrum.py").write_text(SPECTRUM + "# edited\n")
    planned = planned_jobs(folder, *pairs, "--config", "grid_points=1")
    assert (planned["fetch_checkpoint"], planned["embed"], planned["evaluate"]) == (1, 2, 2)


@pytest.fixture(scope="module")
def real(tmp_path_factory, shared) -> Path:
    """The trained mn04_as on the whole spoken digits, through the rules, two grid points."""
    folder = copy_workflow(tmp_path_factory.mktemp("real"))
    archives = shared / "real/archives"
    config = {
        "benchmark": "spoken_digit",
        "variants": ["mn04_as_e1_l"],
        "tasks": ["spoken_digit-1.0.9-full", "spoken_digit-1.0.9-small"],
        "notice": "",
        "grid_points": 2,
        "weights": {"mn04_as": str(shared / "real/weights/mn04_as_mAP_432.pt")},
        "task_sources": {
            "spoken_digit-1.0.9-full": str(
                archives / "hear2021-spoken_digit-1.0.9-full-16000.tar.gz"
            ),
            "spoken_digit-1.0.9-small": str(
                archives / "hear-2021.0.6-spoken_digit-1.0.9-small-44100.tar.gz"
            ),
        },
    }
    (folder / "real.yaml").write_text(yaml.safe_dump(config))
    export = "results/exports/mn04_as_e1_l/spoken_digit-1.0.9-full"
    result = snakemake(
        folder, "results/spoken_digit/claims.md", export, "-j2", "--configfile", "real.yaml"
    )
    assert result.returncode == 0, result.stdout
    return folder


@needs_shared
def test_trained_weights_on_real_digits_score_as_published_tools_do(real):
    scores = json.loads(
        (real / "results/scores/mn04_as_e1_l/spoken_digit-1.0.9-full.json").read_text()
    )
    assert 0.90 <= scores["aggregated_scores"]["test_score_mean"] <= 0.96
    assert len([split for split in scores if split.startswith("fold")]) == 5


@needs_shared
def test_the_official_small_archive_goes_through_too(real):
    scores = json.loads(
        (real / "results/scores/mn04_as_e1_l/spoken_digit-1.0.9-small.json").read_text()
    )
    assert not math.isnan(scores["aggregated_scores"]["test_score_mean"])


@needs_shared
def test_the_stock_runner_gives_the_same_scores_on_the_real_digits(real, tmp_path):
    ours = json.loads(
        (real / "results/scores/mn04_as_e1_l/spoken_digit-1.0.9-full.json").read_text()
    )
    exported = tmp_path / "mn04_as_e1_l/spoken_digit-1.0.9-full"
    shutil.copytree(real / "results/exports/mn04_as_e1_l/spoken_digit-1.0.9-full", exported)
    run = subprocess.run(
        [sys.executable, "-m", "heareval.predictions.runner", str(exported), "--grid-points", "2"],
        cwd=tmp_path,
        check=False,
        capture_output=True,
        text=True,
        env={
            "PATH": "",
            "OMP_NUM_THREADS": "1",
            "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1",
            "CUDA_VISIBLE_DEVICES": "",
        },
    )
    assert run.returncode == 0, run.stderr[-3000:]
    stock = json.loads((exported / "test.predicted-scores.json").read_text())
    for scores in (ours, stock):  # a function is named with its address in memory
        scores["hparams"]["initialization"] = scores["hparams"]["initialization"].split(" at ")[0]
    assert ours["hparams"] == stock["hparams"]
    for split in (name for name in stock if name.startswith("fold")):
        assert ours[split]["epoch"] == stock[split]["epoch"]
        for key in (name for name in stock[split] if name.startswith(("test_", "validation_"))):
            assert ours[split][key] == pytest.approx(stock[split][key], abs=1e-6), (split, key)
