"""The report of a run that did not finish."""

import pytest

from workflow_scripts.hear2021.run.unfinished import (
    ReportJob,
    read_unfinished,
    report_what_is_there,
)

UNFINISHED = {("mn04_as_e1", "esc50"): "embed failed", ("mn04_as_l", "esc50"): ""}


@pytest.fixture
def jobs(tmp_path) -> list[ReportJob]:
    """Jobs that copy a score to their output and log how they were called, the last one first."""
    (tmp_path / "score").write_text("0.5")
    return [
        ReportJob(
            rule,
            f"cp {tmp_path / 'score'} {tmp_path / rule / 'out'} && echo {rule} >>{tmp_path}/called",
            (tmp_path / rule / "out",),
            tmp_path / "logs" / rule / "log",
        )
        for rule in ("claims", "plot", "aggregate")
    ]


def test_tables_come_before_what_is_made_of_them_and_are_told_what_is_unfinished(jobs, tmp_path):
    record = tmp_path / "unfinished.json"
    assert report_what_is_there(jobs, UNFINISHED, record) == []
    assert read_unfinished(record) == UNFINISHED
    called = (tmp_path / "called").read_text().splitlines()
    assert called == [f"aggregate --unfinished {record}", "plot", "claims"]


def test_the_next_run_makes_the_report_again_for_it_is_older_than_any_score(jobs, tmp_path):
    report_what_is_there(jobs, UNFINISHED, tmp_path / "unfinished.json")
    for job in jobs:
        assert 0 < job.outputs[0].stat().st_mtime < (tmp_path / "score").stat().st_mtime


def test_a_part_of_the_report_that_fails_is_named_with_its_log_and_costs_no_other(jobs, tmp_path):
    log = tmp_path / "logs/plot/broken"
    broken = ReportJob("plot", "exit 1", (tmp_path / "plot/broken",), log)
    failed = report_what_is_there([*jobs, broken], UNFINISHED, tmp_path / "unfinished.json")
    assert failed == [f"No plot of what is there, see {log}"]
    assert all(job.outputs[0].exists() for job in jobs)
