"""The settings of a site, and what is asked of its SLURM, on commands of a cluster that is none."""

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.conftest import SINFO, SITE_SETTINGS, copy_workflow, snakemake
from workflow_scripts.hear2021.run import site, slurm
from workflow_scripts.hear2021.run.config_tables import ConfigurationError
from workflow_scripts.hear2021.run.site import (
    Request,
    Site,
    check_site,
    check_status_queries,
    largest_requests,
    read_site,
)
from workflow_scripts.hear2021.run.slurm import SlurmError, cancel_leftovers, running_jobs

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
        ({"gres": "gpu:1"}, "top level: gpu_model or gres, one of them null"),
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
    with pytest.raises(SlurmError, match=re.escape(types)):
        check_site(read_site(SITE_SETTINGS | {"gpu_model": "h100"}))


@pytest.mark.parametrize("command", ["sinfo", "sbatch"])
def test_a_command_that_does_not_answer_is_named(cluster, tmp_path, monkeypatch, command):
    (tmp_path / "bin" / command).write_text("#!/bin/sh\nexec sleep 60\n")
    monkeypatch.setattr(slurm, "SECONDS_TO_ANSWER", 0.5)
    request = Request("embed", gpu=True, cpus=1, memory_mb=1, minutes=1)
    with pytest.raises(SlurmError, match=f"`{command} .*` does not answer. Is SLURM up"):
        check_site(read_site(SITE_SETTINGS), [request])


def test_right_settings_pass(cluster):
    assert check_site(read_site(SITE_SETTINGS)) == [
        "jobs on a GPU: partition gpu, a100",
        "other jobs: partition cpu",
        "account: speech",
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"account": "vision"}, "account: 'vision' is not yours. Yours: music, speech"),
        ({"cpu_partition": "long"}, "cpu_partition: SLURM has no partition 'long'. It has: cpu,"),
        ({"gpu_partition": "cpu"}, "gpu_partition: 'cpu' has no GPU. Partitions that do: gpu"),
        (
            {"gpu_model": "h100"},
            "gpu_model: the partition 'gpu' has no GPU of type 'h100'. It has: a100",
        ),
        ({"gpu_model": None, "gres": "gpu:h100:1"}, "gres: the partition 'gpu' has no GPU of type"),
        ({"slurm_extra": "--mail-type=FAIL --mem=5G"}, "--mem=5G' sets the memory, which"),
        ({"max_minutes": 2000}, "the partition 'gpu' takes jobs of at most 1440 minutes"),
    ],
)
def test_a_setting_that_slurm_does_not_know_is_named(cluster, changes, message):
    with pytest.raises(SlurmError, match=re.escape(message)):
        check_site(read_site(SITE_SETTINGS | changes))


def test_all_wrong_settings_come_in_one_message(cluster):
    with pytest.raises(SlurmError) as error:
        check_site(read_site(SITE_SETTINGS | {"account": "vision", "gpu_model": "h100"}))
    assert "account:" in str(error.value)
    assert "gpu_model:" in str(error.value)


def test_a_job_that_no_node_can_take_is_refused_unless_nodes_are_out_of_service(cluster):
    cluster("sbatch", "", 1)
    refusal = "#!/bin/sh\necho 'Requested node configuration is not available' >&2\nexit 1\n"
    Path(shutil.which("sbatch") or "").write_text(refusal)
    request = Request("embed", gpu=True, cpus=4, memory_mb=10**6, minutes=60)
    with pytest.raises(
        SlurmError, match=r"jobs of rule embed: sbatch --test-only .* --mem=1000000"
    ):
        check_site(read_site(SITE_SETTINGS), [request])
    nodes = SINFO.format(state="drained").splitlines()
    for lines in (nodes, nodes[::-1]):
        cluster("sinfo", "\n".join(lines))
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
        ("slurmdbd", 59, "squeue", None),
        ("slurmdbd", 60, "squeue", "--slurm-status-command sacct"),
        ("slurmdbd", 190, "squeue", "--slurm-status-command sacct"),
        ("slurmdbd", 191, "squeue", None),
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
        with pytest.raises(SlurmError, match=re.escape(message)):
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


def test_a_partition_that_is_down_is_named(cluster):
    cluster("sinfo", SINFO.format(state="idle").replace("cpu|up", "cpu|down"))
    with pytest.raises(SlurmError, match="cpu_partition: the partition 'cpu' is down"):
        check_site(read_site(SITE_SETTINGS))


@pytest.mark.parametrize(("gres", "says"), [(None, "any model"), ("gpu:1", "gpu:1")])
def test_a_site_may_leave_the_type_of_gpu_open(cluster, gres, says):
    lines = check_site(read_site(SITE_SETTINGS | {"gpu_model": None, "gres": gres}))
    assert f"jobs on a GPU: partition gpu, {says}" in lines


@pytest.mark.parametrize(
    ("limit", "minutes"), [("45:00", 45), ("2:30:00", 150), ("1-02:30:00", 1590)]
)
def test_a_partitions_time_limit_is_read_in_every_form(cluster, limit, minutes):
    cluster("sinfo", f"cpu|up|infinite|idle|(null)\ngpu|up|{limit}|idle|gpu:a100:4")
    check_site(read_site(SITE_SETTINGS | {"max_minutes": minutes}))
    with pytest.raises(SlurmError, match=f"'gpu' takes jobs of at most {minutes} minutes"):
        check_site(read_site(SITE_SETTINGS | {"max_minutes": minutes + 1}))


def test_the_settings_can_be_checked_without_a_run(cluster, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=r"cp slurm/site\.example\.yaml slurm/site\.yaml"):
        site.main()
    settings = tmp_path / "slurm/site.yaml"
    settings.parent.mkdir()
    settings.write_text("# nothing is set yet\n")
    with pytest.raises(SystemExit, match=r"cp slurm/site\.example\.yaml slurm/site\.yaml"):
        site.main()
    settings.write_text(yaml.safe_dump({"site": SITE_SETTINGS}))
    site.main()
    assert "jobs on a GPU: partition gpu, a100" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "gpu"),
    [
        ({}, "--gpus=a100:1"),
        ({"gpu_model": None}, "--gpus=1"),
        ({"gpu_model": None, "gres": "gpu:a100:1"}, "--gres=gpu:a100:1"),
    ],
)
def test_slurm_is_asked_about_jobs_with_all_that_the_site_sets(cluster, tmp_path, changes, gpu):
    cluster("sbatch")
    asked = tmp_path / "asked"
    (tmp_path / "bin/sbatch").write_text(f'#!/bin/sh\necho "$@" >> {asked}\n')
    extra = {"qos": "long", "constraint": "avx2", "gpu_constraint": "gpu80g"}
    extra["slurm_extra"] = "--mail-type=FAIL --nice=10"
    requests = [
        Request("embed", gpu=True, cpus=4, memory_mb=9000, minutes=60),
        Request("evaluate", gpu=False, cpus=1, memory_mb=2000, minutes=5),
    ]
    check_site(read_site(SITE_SETTINGS | extra | changes), requests)
    embed, evaluate = (set(line.split()) for line in asked.read_text().splitlines())
    of_all = {"--test-only", "--account=speech", "--qos=long", "--mail-type=FAIL", "--nice=10"}
    assert embed - evaluate >= {"--partition=gpu", "--cpus-per-task=4", "--mem=9000", "--time=60"}
    assert embed - evaluate >= {gpu, "--constraint=gpu80g"}
    assert evaluate - embed == {
        "--partition=cpu",
        "--cpus-per-task=1",
        "--mem=2000",
        "--time=5",
        "--constraint=avx2",
    }
    assert embed & evaluate == of_all | {"--wrap=true"}


def test_a_run_begins_with_the_options_that_the_message_names(cluster):
    cluster("scontrol", SQUEUE_KEEPS.format("none", 300))
    with pytest.raises(SlurmError) as refused:
        check_status_queries("squeue", 200)
    seconds = re.search(r"status-command squeue .*-checks (\d+)", str(refused.value))
    assert seconds
    check_status_queries("squeue", int(seconds[1]))


def leave_jobs(folder: Path, cluster: Callable[..., None]) -> tuple[Path, Path]:
    """Have squeue list jobs, 21 and 22 of them in `folder`, until it was asked after scancel."""
    queue, cancelled = folder / "queue", folder / "cancelled"
    (folder / "link").symlink_to(folder)
    jobs = [
        f"21|hear-mn_1|{folder}",
        f"22|hear-mn_1|{folder / 'link'}",
        "23|hear-mn_2|/elsewhere",
        f"24|other_1|{folder}",
    ]
    queue.write_text("".join(f"{job}\n" for job in jobs))
    for command in ("squeue", "scancel"):
        cluster(command)
    (folder / "bin/squeue").write_text(
        f"#!/bin/sh\ncat {queue}\nif [ -e {cancelled} ]; then : > {queue}; fi\n"
    )
    (folder / "bin/scancel").write_text(f'#!/bin/sh\necho "$@" >> {cancelled}\n')
    return queue, cancelled


def test_the_jobs_that_a_dead_run_left_in_this_folder_are_cancelled_and_their_end_awaited(
    cluster, tmp_path, monkeypatch
):
    monkeypatch.setattr(slurm.time, "sleep", lambda seconds: None)
    queue, cancelled = leave_jobs(tmp_path, cluster)
    assert cancel_leftovers("hear-mn", tmp_path) == ["21", "22"]
    assert cancelled.read_text() == "21 22\n"
    assert queue.read_text() == ""
    cancelled.unlink()
    assert cancel_leftovers("hear-mn", tmp_path) == []
    assert not cancelled.exists()


def test_a_run_does_not_begin_beside_jobs_that_do_not_end(cluster, tmp_path, monkeypatch):
    monkeypatch.setattr(slurm, "SECONDS_TO_END", -1)
    leave_jobs(tmp_path, cluster)
    with pytest.raises(SlurmError, match="The jobs 21, 22 of an earlier run do not end"):
        cancel_leftovers("hear-mn", tmp_path)


def test_jobs_in_the_queue_are_not_counted_as_running(cluster, tmp_path):
    (tmp_path / "bin/squeue").write_text(
        "#!/bin/sh\n"
        f'case "$*" in *PENDING*) echo "31|hear-mn_1|{tmp_path}";; esac\n'
        f'case "$*" in *RUNNING*) echo "32|hear-mn_1|{tmp_path}";; esac\n'
    )
    assert running_jobs("hear-mn", tmp_path) == 1


def test_every_job_asks_for_what_the_site_names():
    named = Site("speech", "cpu", "gpu", qos="long", slurm_extra="--nice=10", node_local="/disk")
    of_all = {"slurm_account": "speech", "qos": "long", "slurm_extra": "--nice=10"}
    of_all["tmpdir"] = "/disk"
    assert named.cpu_job == of_all | {"slurm_partition": "cpu"}
    of_gpus = {"slurm_partition": "gpu", "gpu_jobs": 1, "gpu": 1, "node_local": "/disk"}
    assert named.gpu_job == of_all | of_gpus
    assert Site().cpu_job == {}
    assert Site().gpu_job == {"gpu_jobs": 1, "gpu": 1, "node_local": ""}


def test_the_cache_of_the_site_goes_before_that_of_the_environment(monkeypatch):
    for name in ("HEAR_MN_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, "/home/me/cache")
    Site().set_caches()
    assert os.environ["HEAR_MN_CACHE"] == os.environ["XDG_CACHE_HOME"] == "/home/me/cache"
    Site(cache="/scratch/me").set_caches()
    assert os.environ["HEAR_MN_CACHE"] == "/scratch/me/hear_mn"
    assert os.environ["XDG_CACHE_HOME"] == "/scratch/me"
