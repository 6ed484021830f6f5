"""A scratch folder is one clone's."""

from pathlib import Path

import pytest

from tests.conftest import copy_workflow, snakemake
from workflow_scripts.hear2021.run.config_tables import ConfigurationError
from workflow_scripts.hear2021.run.scratch import OWNER, take


def test_a_clone_goes_on_with_the_scratch_folder_that_it_took(tmp_path):
    scratch = tmp_path / "scratch"
    for _ in range(2):
        take(scratch, tmp_path / "clone")


def test_a_second_clone_is_told_whose_scratch_folder_it_was_given(tmp_path):
    scratch = tmp_path / "scratch"
    take(scratch, tmp_path / "first")
    with pytest.raises(ConfigurationError, match=rf"{tmp_path}/first, .* delete {scratch}/{OWNER}"):
        take(scratch, tmp_path / "second")


def test_a_clone_with_its_scratch_folder_inside_can_be_moved(tmp_path):
    clone = tmp_path / "clone"
    (clone / "results/scratch").mkdir(parents=True)
    take(clone / "results/scratch", clone)
    moved = clone.rename(tmp_path / "moved")
    take(moved / "results/scratch", moved)


def test_a_run_with_the_scratch_folder_of_another_clone_starts_no_job(tmp_path):
    folder = copy_workflow(tmp_path)
    take(tmp_path / "scratch", Path("/home/other/hear-mn"))
    refused = snakemake(folder, "-j1", "--config", f"pathvars={{scratch: {tmp_path}/scratch}}")
    assert refused.returncode != 0
    assert "the clone /home/other/hear-mn" in refused.stdout
    assert [file.name for file in (tmp_path / "scratch").iterdir()] == [OWNER]
