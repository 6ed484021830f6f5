"""The locks and the conda environments say the same versions and name no index."""

import re
from pathlib import Path

import pytest
import yaml

STAGES = ["embed", "evaluate", "report", "tasks"]


def pins(lock: Path) -> dict[str, set[str]]:
    versions: dict[str, set[str]] = {}
    for name, version in re.findall(r"^([a-z0-9-]+)==([^\s;]+)", lock.read_text(), re.MULTILINE):
        versions.setdefault(name, set()).add(version)
    return versions


@pytest.mark.parametrize("stage", STAGES)
def test_the_conda_environment_of_a_stage_is_in_step_with_the_lock(stage, repository):
    locked = pins(repository / "envs/workflow.lock")
    environment = yaml.safe_load((repository / f"envs/{stage}.yaml").read_text())
    packages = environment["dependencies"][-1]["pip"]
    assert packages
    for package in packages:
        name, version = package.split("==")
        assert version in locked[name], f"envs/{stage}.yaml: {package}, the lock has {locked[name]}"


def test_heareval_is_installed_as_locked_after_the_conda_environment(repository):
    script = (repository / "envs/evaluate.post-deploy.sh").read_text()
    (version,) = pins(repository / "envs/workflow.lock")["heareval"]
    assert f"heareval=={version}" in script


@pytest.mark.parametrize("lock", ["workflow", "tests", "uv"])
def test_every_locked_package_has_a_hash_and_no_index_is_named(lock, repository):
    text = (repository / f"envs/{lock}.lock").read_text()
    entries = re.split(r"^(?=[a-z0-9-]+==)", text, flags=re.MULTILINE)[1:]
    assert entries
    assert all("--hash=sha256:" in entry for entry in entries)
    assert "://" not in text
    assert "index-url" not in text


def test_the_tests_run_on_the_versions_that_users_get(repository):
    users, tests = (pins(repository / f"envs/{lock}.lock") for lock in ("workflow", "tests"))
    assert users.items() <= tests.items()
