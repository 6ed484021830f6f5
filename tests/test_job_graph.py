"""Which jobs a request plans, and what makes a finished job run again.

One small run is finished once; each test changes something and asks for a dry run.
"""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.conftest import copy_workflow, planned_jobs, snakemake
from workflow_scripts.hear2021.run import versions

VARIANT, TASK = "mn04_seeded_e1", "mini_vowels"
PAIR = f"results/scores/{VARIANT}/{TASK}.json"
FIGURE = "results/published/figures/mels.svg"


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A copy of the workflow in which one pair and one figure are finished."""
    folder = copy_workflow(tmp_path_factory.mktemp("finished"))
    change_config(folder, variants=["mn04_seeded_e1", "mn04_seeded_e1_l"], grid_points=1)
    result = snakemake(folder, "-j2", PAIR, FIGURE)
    assert result.returncode == 0, result.stdout
    return folder


@pytest.fixture
def folder(finished, tmp_path) -> Path:
    """That copy, to be changed by one test."""
    return shutil.copytree(finished, tmp_path / "copy", symlinks=True)


def change_config(folder: Path, **changes) -> None:
    path = folder / "config/config.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | changes))


def replace(path: Path, pattern: str, replacement: str) -> None:
    text, count = re.subn(pattern, replacement, path.read_text())
    assert count, f"{pattern} is not in {path}"
    path.write_text(text)


def test_the_study_embeds_each_checkpoint_once_on_each_task(tmp_path):
    jobs = planned_jobs(copy_workflow(tmp_path), "--configfile", "config/hear2021.yaml")
    assert jobs["embed"] == 5 * 20
    assert jobs["evaluate"] + jobs["evaluate_on_gpu"] == 14 * 20
    assert jobs["prepare_task"] == 20


def test_a_score_file_as_target_builds_what_its_pair_needs_and_no_more(tmp_path):
    pair = "results/scores/mn10_as_e1_l/esc50-v2.0.0-full.json"
    jobs = planned_jobs(copy_workflow(tmp_path), pair)
    jobs.pop("total", None)
    assert jobs == {
        "embed": 1,
        "evaluate": 1,
        "fetch_checkpoint": 1,
        "fetch_task": 1,
        "prepare_task": 1,
    }


def test_weights_and_archives_of_a_run_can_be_fetched_ahead(tmp_path):
    targets = ["fetch_weights", "fetch_tasks", "--configfile", "config/hear2021.yaml"]
    assert planned_jobs(copy_workflow(tmp_path), *targets) == {
        "fetch_checkpoint": 5,
        "fetch_task": 20,
        "fetch_tasks": 1,
        "fetch_weights": 1,
    }


def test_an_estimate_is_printed_before_anything_is_there(tmp_path):
    folder = copy_workflow(tmp_path)
    result = snakemake(folder, "estimate", "-j1", "--configfile", "config/hear2021.yaml")
    assert result.returncode == 0, result.stdout
    assert "Disk in all: 316.6 GB" in result.stdout
    assert not (folder / "results/scratch").exists()


def test_a_real_task_is_evaluated_by_the_whole_protocol_whatever_else_the_run_is(tmp_path):
    pair = "results/scores/mn10_as_e1_l/esc50-v2.0.0-full.json"
    planned = snakemake(copy_workflow(tmp_path), "-n", "-p", "-j2", pair).stdout
    assert "--grid-points 8 --seeds 1" in planned


def test_nothing_of_the_mini_run_is_part_of_a_run_of_its_own(tmp_path):
    folder = copy_workflow(tmp_path)
    weights, archive = folder / "weights.pt", folder / "esc50"
    weights.touch()
    archive.mkdir()
    change_config(
        folder,
        weights={"mn04_as": "weights.pt"},
        task_sources={"esc50-v2.0.0-full": "esc50"},
        notice="of the mini run",
        seeds=3,
    )
    pair = "results/scores/mn04_as_e1_l/esc50-v2.0.0-full.json"
    planned = snakemake(
        folder, "-n", "-p", "-j2", "--configfile", "config/hear2021.yaml", "--", pair
    ).stdout
    assert "--seeds 1" in planned
    assert "weights.pt" not in planned
    assert "--local=esc50" not in planned
    planned = snakemake(folder, "-n", "-p", "-j2", pair).stdout
    assert "--seeds 3" in planned
    assert "weights.pt" in planned
    assert "--local=esc50" in planned


def test_a_finished_pair_plans_nothing(folder):
    assert planned_jobs(folder, PAIR) == {}


def test_one_more_variant_within_the_embedded_parts_adds_no_embedding_job(folder):
    jobs = planned_jobs(folder, PAIR, f"results/scores/mn04_seeded_e1_l/{TASK}.json")
    assert "embed" not in jobs
    assert jobs["evaluate"] == 1


def test_one_more_variant_with_a_new_part_embeds_that_part_and_repeats_nothing(folder):
    change_config(folder, variants=["mn04_seeded_e1", "mn04_seeded_e1_mels"], grid_points=1)
    jobs = planned_jobs(folder, PAIR, f"results/scores/mn04_seeded_e1_mels/{TASK}.json")
    assert (jobs["embed"], jobs["evaluate"]) == (1, 1)


def test_a_shorter_list_of_variants_repeats_nothing(folder):
    change_config(folder, variants=["mn04_seeded_e1"], grid_points=1)
    assert planned_jobs(folder, PAIR) == {}


def test_a_task_row_that_says_another_metric_has_the_data_checked_again(folder):
    replace(folder / "config/tasks.csv", r"(?m)^(mini_vowels,.*),top1_acc,", r"\1,mAP,")
    assert planned_jobs(folder, PAIR)["prepare_task"] == 1


def test_an_edited_docstring_repeats_nothing(folder):
    for path in folder.glob("workflow_scripts/**/*.py"):
        path.write_text(path.read_text() + "\n# edited\n")
    assert planned_jobs(folder, PAIR) == {}


def test_touched_files_and_a_fresh_checkout_repeat_nothing(folder):
    for pattern in ("**/*.py", "rules/*", "config/*", "results/scratch/**/*.*"):
        for path in sorted(folder.glob(pattern)):
            if path.is_file():
                path.touch()
    assert planned_jobs(folder, PAIR) == {}


@pytest.mark.parametrize(
    ("stage", "repeated"),
    [
        ("EVALUATE", {"evaluate"}),
        ("EMBED", {"embed", "evaluate"}),
        ("PREPARE", {"prepare_task", "embed", "evaluate"}),
    ],
)
def test_a_raised_stage_version_repeats_that_stage_and_what_follows(folder, stage, repeated):
    replace(
        folder / "workflow_scripts/hear2021/run/versions.py", rf"\b{stage} = \d+", f"{stage} = 99"
    )
    jobs = planned_jobs(folder, PAIR)
    assert set(jobs) - {"total"} == repeated


def test_a_raised_version_of_reports_repeats_tables_whatever_numbers_the_run_has(folder):
    means = "results/published/tables/means.csv"
    change_config(folder, grid_points=versions.REPORT + 1, seeds=versions.REPORT)
    assert snakemake(folder, "-j1", means).returncode == 0
    path = folder / "workflow_scripts/hear2021/run/versions.py"
    replace(path, r"\bREPORT = \d+", f"REPORT = {versions.REPORT + 1}")
    assert planned_jobs(folder, means)["aggregate"] == 1


def test_a_changed_command_of_a_rule_repeats_nothing_with_the_triggers_of_the_profile(
    folder, repository
):
    profile = yaml.safe_load((repository / "slurm/profile.v9+.yaml").read_text())
    replace(folder / "rules/embed.smk", " --performance {", "  --performance {")
    assert planned_jobs(folder, "--rerun-triggers", *profile["rerun-triggers"], "--", PAIR) == {}
    assert "embed" in planned_jobs(folder, PAIR)  # which README.md says


@pytest.mark.parametrize(
    ("column", "value"), [("hop", "160"), ("strides", "2 2 2 1"), ("sha256", "0" * 64)]
)
def test_another_front_end_network_or_hash_embeds_again(folder, column, value):
    table = folder / "config/checkpoints.csv"
    header, *rows = table.read_text().splitlines()
    index = header.split(",").index(column)
    changed = []
    for row in rows:
        cells = row.split(",")
        if cells[0] == "mn04_seeded":
            cells[index] = value
        changed.append(",".join(cells))
    table.write_text("\n".join([header, *changed, ""]))
    assert {"embed", "evaluate"} <= set(planned_jobs(folder, PAIR))


def test_other_weights_embed_again(folder):
    weights = folder / "other.pt"
    weights.write_bytes(b"other weights")
    change_config(
        folder,
        variants=["mn04_seeded_e1", "mn04_seeded_e1_l"],
        grid_points=1,
        weights={"mn04_seeded": "other.pt"},
    )
    assert {"fetch_checkpoint", "embed", "evaluate"} <= set(planned_jobs(folder, PAIR))


@pytest.mark.parametrize("killed", [False, True])
def test_what_a_failed_job_did_not_make_again_stays_to_be_made(folder, killed):
    if killed:
        kill = "import os; os.kill(os.getpid(), 9)"
        replace(folder / "rules/lifecycle.smk", r"LIFECYCLE\.report_unfinished\(\)", kill)
    (folder / "broken.pt").write_bytes(b"no weights")
    change_config(folder, weights={"mn04_seeded": "broken.pt"})
    assert snakemake(folder, "-j2", PAIR).returncode != 0
    assert (folder / PAIR).exists()  # of the weights of before
    snakemake(folder, "--unlock")
    assert {"embed", "evaluate"} <= set(planned_jobs(folder, PAIR))


def test_after_ctrl_c_while_tables_are_made_the_same_command_goes_on(folder):
    interrupt = "[ -e told ] || (touch told; kill -INT $PPID; sleep 9); "
    command = "python -m workflow_scripts.aggregate"
    with (folder / "Snakefile").open("a") as snakefile:  # where tests run in the background
        snakefile.write("import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n")
    replace(folder / "rules/report.smk", command, interrupt + command)
    means = "results/published/tables/means.csv"
    assert snakemake(folder, "-j1", means).returncode != 0
    assert (folder / means).exists()
    assert planned_jobs(folder, means)["aggregate"] == 1


def test_a_report_of_an_unfinished_run_is_made_again_though_no_score_has_changed(folder):
    means, own = "results/mini/tables/means.csv", folder / "mine.tar.gz"
    change_config(folder, variants=["mn04_seeded_e1"], tasks=[TASK])
    assert snakemake(folder, "-j2", means).returncode == 0
    own.write_bytes(b"no archive")
    change_config(folder, tasks=[TASK, "mini_pitch"], task_sources={"mini_pitch": own.name})
    assert snakemake(folder, "-j2", means).returncode != 0
    change_config(folder, tasks=[TASK], task_sources={})
    assert planned_jobs(folder, means)["aggregate"] == 1


def test_other_task_data_are_prepared_and_embedded_again(folder):
    shutil.copy(folder / f"results/scratch/archives/{TASK}.tar.gz", folder / "mine.tar.gz")
    change_config(folder, task_sources={TASK: "mine.tar.gz"})
    planned = set(planned_jobs(folder, PAIR))
    assert {"fetch_task", "prepare_task", "embed", "evaluate"} <= planned


@pytest.mark.parametrize(
    ("key", "name", "target"),
    [
        ("task_sources", TASK, f"results/scratch/archives/{TASK}.json"),
        ("weights", "mn04_seeded", "results/scratch/weights/mn04_seeded.json"),
    ],
)
def test_a_file_of_ones_own_that_changes_where_it_is_counts_as_another(folder, key, name, target):
    file = folder / "mine"
    file.write_bytes(b"as it was")
    change_config(folder, **{key: {name: "mine"}})
    assert snakemake(folder, "-j1", target).returncode == 0
    assert planned_jobs(folder, target) == {}
    file.write_bytes(b"as it is")
    assert sum(planned_jobs(folder, target).values()) == 1


@pytest.mark.parametrize(("gpus", "threads"), [("", 4), ("0", 4), ("0,1", 2)])
def test_gpus_get_a_job_each_and_without_one_a_job_gets_all_cores(
    folder, monkeypatch, gpus, threads
):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", gpus)
    (embeddings,) = folder.glob(f"results/scratch/embeddings/mn04_seeded/{TASK}/*.npy")
    target = str(embeddings.relative_to(folder))
    result = snakemake(folder, "-j4", "--benchmark-extended", "-R", "embed", "--", target)
    assert result.returncode == 0, result.stdout
    (benchmark,) = folder.glob(f"results/benchmarks/embed/mn04_seeded/{TASK}/*.jsonl")
    assert json.loads(benchmark.read_text().splitlines()[-1])["threads"] == threads


@pytest.mark.parametrize("setting", ["grid_points", "seeds"])
def test_another_number_of_grid_points_or_seeds_evaluates_again_and_embeds_nothing(folder, setting):
    for number in (versions.EVALUATE, 3):  # also one that another parameter of the rule has
        change_config(folder, **{setting: number})
        assert set(planned_jobs(folder, PAIR)) - {"total"} == {"evaluate"}


def test_another_precision_embeds_again(folder):
    change_config(folder, precision="float32")
    assert {"embed", "evaluate"} <= set(planned_jobs(folder, PAIR))


def test_lost_scores_are_made_from_the_embeddings_that_are_there(folder):
    (folder / PAIR).unlink()
    assert set(planned_jobs(folder, PAIR)) - {"total"} == {"evaluate"}


def test_every_lost_file_of_a_report_is_made_again(folder):
    change_config(folder, variants=["mn04_seeded_e1"], tasks=[TASK], grid_points=1)
    assert snakemake(folder, "-j2").returncode == 0
    assert planned_jobs(folder) == {}
    report = folder / "results/mini"
    for file in [*report.glob("tables/*"), *report.glob("figures/by_task.*"), report / "claims.md"]:
        aside = file.rename(folder / "aside")
        assert "all" in planned_jobs(folder), file
        aside.rename(file)


def test_other_models_in_a_figure_draw_it_again(folder):
    assert planned_jobs(folder, FIGURE) == {}
    models = ["mn40_as_ext_e1_l", "mn40_as_ext_e1_l_mels"]
    replace(folder / "config/figures.csv", ";".join(models), ";".join(reversed(models)))
    assert planned_jobs(folder, FIGURE)["plot"] == 1


def test_a_module_called_as_a_published_system_is_refused(folder):
    table = folder / "config/checkpoints.csv"
    columns = len(table.read_text().splitlines()[0].split(","))
    cells = ["PaSST", "module", *[""] * (columns - 2)]
    names = table.read_text().splitlines()[0].split(",")
    cells[names.index("sample_rate")], cells[names.index("module")] = "32000", "hear21passt.base"
    table.write_text(table.read_text() + ",".join(cells) + "\n")
    change_config(folder, variants=["PaSST"])
    result = snakemake(folder, "-n", "-j1")
    assert "variants: PaSST is a system of config/published_systems.csv" in result.stdout
    assert "Traceback" not in result.stdout


def test_a_mistake_in_the_configuration_is_one_message_and_no_traceback(folder):
    change_config(folder, tasks=["mini_vowel"])
    result = snakemake(folder, "-n", "-j1")
    assert result.returncode != 0
    assert "'mini_vowel' is not a row of config/tasks.csv. Did you mean mini_vowels" in (
        result.stdout
    )
    assert "Traceback" not in result.stdout


def test_the_process_of_every_job_reads_the_snakefile_without_slow_imports(repository):
    rules = "".join(path.read_text() for path in (repository / "rules").glob("*.smk"))
    modules = re.findall(r"^from ((?:hear_mn|workflow_scripts)\S*) import", rules, re.MULTILINE)
    slow = {"torch", "pandas", "matplotlib", "scipy", "sklearn", "numba", "heareval", "requests"}
    code = f"import sys, {', '.join(modules)}\nassert not {slow} & sys.modules.keys()"
    assert len(modules) > 10
    subprocess.run([sys.executable, "-c", code], check=True)
