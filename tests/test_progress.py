"""What a run tells people, and its table of performance."""

import logging
import math
import os
import re
from pathlib import Path

import pytest

from workflow_scripts.hear2021.run import progress
from workflow_scripts.hear2021.run.performance import gather_performance, on_gpu, write_performance
from workflow_scripts.hear2021.run.progress import Job, RunMessages, WithoutJobEvents, duration
from workflow_scripts.hear2021.run.slurm import running_jobs


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


def test_a_pair_whose_score_is_not_a_number_is_told_where_the_reason_is():
    lines: list[str] = []
    follower = RunMessages(lines.append, lambda variant, task: math.nan)
    follower.begin({1: Job("evaluate", {"variant": "mn04_as_e1", "task": "birds"}, 10)})
    happened(follower, "job_finished", job_id=1)
    assert lines[-1].startswith("mn04_as_e1 on birds: no score (tables/missing.csv) | 1 of")


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


def test_a_job_whose_output_is_not_there_is_a_failure(messages):
    follower, lines = messages
    happened(follower, "job_info", jobid=1)
    happened(
        follower,
        "error",
        exception="MissingOutputException",
        msg="MissingOutputException in rule embed in file embed.smk, line 33:\n"
        "Job 1  completed successfully, but some output files are missing.",
    )
    assert lines == [f"Failed: embed mn04_as on esc50: {progress.NO_OUTPUT}"]
    assert "Not run: 2 more jobs" in follower.summary([], Path("performance.csv"))
    assert "its output is not there" in follower.reasons()["mn04_as_l", "esc50"]


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
    assert gather_performance(tmp_path, {"mn10_as"}, {"esc50"}) == [prepare]
    assert (embed["model"], embed["task"], embed["parts"]) == ("mn04_as", "esc50", "e1-l")
    assert (embed["seconds"], embed["device"], embed["slurm_job_id"]) == (12.5, "H200", "17")
    assert (embed["cpu_seconds"], embed["peak_memory_mb"]) == (20.0, 900.0)
    assert embed["clips_per_second"] == 400.0
    assert embed["peak_gpu_memory_mb"] == 2.0
    assert (prepare["rule"], prepare["task"], prepare["seconds"]) == ("prepare_task", "esc50", 3.0)
    write_performance([embed, prepare], tmp_path / "performance.csv")
    header, first, second = (tmp_path / "performance.csv").read_bytes().split(b"\n")[:3]
    assert header.startswith(b"rule,model,task,parts,seconds,cpu_seconds,peak_memory_mb,")
    assert first.startswith(b"embed,mn04_as,esc50,e1-l,12.5,20.0,900.0,,H200,2.0,")
    assert second == b"prepare_task,,esc50,,3.0,,,,,,,,,,,"


def test_an_evaluation_of_a_task_with_dots_in_its_name_keeps_its_measures(tmp_path):
    pair = Path("mn04_as_e1", "esc50-v2.0.0-full")
    for path, content in {
        f"benchmarks/evaluate/{pair}.jsonl": '{"s": 60.0}\n',
        f"scores/{pair}.json": '{"provenance": {"device": "H200", "seconds": 50.0}}',
    }.items():
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    (row,) = gather_performance(tmp_path, {pair.parent.name}, {pair.name})
    assert (row["rule"], row["model"], row["task"]) == ("evaluate", pair.parent.name, pair.name)
    assert (row["device"], row["seconds"]) == ("H200", 60.0)
    assert on_gpu(row)
    (tmp_path / "scores" / f"{pair}.json").unlink()
    (row,) = gather_performance(tmp_path, {pair.parent.name}, {pair.name})
    assert (row["device"], row["seconds"]) == ("", 60.0)
    assert not on_gpu(row)


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


@pytest.mark.parametrize(
    "line",
    [
        "mini_office:  17%|#7        | 2/12 [00:10<00:50,  5.00s/clip]",
        "3 of 12 classifiers trained",
    ],
)
def test_a_job_that_was_killed_is_told_so_and_not_by_its_progress_alone(messages, tmp_path, line):
    follower, lines = messages
    (tmp_path / "embed.log").write_text(f"reading\n{line}")
    happened(follower, "job_error", jobid=1, rule_msg=None, log=[])
    assert "killed, for want of memory perhaps: its log ends at work, " in lines[-1]


def test_jobs_that_slurm_has_not_begun_are_waiting(messages):
    follower, _ = messages
    happened(follower, "job_info", jobid=1)
    assert "0 of 2 pairs | jobs: 0 done, 1 running, 2 waiting" in follower.counts()
    happened(follower, "job_info", jobid=2)
    assert "0 done, 1 running, 2 waiting" in follower.counts()


def test_the_time_left_follows_from_the_estimates_of_what_was_not_done_here(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    lines = []
    follower = RunMessages(lines.append, lambda variant, task: 0.5)
    task = {"task": "esc50"}
    jobs = {
        1: Job("fetch_task", task, 5),
        2: Job("embed", task | {"checkpoint": "mn04_as"}, 30),
        3: Job("evaluate", task | {"variant": "mn04_as_l"}, 10),
        4: Job("plot", {"benchmark": "mini"}, 10),
    }
    clock[0] = 5000.0
    follower.begin(jobs)
    happened(follower, "job_finished", job_id=1)
    assert follower.counts().endswith("1 done, 0 running, 3 waiting")
    happened(follower, "job_info", jobid=2)
    clock[0] += 3600.0
    happened(follower, "job_finished", job_id=2)
    assert lines == ["embed mn04_as on esc50: done in 60 min"]
    assert follower.counts().endswith("2 done, 0 running, 2 waiting | about 20 min left")
    happened(follower, "job_error", jobid=4)
    assert lines[1:] == ["Failed: plot mini: no log was written"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (89, "89 s"),
        (90, "2 min"),
        (89 * 60, "89 min"),
        (90 * 60, "1 h 30 min"),
        (3 * 3600 + 300, "3 h 05 min"),
        (48 * 3600, "2 d 0 h"),
        (76 * 3600, "3 d 4 h"),
    ],
)
def test_a_time_is_told_in_its_two_largest_units(seconds, text):
    assert duration(seconds) == text


def test_the_summary_of_a_run_without_pairs_counts_its_jobs():
    follower = RunMessages(print, lambda variant, task: 0.75)
    follower.begin({1: Job("plot", {"benchmark": "mini"}, 1), 2: Job("claims", {}, 1)})
    happened(follower, "job_finished", job_id=1)
    assert "Jobs: 1 of 2 done" in follower.summary([], Path("performance.csv"))


def test_the_summary_has_the_five_longest_jobs_and_the_hours_on_gpus(messages):
    follower, _ = messages
    minutes = (0, 3, 6, 2, 5, 1, 4)
    follower.begin({n: Job("embed", {"task": f"of_{n}"}, 30, seconds=60.0 * n) for n in minutes})
    rows = [{"seconds": 1800.0, "device": device} for device in ("H100", "H200", "cpu", "")]
    summary = follower.summary(rows, Path("performance.csv"))
    assert "GPU hours of all finished jobs: 1.00\n" in summary
    assert "Not run" not in summary
    longest = re.findall(r"(\S+ \w+)  embed (\w+)$", summary, re.MULTILINE)
    assert [job for _, job in longest] == ["of_6", "of_5", "of_4", "of_3", "of_2"]
    assert longest[0][0] == "6 min"
    assert summary.endswith("Every job's time, memory and device: performance.csv")


@pytest.mark.parametrize(
    ("number", "log", "said", "why"),
    [
        (2, "reading\nepoch 1\repoch 2\n\n", None, "epoch 2"),
        (2, "m\xe9moire", None, "m\ufffdmoire"),
        (2, "", None, "no log was written"),
        (3, "", None, "no log was written"),
        (3, "", "SLURM: 'TIMEOUT'. For further error details see x", "SLURM: 'TIMEOUT'"),
    ],
)
def test_a_failure_is_told_by_the_last_line_of_the_log_and_by_slurm(
    messages, tmp_path, number, log, said, why
):
    follower, lines = messages
    (tmp_path / "2.log").write_text(log, encoding="latin-1")
    happened(follower, "job_error", jobid=number, rule_msg=said)
    assert lines[0].endswith(f" on esc50: {why}")


def test_jobs_that_share_a_slurm_job_are_told_of_its_log(messages, tmp_path):
    follower, lines = messages
    log = tmp_path / "slurm.log"
    log.write_text("slurmstepd: killed\n")
    members = [{"jobid": 2}, {"jobid": 77}]
    happened(follower, "group_error", job_error_info=members, aux_logs=[log])
    happened(follower, "job_error", jobid=2, log=[tmp_path / "2.log"])
    assert lines == ["Failed: evaluate mn04_as_e1 on esc50: slurmstepd: killed"]
    summary = follower.summary([], Path("performance.csv"))
    assert re.findall(r"log: (.*)", summary) == [str(log)]


def test_a_pair_names_each_failed_job_that_it_needs(messages):
    follower, _ = messages
    for number in (2, 1):
        happened(follower, "job_error", jobid=number)
    assert re.findall(r"(\w+) \S+ on esc50 failed", follower.reasons()["mn04_as_e1", "esc50"]) == [
        "embed",
        "evaluate",
    ]
    happened(follower, "job_finished", job_id=2)
    assert list(follower.reasons()) == [("mn04_as_l", "esc50")]


@pytest.mark.parametrize(
    ("event", "message", "shown"),
    [
        ("job_info", "", False),
        ("job_started", "", False),
        ("job_finished", "", False),
        ("job_error", "", False),
        ("group_info", "", False),
        ("group_error", "", False),
        ("progress", "", False),
        ("shellcmd", "", False),
        (None, "Select jobs to execute...", False),
        (None, "No SLURM account given, trying to guess.", False),
        ("run_info", "Job stats", True),
        (None, "Failed: embed mn04_as on esc50", True),
    ],
)
def test_the_terminal_has_what_snakemake_says_but_not_of_each_job(event, message, shown):
    record = logging.LogRecord("snakemake", logging.INFO, "", 0, message, None, None)
    vars(record).update({"event": event})
    assert WithoutJobEvents().filter(record) == shown
