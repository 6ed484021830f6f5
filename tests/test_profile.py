"""The SLURM profile and the site settings, as far as they can be tried without a cluster."""

import logging
import os
import re
import shutil
from pathlib import Path

import pytest
import yaml

from tests.conftest import SINFO, SITE_SETTINGS, copy_workflow, planned_jobs, snakemake
from workflow_scripts.embed import near_audio
from workflow_scripts.hear2021.evaluation.kept_scores import (
    forget_kept_scores,
    forget_scores_of,
    keep_scores,
    kept_scores,
)
from workflow_scripts.hear2021.run import site
from workflow_scripts.hear2021.run.configuration import ConfigurationError, task_table
from workflow_scripts.hear2021.run.groups import group_of
from workflow_scripts.hear2021.run.progress import Job, RunMessages, gather_performance, on_gpu
from workflow_scripts.hear2021.run.site import (
    Request,
    Site,
    SiteError,
    check_site,
    check_status_queries,
    largest_requests,
    read_site,
    running_jobs,
)

SQUEUE_KEEPS = "AccountingStorageType = accounting_storage/{}\nMinJobAge = {} sec\n"


# --- The profile -------------------------------------------------------------------------------


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


def test_the_profile_uses_no_job_arrays(repository):
    profile = yaml.safe_load((repository / "slurm/profile.v9+.yaml").read_text())
    assert "slurm-array-jobs" not in profile


# --- Settings of the site ----------------------------------------------------------------------


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


def test_audio_is_read_from_the_node_where_the_site_has_a_folder_there(tmp_path):
    prepared, node = tmp_path / "prepared", tmp_path / "node"
    prepared.mkdir()
    node.mkdir()
    (prepared / "audio.npy").write_bytes(b"audio")
    with near_audio(prepared, str(node)) as folder:
        assert folder.parent == node
        assert (folder / "audio.npy").read_bytes() == b"audio"
    assert list(node.iterdir()) == []
    with near_audio(prepared, "") as folder:
        assert folder == prepared


# --- Packs -------------------------------------------------------------------------------------


def test_only_short_evaluations_share_a_job():
    groups = {name: group_of("mn04_as_e1_l", row) for name, row in task_table().items()}
    assert groups["gunshot_triangulation-v1.0-full"] == (
        "evaluate_mn04_as_gunshot_triangulation-v1.0-full"
    )
    assert groups["mini_vowels"] == "evaluate_mn04_as_mini_vowels"
    for long in ("esc50-v2.0.0-full", "fsd50k-v1.0-full", "dcase2016_task2-hear2021-full"):
        assert groups[long] is None, long


def test_a_full_group_asks_for_no_more_time_than_the_partitions_take():
    site = read_site(SITE_SETTINGS | {"max_minutes": 240})
    assert site.time_limit(20, members=8) == 20
    assert site.time_limit(72, members=8) * 8 == 240
    assert site.time_limit(1000) == 240
    assert read_site({}).time_limit(1000, members=8) == 1000


def test_kept_scores_go_when_their_embeddings_are_made_anew(tmp_path):
    manifests = [tmp_path / "e1.json"]
    keep_scores("mn04_as_e1", manifests, {"grid_points": 8}, {"test": 0.5})
    forget_scores_of(manifests[0])
    assert kept_scores("mn04_as_e1", manifests, {"grid_points": 8}) is None


def test_kept_scores_serve_the_same_request_only_and_until_the_run_is_over(tmp_path):
    manifests = [tmp_path / "scratch/embeddings/mn04_as/esc50/e1.json"]
    manifests[0].parent.mkdir(parents=True)
    keep_scores("mn04_as_e1", manifests, {"grid_points": 8}, {"test": 0.5})
    assert kept_scores("mn04_as_e1", manifests, {"grid_points": 8}) == {"test": 0.5}
    assert kept_scores("mn04_as_e1", manifests, {"grid_points": 4}) is None
    assert kept_scores("mn04_as_l", manifests, {"grid_points": 8}) is None
    forget_kept_scores(tmp_path / "scratch", tmp_path / "results")
    assert kept_scores("mn04_as_e1", manifests, {"grid_points": 8}) is not None
    score = tmp_path / "results/scores/mn04_as_e1/esc50.json"
    score.parent.mkdir(parents=True)
    score.write_text("{}")
    forget_kept_scores(tmp_path / "scratch", tmp_path / "results")
    assert kept_scores("mn04_as_e1", manifests, {"grid_points": 8}) is None


# --- Messages ----------------------------------------------------------------------------------


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
    assert (embed["model"], embed["task"], embed["parts"]) == ("mn04_as", "esc50", "e1-l")
    assert (embed["seconds"], embed["device"], embed["slurm_job_id"]) == (12.5, "H200", "17")
    assert embed["peak_gpu_memory_mb"] == 2.0
    assert (prepare["rule"], prepare["task"], prepare["seconds"]) == ("prepare_task", "esc50", 3.0)


def test_an_evaluation_of_a_task_with_dots_in_its_name_keeps_its_measures(tmp_path):
    pair = Path("mn04_as_e1", "esc50-v2.0.0-full")
    for path, content in {
        f"benchmarks/evaluate/{pair}.jsonl": '{"s": 60.0}\n',
        f"scores/{pair}.json": '{"provenance": {"device": "H200"}}',
    }.items():
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    (row,) = gather_performance(tmp_path, {pair.parent.name}, {pair.name})
    assert row["device"] == "H200"
    assert on_gpu(row)


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
