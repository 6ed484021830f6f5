"""The benchmark command measures what it says; the numbers themselves are in docs/benchmarks.md."""

import dataclasses
import time

import numpy as np
import pytest
import torch

from hear_mn.checkpoints import checkpoint, locate
from hear_mn.embedding import load_embedder
from hear_mn.mobilenet import activate_
from hear_mn.variants import parse_variant
from tests.benchmarks import embedding, evaluation, gpu, inputs, machine, scaling, study
from tests.benchmarks.__main__ import GPU as GPU_PARTS
from tests.benchmarks.__main__ import main
from tests.benchmarks.comparison import Comparison, comparisons_table, in_turn
from tests.benchmarks.embedding import DisagreementError
from tests.benchmarks.reference_module import (
    get_scene_embeddings,
    get_timestamp_embeddings,
    load_model,
)
from tests.benchmarks.simulation import (
    CORE,
    GPU,
    Job,
    Rates,
    embedding_seconds,
    evaluation_seconds,
    schedule,
    study_jobs,
)
from workflow_scripts.hear2021.run.configuration import task_table

VARIANT = "mn04_seeded_e1_l_mels"


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return locate("mn04_seeded", tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def reference(weights):
    return load_model(str(weights), variant=VARIANT)


@pytest.fixture(scope="module")
def ours(weights):
    return load_embedder("mn04_seeded", weights, parse_variant(VARIANT).features, "cpu")


@pytest.mark.parametrize("seconds", [0.5, 12.0])
def test_the_reference_module_gives_our_scene_embeddings(seconds, reference, ours):
    audio = 0.1 * torch.randn(2, round(seconds * 32000), generator=torch.manual_seed(0))
    with torch.no_grad():
        expected = get_scene_embeddings(audio, reference)
    torch.testing.assert_close(ours.scene(audio), expected, rtol=1e-4, atol=1e-4)


def test_the_reference_module_gives_our_timestamp_embeddings(reference, ours):
    audio = 0.1 * torch.randn(2, 16000, generator=torch.manual_seed(0))
    with torch.no_grad():
        expected, times = get_timestamp_embeddings(audio, reference)
    found, our_times = ours.timestamps(audio)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(our_times, times)


@pytest.fixture(scope="module", params=["scene", "event"])
def tiny_task(request, tmp_path_factory):
    make = {"scene": inputs.scene_task, "event": inputs.event_task}[request.param]
    return make(tmp_path_factory.mktemp(request.param), 3, 3.0)


def test_both_embedding_paths_are_timed_on_the_same_task(tiny_task, weights):
    compared = embedding.compare("tiny", tiny_task, VARIANT, weights, repetitions=2, target=1.0)
    assert len(compared.stock) == len(compared.ours) == 2
    assert "tiny" in comparisons_table([compared])


def test_no_ratio_is_printed_for_embeddings_that_differ(tiny_task, weights, monkeypatch):
    monkeypatch.setattr(embedding, "AGREEMENT", 0.0)
    with pytest.raises(DisagreementError, match="tiny: embeddings differ"):
        embedding.compare("tiny", tiny_task, VARIANT, weights, repetitions=1)


def test_both_evaluations_are_timed_on_the_same_embeddings(tmp_path):
    made = inputs.scene_embeddings(dict.fromkeys(inputs.SINGLE_SPLIT, 40), evaluation.SIZE, 3)
    files = evaluation.made_files(made, tmp_path / "made")
    short = evaluation.with_parameters(files, tmp_path / "short", max_epochs=[6], hidden_dim=[16])
    compared = evaluation.compare(
        "tiny", short, tmp_path / "work", grid_points=1, threads=1, repetitions=1
    )
    assert compared.equality == "scores, epochs and grid point equal"
    slow = dataclasses.replace(compared, stock=[1000.0])
    bound = evaluation.products_bound(slow, short, grid_points=1)
    assert float(bound.split()[-1].rstrip(".")) > 1000 / compared.ours[0]


def test_seeds_are_compared_with_the_spread_between_them():
    made = inputs.scene_embeddings(
        dict.fromkeys(inputs.SINGLE_SPLIT, 40), 12, 3, max_epochs=[6], hidden_dim=[16]
    )
    text = evaluation.seeds_table(made, "cpu", grid_points=1, seeds=3)
    assert "side by side" in text
    assert "spread between seeds" in text


def test_precision_is_compared_feature_by_feature(weights):
    # On a CPU both precisions are float32, in which two embedders differ by nothing.
    table = gpu.precision_table(gpu.noise(2, 1.0), "mn04_seeded", weights, "cpu")
    assert set(checkpoint("mn04_seeded").feature_sizes) <= {
        line.split("|")[1].strip() for line in table.splitlines()
    }
    assert "0.0e+00" in table


def test_a_gpus_use_is_sampled_while_a_block_runs(monkeypatch):
    monkeypatch.setattr(torch.cuda, "utilization", lambda device: 85)
    monkeypatch.setattr(gpu, "SETTLE_SECONDS", 0.0)
    with gpu.utilisation("cuda") as samples:
        time.sleep(3 * gpu.SAMPLE_SECONDS)
    assert samples
    assert set(samples) == {0.85}


def test_a_pass_that_keeps_a_gpu_busy_says_what_it_writes(tmp_path, weights, monkeypatch):
    monkeypatch.setattr(torch.cuda, "utilization", lambda device: 85)
    monkeypatch.setattr(machine, "DISK_BYTES", 8 << 20)
    for name in ("SETTLE_SECONDS", "SAMPLE_SECONDS", "BUSY_SECONDS"):
        monkeypatch.setattr(gpu, name, 1e-3)
    tasks = [("tiny", inputs.scene_task(tmp_path, 60, 1.0))]
    table = gpu.busy_table(tasks, {"mn04_seeded": weights}, "cpu")
    head, _, row = ([cell.strip() for cell in line.split("|")] for line in table.splitlines())
    cells = dict(zip(head, row, strict=True))
    assert (cells["GPU busy"], cells["target 80%"]) == ("85%", "met")
    assert float(cells["MB/s written"]) > 0


def test_a_use_that_cannot_be_sampled_is_an_error(monkeypatch):
    def refuse(device):
        raise ModuleNotFoundError("nvidia-ml-py does not seem to be installed")

    monkeypatch.setattr(torch.cuda, "utilization", refuse)
    monkeypatch.setattr(gpu, "SETTLE_SECONDS", 0.0)
    with pytest.raises(RuntimeError, match="nvidia-ml-py"), gpu.utilisation("cuda"):
        time.sleep(3 * gpu.SAMPLE_SECONDS)


@pytest.mark.parametrize("part", GPU_PARTS)
def test_a_part_for_gpus_says_so_where_there_is_none(monkeypatch, part):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="no CUDA device"):
        main([part])


def test_scores_that_differ_are_found():
    result = {"test": {"test_score": 0.5, "time_in_min": 1.0}, "embedding_path": "a"}
    later = {"test": {"test_score": 0.5, "time_in_min": 9.0}, "embedding_path": "b"}
    other = {"test": {"test_score": 0.6, "time_in_min": 1.0}, "embedding_path": "a"}
    assert evaluation.comparable(result) == evaluation.comparable(later)
    assert evaluation.comparable(result) != evaluation.comparable(other)


def test_a_ratio_is_of_medians_and_says_whether_its_target_is_met():
    one = Comparison("one", stock=[4.0, 6.0, 50.0], ours=[1.0, 3.0, 2.0], equality="", target=3.0)
    assert (one.ratio, one.met) == (3.0, "met")
    assert dataclasses.replace(one, target=3.1).met == "NOT MET"


def test_the_sides_take_turns():
    calls = []
    stock, ours = in_turn(lambda: calls.append("stock"), lambda: calls.append("ours"), 2)
    assert calls == ["ours", "stock", "ours", "stock"]
    assert len(stock) == len(ours) == 2


def test_event_embeddings_on_disk_are_read_back(tmp_path):
    made = inputs.event_embeddings(
        dict.fromkeys(inputs.SINGLE_SPLIT, 2), evaluation.SIZE, 3, seconds=4.0
    )
    files = evaluation.made_files(made, tmp_path / "made")
    for split in inputs.SINGLE_SPLIT:
        assert np.array_equal(files.embedded.rows(split), made.rows(split))
        assert np.array_equal(files.embedded.times_ms(split)[1], made.times_ms(split)[1])


def allocated(megabytes):
    return len(bytearray(megabytes << 20))


def test_the_peak_memory_of_a_process_is_that_of_the_call():
    result, peak = machine.apart(allocated, 300)
    assert result == 300 << 20
    assert 290 << 20 < peak < 450 << 20


def test_a_series_says_how_time_grows_with_size():
    sizes = [scaling.Size(1, "1", 2.0, 0, 0), scaling.Size(4, "4", 4.0, 0, 0)]
    assert "0.50" in scaling.table(sizes).splitlines()[-1]


@pytest.mark.parametrize("name", ["mn04_as", "mn40_as_ext"])
def test_multiply_adds_are_those_of_the_table(name):
    # The table's are of convolutions and linear layers, without squeeze-and-excitation's.
    assert embedding.multiply_adds(name, 1000) == pytest.approx(checkpoint(name).macs_10s, rel=0.02)


def test_the_study_embeds_each_task_once_a_checkpoint():
    assert len(embedding.study_variants()) == 14
    assert embedding.passes_a_task() == 5


RATES = Rates(
    start_up_seconds=10,
    prepared_audio=1000,
    gpu_multiply_adds=1e12,
    gpu_clips=500,
    core_training=2e10,
    gpu_training=1e12,
    gpu_training_step=0.01,
    best_epoch=60,
)


def test_jobs_wait_for_what_they_need_and_for_free_units():
    jobs = [
        Job("prepare", CORE, 1, 2.0),
        Job("embed a", GPU, 1, 3.0, ("prepare",)),
        Job("embed b", GPU, 1, 4.0, ("prepare",)),
        Job("evaluate a", CORE, 1, 6.0, ("embed a",)),
        Job("evaluate b", CORE, 1, 1.0, ("embed b",)),
    ]
    one = schedule(jobs, {GPU: 1, CORE: 2})
    assert one.seconds == 2 + 3 + 6  # a goes first: more comes after it
    assert one.busy == {GPU: 7.0, CORE: 9.0}
    assert [job.name for job in one.longest_path] == ["prepare", "embed a", "evaluate a"]
    assert schedule(jobs, {GPU: 1, CORE: 1}).seconds == 2 + 3 + 6 + 1


def test_a_graph_that_cannot_run_is_refused():
    with pytest.raises(ValueError, match="embed needs 1 of GPU"):
        schedule([Job("embed", GPU, 1, 1.0)], {CORE: 1})
    with pytest.raises(ValueError, match="which is no job"):
        schedule([Job("embed", GPU, 1, 1.0, ("prepare",))], {GPU: 1})
    circle = [Job("a", GPU, 1, 1.0, ("b",)), Job("b", GPU, 1, 1.0, ("a",))]
    with pytest.raises(ValueError, match="circle"):
        schedule(circle, {GPU: 1})


@pytest.mark.parametrize("place", [CORE, GPU])
def test_the_study_has_the_workflows_jobs_and_no_machine_beats_its_longest_path(place):
    jobs = study_jobs(embedding.study_variants(), study.study_tasks(), RATES, evaluate_on=place)
    kinds = [job.name.split()[0] for job in jobs]
    assert [kinds.count(kind) for kind in ("prepare", "embed", "evaluate")] == [20, 100, 280]
    schedules = [schedule(jobs, {GPU: count, CORE: 8 * count}) for count in (1, 8, 64)]
    times = [one.seconds for one in schedules]
    assert times == sorted(times, reverse=True)
    assert all(one.seconds >= one.longest_path_seconds - 1e-6 for one in schedules)
    work = sum(job.seconds for job in jobs if job.resource == GPU)
    assert schedules[0].seconds >= work
    assert schedules[0].busy[GPU] == pytest.approx(work)


def test_a_wider_checkpoint_a_larger_task_and_a_larger_embedding_take_longer():
    short, long = (
        task_table()[name] for name in ("esc50-v2.0.0-full", "beehive_states_fold0-v2-full")
    )
    narrow, wide = (embedding_seconds(short, name, RATES) for name in ("mn04_as", "mn40_as"))
    assert wide > narrow
    assert embedding_seconds(long, "mn40_as", RATES) > wide
    assert evaluation_seconds(short, 8423, RATES, 8, CORE) > evaluation_seconds(
        short, 911, RATES, 8, CORE
    )


def test_the_study_is_printed_with_the_source_of_each_rate():
    measured = ("start_up_seconds", "prepared_audio", "core_training")
    known = {name: study.Known(getattr(RATES, name), "measured") for name in measured}
    text = study.report(known | study.GIVEN)
    for name in set(study.rate_names()) - set(measured):
        (line,) = (line for line in text.splitlines() if line.startswith(f"| {name} "))
        assert "an H200's" in line or "ASSUMED" in line
    assert "Longest path" in text
    assert "GB if nothing is deleted" in text


def test_an_unknown_part_or_rate_is_refused_with_those_there_are(capsys):
    with pytest.raises(SystemExit):
        main(["embeding"])
    assert "there are embedding, variants" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["study", "--rate", "gpu=1"])
    assert "gpu_multiply_adds" in capsys.readouterr().err


def test_a_pass_of_other_bits_than_two_is_found(monkeypatch):
    def both(x, bias, activation):
        return activate_((x + bias).half(), activation)

    monkeypatch.setattr(gpu, "biased", both)
    assert "the bits of two" in gpu.refuse_other_bits("cpu")
    # fmaxf of C gives 0 for NaN, where torch's relu gives NaN.
    monkeypatch.setattr(gpu, "biased", lambda *arguments: both(*arguments).nan_to_num(0, 1e9))
    with pytest.raises(AssertionError):
        gpu.refuse_other_bits("cpu")
