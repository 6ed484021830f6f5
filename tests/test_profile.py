"""The SLURM profile, as far as it can be tried without a cluster."""

import re

import pytest
import yaml

from tests.conftest import copy_workflow, planned_jobs
from workflow_scripts.hear2021.run.site import Site


def test_every_key_of_the_profile_says_why(repository):
    lines = (repository / "slurm/profile.v9+.yaml").read_text().splitlines()
    keys = [number for number, line in enumerate(lines) if re.match(r"[a-z-]+:", line)]
    assert len(keys) > 15
    for number in keys:
        assert lines[number - 1].startswith("# "), lines[number]


def test_the_profile_plans_the_study_without_a_cluster(tmp_path):
    jobs = planned_jobs(copy_workflow(tmp_path), "--profile", "slurm")
    assert jobs["embed"] == 5 * 20
    assert jobs["evaluate"] + jobs["evaluate_on_gpu"] == 14 * 20


def test_a_run_uses_no_more_gpus_at_a_time_than_the_profile_says(repository):
    profile = yaml.safe_load((repository / "slurm/profile.v9+.yaml").read_text())
    limits = dict(limit.split("=") for limit in profile["resources"])
    assert limits["gpu_jobs"] == "16"  # as docs/cluster.md says
    assert Site().gpu_job["gpu_jobs"] == 1
    assert "gpu_jobs" not in Site().cpu_job


def test_what_failed_was_preempted_or_left_behind_runs_again(repository):
    profile = yaml.safe_load((repository / "slurm/profile.v9+.yaml").read_text())
    assert profile["retries"] == 2  # as docs/cluster.md says
    assert all(profile[key] for key in ("keep-going", "rerun-incomplete", "slurm-requeue"))


def test_an_outage_of_slurm_is_waited_out_for_ten_minutes_and_no_database_is_needed(repository):
    profile = yaml.safe_load((repository / "slurm/profile.v9+.yaml").read_text())
    assert profile["slurm-status-command"] == "squeue"
    seconds = profile["slurm-status-attempts"] / profile["max-status-checks-per-second"]
    assert seconds == pytest.approx(600)


def test_the_profile_uses_no_job_arrays(repository):
    profile = yaml.safe_load((repository / "slurm/profile.v9+.yaml").read_text())
    assert "slurm-array-jobs" not in profile
