"""What a run checks before its first job, on the commands of a cluster that is none."""

import re
import shutil
from pathlib import Path

import yaml

from tests.conftest import SITE_SETTINGS, copy_workflow, snakemake


def test_slurm_is_asked_about_what_is_known_of_jobs_before_their_input_is_there(cluster, tmp_path):
    cluster("scontrol")
    refusal = "#!/bin/sh\necho 'Requested node configuration is not available' >&2\nexit 1\n"
    Path(shutil.which("sbatch") or "").write_text(refusal)
    folder = copy_workflow(tmp_path / "clone")
    (folder / "slurm/site.yaml").write_text(yaml.safe_dump({"site": SITE_SETTINGS}))
    unknown = ["embed:mem_mb=2*input.size_mb", "evaluate:runtime=None"]
    mini = ["--profile", "slurm", "--configfile", "config/config.yaml"]
    pair = "results/scores/mn04_seeded_mels/mini_vowels.json"
    result = snakemake(folder, *mini, "--set-resources", *unknown, "--", pair)
    assert result.returncode != 0
    asked = {
        line.split(":")[0].split()[-1]: re.findall(r"--(mem|time)=\d", line)
        for line in result.stdout.splitlines()
        if "--test-only" in line
    }
    assert asked["embed"] == ["time"]
    assert asked["evaluate"] == ["mem"]
    assert not (folder / "results/scores").exists()


def test_a_slip_in_the_published_scores_is_told_before_the_first_job(tmp_path):
    folder = copy_workflow(tmp_path / "clone")
    with (folder / "config/published_scores.csv").open("a") as table:
        table.write("Foo,,ESC-50,0.55,,0,exact,,me\n")
    asked_for_no_report = "results/scratch/weights/mn04_seeded.json"
    assert snakemake(folder, "-j1", "--", asked_for_no_report).returncode == 0
    shutil.rmtree(folder / "results/logs")
    result = snakemake(folder, "-j1", "--", "results/mini/claims.md")
    assert result.returncode != 0
    assert "published_systems.csv has no row for Foo" in result.stdout
    assert not (folder / "results/logs").exists()
