"""The report of a run that did not finish: tables and figures of what is there, and what is not."""

import json
import os
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from hear_mn.whole import write_json_whole

REPORT_RULES = ("aggregate", "plot", "claims")  # in the order of what they need
BEFORE_ALL_SCORES = (1, 1)  # a date; Snakemake takes 0 for none

Pair = tuple[str, str]
"""A variant and a task."""


@dataclass(frozen=True)
class ReportJob:
    """A job of one of `REPORT_RULES` that the run had left to do.

    Attributes:
        rule: its rule.
        command: what it would have run.
        outputs: the files it makes.
        log: its log.
    """

    rule: str
    command: str
    outputs: tuple[Path, ...]
    log: Path


def report_what_is_there(
    jobs: Iterable[ReportJob], unfinished: Mapping[Pair, str], record: Path
) -> list[str]:
    """Make the tables and figures of an unfinished run.

    A pair that the run did not finish has no score in them, even if there is one of an earlier run.
    The files are dated before all scores, so that the next run makes them again.

    Args:
        jobs: what is to be made.
        unfinished: why pairs are missing, nothing where that is not known.
        record: the .json file to write that in, for rule aggregate.

    Returns:
        A line for each job that failed.
    """
    write_unfinished(unfinished, record)
    failed = []
    jobs = sorted(jobs, key=lambda job: REPORT_RULES.index(job.rule))
    for job in jobs:
        for path in (*job.outputs, job.log):
            path.parent.mkdir(parents=True, exist_ok=True)
        command = job.command + (f" --unfinished {record}" if job.rule == "aggregate" else "")
        if subprocess.run(command, shell=True, check=False).returncode:
            failed.append(f"No {job.rule} of what is there, see {job.log}")
    for path in (path for job in jobs for path in job.outputs):
        if path.exists():
            os.utime(path, BEFORE_ALL_SCORES)
    return failed


def write_unfinished(unfinished: Mapping[Pair, str], record: Path) -> None:
    """Write why pairs are missing."""
    write_json_whole(record, [[*pair, reason] for pair, reason in unfinished.items()])


def read_unfinished(record: Path) -> dict[Pair, str]:
    """Read why pairs are missing."""
    return {(variant, task): reason for variant, task, reason in json.loads(record.read_text())}
