"""The settings of a site, and what is asked of its SLURM, on commands of a cluster that is none."""

import re
import shutil
from pathlib import Path

import pytest
import yaml

from tests.conftest import SINFO, SITE_SETTINGS, copy_workflow, snakemake
from workflow_scripts.hear2021.run import site
from workflow_scripts.hear2021.run.configuration import ConfigurationError
from workflow_scripts.hear2021.run.site import (
    Request,
    Site,
    SiteError,
    check_site,
    check_status_queries,
    largest_requests,
    read_site,
)

SQUEUE_KEEPS = "AccountingStorageType = accounting_storage/{}\nMinJobAge = {} sec\n"


def test_the_example_has_every_required_setting(repository):
    example = yaml.safe_load((repository / "slurm/site.example.yaml").read_text())
    assert read_site(example["site"]).gpu_partition == "gpu"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"partition": "gpu"}, "unknown key 'partition'"),
        ({"account": 123}, "account: 123 is not of type"),
        ({"gres": "gpu:2"}, "gres: 'gpu:2' does not match"),
        ({"gres": "gpu:1"}, "should not be valid"),
        ({"gpu_model": "tesla-v100"}, "(the executor takes no others)"),
    ],
)
def test_a_setting_of_the_wrong_form_is_named(changes, message):
    with pytest.raises(ConfigurationError, match=re.escape(message)):
        read_site(SITE_SETTINGS | changes)


def test_a_mistake_in_the_settings_stops_a_dry_run_with_one_message(tmp_path):
    folder = copy_workflow(tmp_path)
    (folder / "slurm/site.yaml").write_text(yaml.safe_dump({"site": {"acount": "speech"}}))
    result = snakemake(folder, "-n", "-j1")
    assert result.returncode != 0
    assert "slurm/site.yaml (its key `site`) cannot be used" in result.stdout
    assert "Traceback" not in result.stdout


@pytest.mark.parametrize(
    ("run_file", "folder_of_embeddings"),
    [
        ([], "mn40_as_ext/esc50-v2.0.0-full"),
        (["--configfile", "config/config.yaml"], "mn04_seeded/mini_hum"),
    ],
    ids=["study", "mini"],
)
def test_the_scratch_folder_of_the_site_is_where_embeddings_go(
    run_file, folder_of_embeddings, tmp_path
):
    folder = copy_workflow(tmp_path)
    site = {"site": SITE_SETTINGS, "pathvars": {"scratch": "elsewhere/scratch"}}
    (folder / "slurm/site.yaml").write_text(yaml.safe_dump(site))
    result = snakemake(folder, "-n", "--profile", "slurm", *run_file)
    assert result.returncode == 0, result.stdout
    assert f"elsewhere/scratch/embeddings/{folder_of_embeddings}/" in result.stdout
    assert "results/scratch" not in result.stdout


@pytest.mark.parametrize(
    ("gres", "types"),
    [
        ("gpu:4", "GPUs without a type"),
        ("gpu:4(S:0-1)", "GPUs without a type"),
        ("gpu:2080ti:8,tmpfs:100", "It has: 2080ti"),
        ("gpu:4090:2(IDX:0-1)", "It has: 4090"),
        ("tmpfs:100,gpu:1g.5gb:7,gpu:a100_80:1", "It has: 1g.5gb, a100_80"),
    ],
)
def test_types_of_gpus_are_read_from_every_form_of_gres(cluster, gres, types):
    cluster("sinfo", f"cpu|up|2-00:00:00|idle|(null)\ngpu|up|2-00:00:00|idle|{gres}")
    with pytest.raises(SiteError, match=re.escape(types)):
        check_site(read_site(SITE_SETTINGS | {"gpu_model": "h100"}))


@pytest.mark.parametrize("command", ["sinfo", "sbatch"])
def test_a_command_that_does_not_answer_is_named(cluster, tmp_path, monkeypatch, command):
    (tmp_path / "bin" / command).write_text("#!/bin/sh\nexec sleep 60\n")
    monkeypatch.setattr(site, "SECONDS_TO_ANSWER", 0.5)
    request = Request("embed", gpu=True, cpus=1, memory_mb=1, minutes=1)
    with pytest.raises(SiteError, match=f"`{command} .*` does not answer. Is SLURM up"):
        check_site(read_site(SITE_SETTINGS), [request])


def test_right_settings_pass(cluster):
    assert "jobs on a GPU: partition gpu, a100" in check_site(read_site(SITE_SETTINGS))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"account": "vision"}, "account: 'vision' is not yours. Yours: music, speech"),
        ({"cpu_partition": "long"}, "cpu_partition: SLURM has no partition 'long'. It has: cpu,"),
        ({"gpu_partition": "cpu"}, "gpu_partition: 'cpu' has no GPU. Partitions that do: gpu"),
        ({"gpu_model": "h100"}, "no GPU of type 'h100'. It has: a100, v100"),
        ({"gpu_model": None, "gres": "gpu:h100:1"}, "gres: the partition 'gpu' has no GPU of type"),
        ({"slurm_extra": "--mail-type=FAIL --mem=5G"}, "--mem=5G' sets the memory, which"),
        ({"max_minutes": 2000}, "the partition 'gpu' takes jobs of at most 1440 minutes"),
    ],
)
def test_a_setting_that_slurm_does_not_know_is_named(cluster, changes, message):
    with pytest.raises(SiteError, match=re.escape(message)):
        check_site(read_site(SITE_SETTINGS | changes))


def test_all_wrong_settings_come_in_one_message(cluster):
    with pytest.raises(SiteError) as error:
        check_site(read_site(SITE_SETTINGS | {"account": "vision", "gpu_model": "h100"}))
    assert "account:" in str(error.value)
    assert "gpu_model:" in str(error.value)


def test_a_job_that_no_node_can_take_is_refused_unless_nodes_are_out_of_service(cluster):
    cluster("sbatch", "", 1)
    refusal = "#!/bin/sh\necho 'Requested node configuration is not available' >&2\nexit 1\n"
    Path(shutil.which("sbatch") or "").write_text(refusal)
    request = Request("embed", gpu=True, cpus=4, memory_mb=10**6, minutes=60)
    with pytest.raises(SiteError, match=r"jobs of rule embed: sbatch --test-only .* --mem=1000000"):
        check_site(read_site(SITE_SETTINGS), [request])
    cluster("sinfo", SINFO.format(state="drained"))
    check_site(read_site(SITE_SETTINGS), [request])


def test_a_rule_asks_for_the_most_that_any_of_its_jobs_asks_for():
    jobs = [
        Request("embed", gpu=True, cpus=4, memory_mb=9000, minutes=60),
        Request("evaluate", gpu=False, cpus=1, memory_mb=2000, minutes=5),
        Request("embed", gpu=True, cpus=2, memory_mb=4000, minutes=90),
        Request("embed", gpu=True, cpus=1, memory_mb=None, minutes=None),
    ]
    embed, evaluate = largest_requests(jobs)
    assert embed == Request("embed", gpu=True, cpus=4, memory_mb=9000, minutes=90)
    assert evaluate == jobs[1]


def test_an_account_that_cannot_be_asked_for_is_taken_as_it_is(cluster):
    cluster("sacctmgr", status=1)
    lines = check_site(read_site(SITE_SETTINGS))
    assert "account: speech (this cluster's accounts cannot be asked for)" in lines


@pytest.mark.parametrize(
    ("accounting", "kept_seconds", "command", "message"),
    [
        ("slurmdbd", 300, "squeue", None),
        ("none", 300, "squeue", None),
        ("slurmdbd", 30, "squeue", None),  # the executor turns to sacct by itself
        ("none", 30, "squeue", "would wait for ever"),
        ("slurmdbd", 120, "squeue", "--slurm-status-command sacct"),
        ("slurmdbd", 120, "sacct", None),
        ("none", 300, "sacct", "--slurm-status-command squeue"),
        ("none", 30, "sacct", "would wait for ever"),
    ],
)
def test_a_run_that_would_lose_sight_of_its_jobs_does_not_begin(
    cluster, accounting, kept_seconds, command, message
):
    cluster("scontrol", SQUEUE_KEEPS.format(accounting, kept_seconds))
    if message is None:
        check_status_queries(command, 20)
    else:
        with pytest.raises(SiteError, match=re.escape(message)):
            check_status_queries(command, 20)


def test_a_gpu_is_asked_for_as_the_site_wants():
    assert Site(gpu_partition="gpu").gpu_job["gpu"] == 1
    by_model = Site(gpu_partition="gpu", gpu_model="a100").gpu_job
    assert (by_model["gpu"], by_model["gpu_model"]) == (1, "a100")
    by_gres = Site(gpu_partition="gpu", gres="gpu:a100:1").gpu_job
    assert by_gres["gres"] == "gpu:a100:1"
    assert "gpu" not in by_gres
    assert {job["gpu_jobs"] for job in (by_model, by_gres)} == {1}


def test_a_feature_of_gpu_nodes_is_asked_for_by_jobs_on_a_gpu_only():
    both = Site(constraint="avx2")
    assert (both.cpu_job["constraint"], both.gpu_job["constraint"]) == ("avx2", "avx2")
    gpus = Site(constraint="avx2", gpu_constraint="gpu80g")
    assert (gpus.cpu_job["constraint"], gpus.gpu_job["constraint"]) == ("avx2", "gpu80g")
    assert "constraint" not in Site(gpu_constraint="gpu80g").cpu_job


def test_a_full_group_asks_for_no_more_time_than_the_partitions_take():
    site = read_site(SITE_SETTINGS | {"max_minutes": 240})
    assert site.time_limit(20, members=8) == 20
    assert site.time_limit(72, members=8) * 8 == 240
    assert site.time_limit(1000) == 240
    assert read_site({}).time_limit(1000, members=8) == 1000
