"""The benchmark on a real SLURM: the same scores as on one machine, whatever happens on the way.

The cluster is one node on the loopback (tests/slurm_lab.py). Nothing of the profile is replaced but
the site's settings; the tests of faults look at their jobs sooner than the profile would.
"""

import csv
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import pytest
import yaml

from tests.benchmarks.stock_runner import comparable
from tests.conftest import copy_workflow, snakemake
from tests.slurm_lab import Lab, LabError, slurm_lab, wait_for

SITE = {
    "account": None,
    "cpu_partition": "cpu",
    "gpu_partition": "gpu",
    "gpu_model": None,
    "gres": None,
    "max_minutes": 1440,
}
MINI = ["--configfile", "config/config.yaml", "--profile", "slurm"]
IMPATIENT = ["--slurm-init-seconds-before-status-checks", "2", "--latency-wait", "5"]
PATIENCE = 400  # seconds; a loaded machine may be ten times slower than an idle one

TASK, OTHER_TASK = "mini_vowels", "mini_voices"
PAIRS = [("mn04_seeded_all_se_mels", TASK), ("mn04_seeded_mels", TASK)]


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """One cluster for all tests."""
    try:
        cluster = slurm_lab()
        running = cluster.__enter__()
    except LabError as error:
        pytest.skip(f"no SLURM for tests: {error}")
    try:
        yield running
    finally:
        cluster.__exit__(None, None, None)


@pytest.fixture(scope="session")
def local(mini) -> Path:
    """The mini benchmark, finished on this machine alone."""
    return mini


@pytest.fixture
def embedded(local, tmp_path) -> Path:
    """A copy of the finished run without the scores of PAIRS, to be run on the cluster."""
    folder = shutil.copytree(local, tmp_path / "copy", symlinks=True)
    for pair in scores_of(*PAIRS):
        (folder / pair).unlink()
    write_site(folder)
    return folder


@pytest.fixture
def prepared(embedded) -> Path:
    """That copy, also without the embeddings of the pairs' task."""
    shutil.rmtree(embedded / f"results/scratch/embeddings/mn04_seeded/{TASK}")
    return embedded


def write_site(folder: Path, **changes) -> None:
    (folder / "slurm/site.yaml").write_text(yaml.safe_dump({"site": SITE | changes}))


def scores_of(*pairs: tuple[str, str]) -> list[str]:
    return [f"results/scores/{variant}/{task}.json" for variant, task in pairs]


def read(path: Path) -> dict:
    return json.loads(path.read_text())


def numbers(path: Path) -> str:
    """Everything in a score file but when, where and how fast it was made."""
    result = read(path)
    same_path = {"embedding_path": result["embedding_path"]}
    return json.dumps(comparable(result) | same_path, indent=1)


def assert_same_scores(folder: Path, local: Path, *pairs: tuple[str, str]) -> None:
    for score in scores_of(*pairs):
        assert numbers(folder / score) == numbers(local / score), score


class Run:
    """`snakemake --profile slurm` in the background."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.folder = folder
        self.log = folder / f"run-{time.monotonic_ns()}.txt"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "snakemake", *MINI, *IMPATIENT, *arguments],
                cwd=folder,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ | {"PYTHONPATH": str(folder)},
                start_new_session=True,
            )

    @property
    def output(self) -> str:
        return self.log.read_text()

    def finish(self) -> str:
        """Wait for the end and return the output."""
        try:
            self.process.wait(PATIENCE)
        finally:
            self.stop()
        return self.output

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def wait_for_process(self, script: str) -> int:
        """Wait until a job of this run executes workflow_scripts/<script>.py; return its pid."""
        wait_for(lambda: processes(self.folder, script), PATIENCE, lambda: self.output)
        return processes(self.folder, script)[0]


@pytest.fixture
def start() -> Iterator[Callable[..., Run]]:
    """Start runs that are over when the test is."""
    runs: list[Run] = []

    def start_run(folder: Path, *arguments: str) -> Run:
        runs.append(Run(folder, *arguments))
        return runs[-1]

    yield start_run
    for run in runs:
        run.stop()


def processes(folder: Path, script: str) -> list[int]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            arguments = (process / "cmdline").read_bytes().split(b"\0")
            here = (process / "cwd").readlink() == folder
        except OSError:
            continue
        if here and f"workflow_scripts.{script}".encode() in arguments:
            found.append(int(process.name))
    return found


def finished_files(folder: Path) -> dict[str, int]:
    """What is finished, by when it was written."""
    return {
        str(path.relative_to(folder)): path.stat().st_mtime_ns
        for path in [
            *folder.glob("results/scratch/*/**/[!.]*.*"),
            *folder.glob("results/scores/*/*.json"),
        ]
        if path.is_file()
    }


def assert_untouched(folder: Path, before: dict[str, int]) -> None:
    after = finished_files(folder)
    assert {path: after.get(path) for path in before} == before


def job_of(lab: Lab, folder: Path, rule: str) -> int:
    """The newest job of a rule of a run in `folder` that SLURM still has in its queue."""
    lines = lab.command("squeue", "-h", "-t", "PENDING,RUNNING", "-o", "%i|%Z|%k").splitlines()
    jobs = [line.split("|", 2) for line in lines]
    return max(
        (
            int(number)
            for number, working_directory, comment in jobs
            if Path(working_directory) == folder and comment.startswith(f"rule_{rule}")
        ),
        default=0,
    )


def jobs_in(lab: Lab, folder: Path) -> dict[int, dict[str, str]]:
    return {
        number: job for number, job in lab.finished_jobs().items() if Path(job["WorkDir"]) == folder
    }


def span(job: dict[str, str]) -> tuple[datetime, datetime]:
    return datetime.fromisoformat(job["StartTime"]), datetime.fromisoformat(job["EndTime"])


# --- The whole ---------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def on_cluster(lab, local, tmp_path_factory) -> tuple[Path, str]:
    """The mini benchmark, finished on the cluster with the profile as it is, and its output."""
    folder = copy_workflow(tmp_path_factory.mktemp("cluster"))
    write_site(folder)
    result = snakemake(folder, *MINI, "results/mini/tables/scores.csv")
    assert result.returncode == 0, result.stdout
    return folder, result.stdout


@pytest.fixture(scope="session")
def performance(on_cluster) -> list[dict[str, str]]:
    """The table that the run on the cluster gathered."""
    with (on_cluster[0] / "results/mini/performance.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def all_pairs(local: Path) -> list[tuple[str, str]]:
    return [(path.parent.name, path.stem) for path in local.glob("results/scores/*/*.json")]


def test_the_mini_benchmark_has_the_scores_of_the_local_run(on_cluster, local):
    pairs = all_pairs(local)
    assert pairs
    assert_same_scores(on_cluster[0], local, *pairs)


def test_every_job_ran_under_slurm(on_cluster, performance, lab):
    finished = jobs_in(lab, on_cluster[0])
    measured = [row for row in performance if row["rule"] in {"embed", "evaluate"}]
    assert len(measured) > len(all_pairs(on_cluster[0]))
    assert {int(row["slurm_job_id"]) for row in measured} <= set(finished)
    assert {job["JobState"] for job in finished.values()} == {"COMPLETED"}


def test_every_gpu_job_saw_one_gpu_and_no_other_job_had_it_meanwhile(on_cluster, performance, lab):
    finished = jobs_in(lab, on_cluster[0])
    held: dict[str, list[tuple[datetime, datetime]]] = {}
    for row in performance:
        if row["rule"] == "embed":
            assert row["cuda_visible_devices"] in {"0", "1"}
            held.setdefault(row["cuda_visible_devices"], []).append(
                span(finished[int(row["slurm_job_id"])])
            )
        else:
            assert row["cuda_visible_devices"] == ""
    for spans in held.values():
        spans.sort()
        for (_, end), (begin, _) in itertools.pairwise(spans):
            assert end <= begin


def test_jobs_got_the_cores_and_partitions_they_asked_for(on_cluster, performance, lab):
    finished = jobs_in(lab, on_cluster[0])
    for row in performance:
        if row["rule"] == "embed":
            job = finished[int(row["slurm_job_id"])]
            assert (job["ProcCnt"], job["Partition"]) == ("4", "gpu")
        if row["rule"] == "evaluate":
            job = finished[int(row["slurm_job_id"])]
            assert (job["ProcCnt"], job["Partition"], row["threads"]) == ("1", "cpu", "1")


def test_short_evaluations_of_a_task_share_a_job(performance):
    evaluations = [row for row in performance if row["rule"] == "evaluate"]
    jobs = {(row["slurm_job_id"], row["task"]) for row in evaluations}
    assert len(jobs) == len({task for _, task in jobs}) < len(evaluations)


def test_a_run_says_how_far_it_is_and_at_the_end_what_became_of_it(on_cluster):
    output = on_cluster[1]
    pairs = len(all_pairs(on_cluster[0]))
    lines = re.findall(r"^\S+ on \S+: \d\.\d{4} \| (\d+) of \d+ pairs \| jobs: ", output, re.M)
    assert [int(number) for number in lines] == list(range(1, pairs + 1))
    assert f"Pairs: {pairs} of {pairs} done" in output
    assert "GPU hours of all finished jobs" in output
    assert "Longest jobs" in output


# --- Settings ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gpu_partition": "gpus"}, "gpu_partition: SLURM has no partition 'gpus'. It has: cpu"),
        ({"gpu_model": "a100"}, "gpu_model: the partition 'gpu' has no GPU of type 'a100'"),
        ({"constraint": "nvme"}, "Invalid feature specification"),
        ({"max_minutes": 20_000}, "max_minutes: 20000, and the partition 'cpu' takes jobs of at"),
    ],
)
def test_a_wrong_setting_is_one_message_before_anything_is_submitted(
    changes, message, lab, embedded
):
    write_site(embedded, **changes)
    result = snakemake(embedded, *MINI, *scores_of(*PAIRS))
    assert result.returncode != 0
    assert message in result.stdout
    assert "Nothing was submitted" in result.stdout
    assert "Traceback" not in result.stdout
    assert jobs_in(lab, embedded) == {}


def test_without_settings_the_message_says_how_to_make_them(lab, embedded):
    (embedded / "slurm/site.yaml").unlink()
    result = snakemake(embedded, *MINI, *scores_of(*PAIRS))
    assert result.returncode != 0
    assert "cp slurm/site.example.yaml slurm/site.yaml" in result.stdout
    assert jobs_in(lab, embedded) == {}


def test_the_example_settings_are_complete(lab, embedded):
    shutil.copy(embedded / "slurm/site.example.yaml", embedded / "slurm/site.yaml")
    result = subprocess.run(
        [sys.executable, "-m", "workflow_scripts.hear2021.run.site"],
        cwd=embedded,
        text=True,
        capture_output=True,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert "partition gpu" in result.stdout


# --- Faults ------------------------------------------------------------------------------------


def test_a_cancelled_job_is_tried_again(lab, embedded, local, start):
    run = start(embedded, *scores_of(*PAIRS[:1]))
    run.wait_for_process("evaluate")
    before = finished_files(embedded)
    cancelled = job_of(lab, embedded, "evaluate")
    lab.command("scancel", str(cancelled))
    output = run.finish()
    assert run.process.returncode == 0, output
    assert jobs_in(lab, embedded)[cancelled]["JobState"] == "CANCELLED"
    assert_same_scores(embedded, local, *PAIRS[:1])
    assert_untouched(embedded, before)


def test_a_killed_evaluation_does_not_cost_the_finished_ones_of_its_job(
    lab, embedded, local, start
):
    run = start(embedded, *scores_of(*PAIRS))
    wait_for(lambda: kept(embedded), PATIENCE, lambda: run.output)
    (first,) = kept(embedded)
    seconds = read(first)["scores"]["provenance"]["seconds"]
    wait_for(
        lambda: [
            process
            for process in processes(embedded, "evaluate")
            if first.stem.removeprefix(".") not in command(process)
        ],
        PATIENCE,
        lambda: run.output,
    )
    before = finished_files(embedded)
    before = {path: when for path, when in before.items() if "/scores/" not in path}
    os.kill(processes(embedded, "evaluate")[0], signal.SIGKILL)
    output = run.finish()
    assert run.process.returncode == 0, output
    assert "FAILED" in {job["JobState"] for job in jobs_in(lab, embedded).values()}
    variant = first.stem.removeprefix(".")
    again = read(embedded / f"results/scores/{variant}/{TASK}.json")
    assert again["provenance"]["seconds"] == seconds
    assert_same_scores(embedded, local, *PAIRS)
    assert_untouched(embedded, before)
    assert kept(embedded) == []


def kept(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"results/scratch/embeddings/mn04_seeded/{TASK}/.*.scores"))


def command(process: int) -> str:
    try:
        return Path(f"/proc/{process}/cmdline").read_text()
    except OSError:
        return ""


def test_a_requeued_job_runs_again(lab, embedded, local, start):
    run = start(embedded, *scores_of(*PAIRS[:1]))
    run.wait_for_process("evaluate")
    before = finished_files(embedded)
    requeued = job_of(lab, embedded, "evaluate")
    lab.command("scontrol", "requeue", str(requeued))
    wait_for(lambda: not processes(embedded, "evaluate"), 60)
    # SLURM would let it wait for two minutes.
    wait_for(lambda: lab.command("squeue", "-h", "-j", str(requeued), "-o", "%T") == "PENDING", 60)
    lab.command("scontrol", "update", f"JobId={requeued}", "StartTime=now")
    output = run.finish()
    assert run.process.returncode == 0, output
    assert "Failed" not in output
    assert_same_scores(embedded, local, *PAIRS[:1])
    assert_untouched(embedded, before)


def test_a_drained_node_holds_jobs_up_and_loses_none(lab, embedded, local, start):
    before = finished_files(embedded)
    node = f"NodeName={lab.host}"
    lab.command("scontrol", "update", node, "State=DRAIN", "Reason=test")
    try:
        run = start(embedded, *scores_of(*PAIRS[:1]))
        wait_for(
            lambda: "PENDING" in states(lab, embedded) or run.process.poll() is not None,
            PATIENCE,
            lambda: run.output,
        )
        time.sleep(5)  # the executor looks at the waiting job
        assert states(lab, embedded) == {"PENDING"}, run.output
    finally:
        lab.command("scontrol", "update", node, "State=RESUME")
    output = run.finish()
    assert run.process.returncode == 0, output
    assert "Failed" not in output
    assert_same_scores(embedded, local, *PAIRS[:1])
    assert_untouched(embedded, before)


def states(lab: Lab, folder: Path) -> set[str]:
    lines = lab.command("squeue", "-h", "-o", "%T|%Z").splitlines()
    return {line.split("|")[0] for line in lines if line.endswith(f"|{folder}")}


def test_a_restart_of_the_controller_goes_unnoticed(lab, embedded, local, start):
    run = start(embedded, *scores_of(*PAIRS[:1]))
    run.wait_for_process("evaluate")
    before = finished_files(embedded)
    lab.restart_controller(seconds_down=8)
    output = run.finish()
    assert run.process.returncode == 0, output
    assert "Failed" not in output
    assert_same_scores(embedded, local, *PAIRS[:1])
    assert_untouched(embedded, before)


def test_the_jobs_of_a_killed_run_are_ended_before_the_next_one_writes(lab, prepared, local, start):
    killed = start(prepared, *scores_of(*PAIRS))
    # Stopped, so that it is still there when the next run begins.
    os.kill(killed.wait_for_process("embed"), signal.SIGSTOP)
    before = finished_files(prepared)
    leftover = job_of(lab, prepared, "embed")
    killed.process.kill()
    killed.process.wait()
    assert snakemake(prepared, *MINI, "--unlock").returncode == 0
    run = start(prepared, *scores_of(*PAIRS))
    output = run.finish()
    assert run.process.returncode == 0, output
    assert f"Cancelled the jobs {leftover} of an earlier run" in output
    finished = jobs_in(lab, prepared)
    assert finished[leftover]["JobState"] == "CANCELLED"
    later = [span(job) for number, job in finished.items() if number > leftover]
    assert later
    assert all(span(finished[leftover])[1] <= begin for begin, _ in later)
    assert_same_scores(prepared, local, *PAIRS)
    assert_untouched(prepared, before)


def test_a_job_that_exceeds_its_memory_gets_more(lab, prepared, local, start):
    before = finished_files(prepared)
    run = start(
        prepared, "--set-resources", "embed:mem_mb=200*10**(attempt-1)", "--", *scores_of(*PAIRS)
    )
    output = run.finish()
    assert run.process.returncode == 0, output
    asked = [
        re.search(r"mem=(\w+)", job["Tres"])[1]
        for _, job in sorted(jobs_in(lab, prepared).items())
        if job["Partition"] == "gpu"
    ]
    assert asked == ["200M", "2000M"]
    assert_same_scores(prepared, local, *PAIRS)
    assert_untouched(prepared, before)


def test_a_job_that_exceeds_its_time_gets_more(lab, embedded, local, start):
    before = finished_files(embedded)
    run = start(
        embedded, "--set-resources", "evaluate:runtime=1*attempt", "--", *scores_of(*PAIRS[:1])
    )
    os.kill(run.wait_for_process("evaluate"), signal.SIGSTOP)
    output = run.finish()
    assert run.process.returncode == 0, output
    limits = [
        (job["JobState"], job["TimeLimit"]) for _, job in sorted(jobs_in(lab, embedded).items())
    ]
    assert limits == [("TIMEOUT", "1"), ("COMPLETED", "2")]
    assert_same_scores(embedded, local, *PAIRS[:1])
    assert_untouched(embedded, before)


def test_a_broken_task_leaves_the_others_finished_and_says_why(lab, prepared, local, start):
    (prepared / "broken.tar.gz").write_bytes(b"this is no archive")
    change = {"task_sources": {OTHER_TASK: "broken.tar.gz"}, "tasks": [TASK, OTHER_TASK]}
    change["variants"] = [variant for variant, _ in PAIRS]
    config = yaml.safe_load((prepared / "config/config.yaml").read_text()) | change
    (prepared / "config/config.yaml").write_text(yaml.safe_dump(config))
    for path in prepared.glob(f"results/scores/*/{OTHER_TASK}.json"):
        path.unlink()
    run = start(prepared, "--retries", "0", "--", "results/mini/claims.md")
    output = run.finish()
    assert run.process.returncode != 0
    assert_same_scores(prepared, local, *PAIRS)
    assert "Pairs: 2 of 4 done" in output
    with (prepared / "results/mini/tables/missing.csv").open(newline="") as file:
        missing = {(row["model"], row["task"]): row["reason"] for row in csv.DictReader(file)}
    assert set(missing) == {(variant, OTHER_TASK) for variant, _ in PAIRS}
    assert all("broken.tar.gz" in reason for reason in missing.values()), missing
    assert OTHER_TASK in (prepared / "results/mini/claims.md").read_text()
