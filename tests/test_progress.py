"""What a run tells people, and its table of performance."""

import logging
import os
from pathlib import Path

import pytest

from workflow_scripts.hear2021.run.progress import Job, RunMessages, gather_performance, on_gpu
from workflow_scripts.hear2021.run.site import running_jobs


@pytest.fixture
def messages(tmp_path) -> tuple[RunMessages, list[str]]:
    lines: list[str] = []
    messages = RunMessages(lines.append, lambda variant, task: 0.75)
    log = tmp_path / "embed.log"
    log.write_text("reading\nRuntimeError: CUDA out of memory\n")
    pair = {"variant": "mn04_as_e1", "task": "esc50"}
    jobs = {
        1: Job("embed", {"checkpoint": "mn04_as", "task": "esc50"}, 30, str(log)),
        2: Job("evaluate", pair, 10, str(tmp_path / "2.log"), {1}),
        3: Job("evaluate", {"variant": "mn04_as_l", "task": "esc50"}, 10, None, {1}),
    }
    messages.begin(jobs, lambda: 1)
    return messages, lines


def happened(messages: RunMessages, event: str, **fields) -> None:
    record = logging.LogRecord("snakemake", logging.INFO, "", 0, "", None, None)
    vars(record).update({"event": event} | fields)
    messages.emit(record)


def test_a_finished_pair_is_one_line_with_counts_and_an_estimate(messages):
    follower, lines = messages
    for number in (1, 2):
        happened(follower, "job_info", jobid=number)
        happened(follower, "job_finished", job_id=number)
    assert lines[-1].startswith(
        "mn04_as_e1 on esc50: 0.7500 | 1 of 2 pairs | jobs: 2 done, 0 running, 1 waiting | about "
    )


def test_the_time_left_is_that_of_the_work_and_not_of_downloads():
    lines: list[str] = []
    follower = RunMessages(lines.append, lambda variant, task: 0.75)
    pair = {"variant": "mn04_as_e1", "task": "esc50"}
    jobs = {1: Job("evaluate", pair, 10), 2: Job("fetch_task", {"task": "fsd50k"}, 1440)}
    follower.begin(jobs)
    happened(follower, "job_info", jobid=1)
    happened(follower, "job_finished", job_id=1)
    assert lines[-1].endswith("1 of 1 pairs | jobs: 1 done, 0 running, 1 waiting")


def test_the_summary_names_what_failed_why_and_what_waits_for_it(messages, tmp_path):
    follower, lines = messages
    log = str(tmp_path / "embed.log")
    happened(follower, "job_info", jobid=1)
    happened(follower, "job_error", jobid=1, rule_msg="SLURM status is: 'FAILED'", log=[log])
    assert lines == [
        "Failed: embed mn04_as on esc50: RuntimeError: CUDA out of memory | "
        "SLURM status is: 'FAILED'"
    ]
    summary = follower.summary([], Path("results/performance.csv"))
    assert "Pairs: 0 of 2 done" in summary
    assert f"    log: {log}" in summary
    assert "Not run: 2 more jobs, 2 of them pairs" in summary
    reasons = follower.reasons()
    assert reasons["mn04_as_l", "esc50"].startswith("embed mn04_as on esc50 failed: RuntimeError")


def test_a_job_that_was_tried_again_with_success_is_no_failure(messages):
    follower, _ = messages
    happened(follower, "job_info", jobid=1)
    happened(follower, "job_error", jobid=1, rule_msg=None, log=[])
    happened(follower, "job_info", jobid=1)
    happened(follower, "job_finished", job_id=1)
    assert "Failed" not in follower.summary([], Path("performance.csv"))


def test_the_performance_table_joins_benchmarks_with_what_jobs_measured(tmp_path):
    names = "embed/mn04_as/esc50/e1-l"
    for path, content in {
        f"benchmarks/{names}.jsonl": '{"s": 12.5, "cpu_time": 20.0, "max_rss": 900.0}\n',
        f"performance/{names}.json": '{"device": "H200", "clips_per_second": 400.0,'
        ' "peak_gpu_memory_bytes": 2000000, "slurm_job_id": "17", "cuda_visible_devices": "0"}',
        "benchmarks/prepare_task/esc50/32000.jsonl": '{"s": 3.0}\n',
    }.items():
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    embed, prepare = gather_performance(tmp_path, {"mn04_as", "mn04_as_e1"}, {"esc50"})
    assert gather_performance(tmp_path, {"mn10_as"}, {"fsd50k"}) == []
    assert (embed["model"], embed["task"], embed["parts"]) == ("mn04_as", "esc50", "e1-l")
    assert (embed["seconds"], embed["device"], embed["slurm_job_id"]) == (12.5, "H200", "17")
    assert embed["peak_gpu_memory_mb"] == 2.0
    assert (prepare["rule"], prepare["task"], prepare["seconds"]) == ("prepare_task", "esc50", 3.0)


def test_an_evaluation_of_a_task_with_dots_in_its_name_keeps_its_measures(tmp_path):
    pair = Path("mn04_as_e1", "esc50-v2.0.0-full")
    for path, content in {
        f"benchmarks/evaluate/{pair}.jsonl": '{"s": 60.0}\n',
        f"scores/{pair}.json": '{"provenance": {"device": "H200"}}',
    }.items():
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    (row,) = gather_performance(tmp_path, {pair.parent.name}, {pair.name})
    assert row["device"] == "H200"
    assert on_gpu(row)


def test_a_squeue_that_fails_during_a_run_costs_a_progress_line_its_count_and_no_job(
    tmp_path, monkeypatch
):
    squeue = tmp_path / "squeue"
    squeue.write_text("#!/bin/sh\necho 'Socket timed out' >&2\nexit 1\n")
    squeue.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    messages = RunMessages(lambda line: None, lambda variant, task: 0.5)
    jobs = {1: Job("embed", {"checkpoint": "mn04_as", "task": "esc50"}, 30, started=1.0)}
    messages.begin(jobs, lambda: running_jobs("hear-mn", tmp_path))
    assert "0 done, 1 running, 0 waiting" in messages.counts()


def test_a_message_that_cannot_be_made_ends_no_run(capsys):
    def read_score(variant, task):
        raise FileNotFoundError("esc50.json")

    messages = RunMessages(lambda line: None, read_score)
    messages.begin({1: Job("evaluate", {"variant": "mn04_as_e1", "task": "esc50"}, 10)})
    happened(messages, "job_finished", job_id=1)
    assert "FileNotFoundError: esc50.json" in capsys.readouterr().err
    assert "1 of 1 pairs" in messages.counts()
