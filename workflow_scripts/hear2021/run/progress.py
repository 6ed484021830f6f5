"""What a run tells people: a line a finished job, how far it is, and at the end what became of it.

`RunMessages` reads Snakemake's log records and knows no more of Snakemake than their fields, so the
messages are the same on one machine and on a cluster. `lifecycle` connects the two.
"""

import logging
import math
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from workflow_scripts.hear2021.run.performance import on_gpu

EVALUATION_RULES = ("evaluate", "evaluate_on_gpu")
# Whose estimates weigh in the time left: those of a download or a figure tell nothing of it.
WEIGHED_RULES = ("prepare_task", "embed", *EVALUATION_RULES)
# What Snakemake itself would say of every job; its log file keeps it.
JOB_EVENTS = {
    "job_info",
    "job_started",
    "job_finished",
    "job_error",
    "group_info",
    "group_error",
    "progress",
    "shellcmd",
}
ROUTINE = (
    "Select jobs to execute",
    # The executor looks for an account where slurm/site.yaml says that none is needed.
    "No SLURM account given",
    "No account was given",
    "Unable to guess SLURM account",
)
LONGEST_JOBS = 5
NO_OUTPUT = (
    "it ended well, and its output is not there: is the file system slow to show it "
    "(--latency-wait), or did the job write elsewhere?"
)
AT_WORK = re.compile(r"\[\d+:\d\d[:<,]|classifiers trained$")  # a progress bar, an evaluation


@dataclass
class Job:
    """A job of the run as it was planned, and what became of it."""

    rule: str
    wildcards: dict[str, str]
    minutes: float  # its estimate, which weighs it against the others
    log: str | None = None
    needs: set[int] = field(default_factory=set)  # the jobs it waits for, directly or not
    started: float | None = None
    seconds: float | None = None  # from its submission to its end, once it has ended well
    error: str | None = None
    error_logs: list[str] = field(default_factory=list)

    @property
    def subject(self) -> str:
        """What the job is about: variant or checkpoint, and task."""
        of = self.wildcards.get("variant") or self.wildcards.get("checkpoint")
        task = self.wildcards.get("task") or self.wildcards.get("benchmark")
        return " on ".join(part for part in (of, task) if part) or self.rule

    @property
    def is_pair(self) -> bool:
        """Whether the job scores a variant on a task."""
        return self.rule in EVALUATION_RULES


class RunMessages(logging.Handler):
    """Follows a run through Snakemake's log records, once it has begun.

    Args:
        write: takes a line for the terminal and the log file.
        read_score: returns the score of a finished pair, given its variant and task.
    """

    def __init__(
        self, write: Callable[[str], None], read_score: Callable[[str, str], float]
    ) -> None:
        """Begin with no jobs."""
        super().__init__()
        self.jobs: dict[int, Job] = {}
        self._write = write
        self._read_score = read_score
        self._count_running: Callable[[], int | None] | None = None
        self._began = time.monotonic()

    def begin(
        self, jobs: Mapping[int, Job], count_running: Callable[[], int | None] | None = None
    ) -> None:
        """Follow `jobs` from now on.

        Args:
            jobs: the planned jobs by Snakemake's job id.
            count_running: returns how many jobs run, where fewer may run than were handed over;
                None if that is not known.
        """
        self.jobs = dict(jobs)
        self._count_running = count_running
        self._began = time.monotonic()

    def emit(self, record: logging.LogRecord) -> None:
        """Take a record of Snakemake's logger.

        An error is told and goes no further: Snakemake would end the run and its jobs.
        """
        try:
            self._follow(record)
        except Exception:
            self.handleError(record)

    def _follow(self, record: logging.LogRecord) -> None:
        event = str(getattr(record, "event", "") or "")
        if event == "group_error":  # the log of the SLURM job that its members shared
            for member in getattr(record, "job_error_info", []):
                if member["jobid"] in self.jobs:
                    shared = [str(path) for path in getattr(record, "aux_logs", None) or []]
                    self.jobs[member["jobid"]].error_logs = shared
            return
        if getattr(record, "exception", None) == "MissingOutputException":  # no event of the job
            named = re.search(r"^Job (\d+) ", record.getMessage(), re.MULTILINE)
            if named and int(named[1]) in self.jobs:
                lost = self.jobs[int(named[1])]
                lost.error, lost.started = NO_OUTPUT, None
                self._write(f"Failed: {lost.rule} {lost.subject}: {why_failed(lost)}")
            return
        number = getattr(record, "jobid", getattr(record, "job_id", None))
        job = self.jobs.get(number) if isinstance(number, int) else None
        if job is None:
            return
        if event == "job_info":
            job.started, job.error, job.error_logs = time.monotonic(), None, []
        elif event == "job_finished":
            job.seconds = time.monotonic() - (job.started or self._began)
            job.error = None
            self._tell_finished(job)
        elif event == "job_error":
            job.error, job.started = getattr(record, "rule_msg", None) or "failed", None
            logs = [str(path) for path in getattr(record, "log", None) or []]
            job.error_logs = [*logs, *(path for path in job.error_logs if path not in logs)]
            self._write(f"Failed: {job.rule} {job.subject}: {why_failed(job)}")

    def _tell_finished(self, job: Job) -> None:
        if job.is_pair:
            score = self._read_score(job.wildcards["variant"], job.wildcards["task"])
            said = f"{score:.4f}" if math.isfinite(score) else "no score (tables/missing.csv)"
            self._write(f"{job.subject}: {said} | {self.counts()}")
        elif job.minutes > 10:
            self._write(f"{job.rule} {job.subject}: done in {duration(job.seconds or 0)}")

    def counts(self) -> str:
        """Return how far the run is: pairs, jobs and an estimate of the time left."""
        jobs = self.jobs.values()
        pairs = [job for job in jobs if job.is_pair]
        done = [job for job in jobs if job.seconds is not None]
        handed_over = [job for job in jobs if job.seconds is None and job.started is not None]
        running = len(handed_over)
        counted = self._count_running() if self._count_running is not None else None
        if counted is not None:
            running = min(running, counted)
        waiting = len(self.jobs) - len(done) - running
        text = (
            f"{sum(job.is_pair for job in done)} of {len(pairs)} pairs | jobs: {len(done)} done, "
            f"{running} running, {waiting} waiting"
        )
        work_done = sum(job.minutes for job in done if job.rule in WEIGHED_RULES)
        work_left = sum(job.minutes for job in jobs if job.rule in WEIGHED_RULES) - work_done
        if not (work_left and work_done):
            return text
        left = (time.monotonic() - self._began) * work_left / work_done
        return f"{text} | about {duration(left)} left"

    def summary(self, performance: Sequence[Mapping[str, Any]], table: Path) -> str:
        """Return what became of the run, for its end.

        Args:
            performance: rows of `gather_performance`.
            table: where they were written.
        """
        pairs = [job for job in self.jobs.values() if job.is_pair]
        counted = pairs or list(self.jobs.values())  # of a run that only draws, say
        done = [job for job in counted if job.seconds is not None]
        failed = [job for job in self.jobs.values() if job.error]
        lines = [
            f"{'Pairs' if pairs else 'Jobs'}: {len(done)} of {len(counted)} done in "
            f"{duration(self._elapsed())}."
        ]
        for job in failed:
            lines.append(f"Failed: {job.rule} {job.subject}: {why_failed(job)}")
            lines += [f"    log: {path}" for path in job.error_logs if Path(path).exists()]
        left_out = [job for job in self.jobs.values() if job.seconds is None and not job.error]
        if left_out:
            missing = sum(job.is_pair for job in left_out)
            lines.append(
                f"Not run: {len(left_out)} more jobs, {missing} of them pairs. The same command "
                f"again runs what is missing and nothing else."
            )
        hours = sum(row["seconds"] for row in performance if on_gpu(row)) / 3600
        lines.append(f"GPU hours of all finished jobs: {hours:.2f}")
        longest = sorted(
            (job for job in self.jobs.values() if job.seconds is not None),
            key=lambda job: -(job.seconds or 0),
        )[:LONGEST_JOBS]
        if longest:
            lines.append("Longest jobs, with their time in the queue:")
            lines += [
                f"    {duration(job.seconds or 0):>10}  {job.rule} {job.subject}" for job in longest
            ]
        lines.append(f"Every job's time, memory and device: {table}")
        return "\n".join(lines)

    def reasons(self) -> dict[tuple[str, str], str]:
        """Return why pairs (variant, task) have no score, where that is a job that failed."""
        failed = {number: job for number, job in self.jobs.items() if job.error}
        reasons = {}
        for number, pair in self.jobs.items():
            if pair.is_pair and pair.seconds is None:
                because = [failed[other] for other in sorted({number, *pair.needs} & {*failed})]
                if because:
                    reasons[pair.wildcards["variant"], pair.wildcards["task"]] = "; ".join(
                        f"{job.rule} {job.subject} failed: {why_failed(job)}" for job in because
                    )
        return reasons

    def _elapsed(self) -> float:
        return time.monotonic() - self._began


class WithoutJobEvents(logging.Filter):
    """Keeps what Snakemake says of each job from the terminal, for `RunMessages` says it."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a record goes to the terminal."""
        event = str(getattr(record, "event", "") or "")
        return event not in JOB_EVENTS and not str(record.msg).startswith(ROUTINE)


def why_failed(job: Job) -> str:
    """Return the last line of a failed job's log and what its executor says, in one line.

    A job that was killed says nothing: the last line is then of its work.
    """
    if job.error == NO_OUTPUT:
        return NO_OUTPUT
    lines = (_last_line(path) for path in [job.log, *job.error_logs] if path)
    last = next((line for line in lines if line), "")
    if AT_WORK.search(last):
        last = f"killed, for want of memory perhaps: its log ends at work, {last!r}"
    reason = (job.error or "").split("For further error details")[0].strip(" .\n")
    parts = [last, "" if reason == "failed" else reason]
    return " | ".join(part for part in parts if part) or "no log was written"


def _last_line(path: str) -> str:
    try:
        lines = Path(path).read_text(errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def duration(seconds: float) -> str:
    """Return a time for people: 45 s, 12 min, 3 h 05 min, 2 d 4 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes:02d} min"
    return f"{hours // 24} d {hours % 24} h"
