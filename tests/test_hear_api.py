"""The HEAR API of a variant and the embedder beneath it."""

import operator
import random
import sys
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from types import ModuleType

import hear_mn.mn04_seeded_e1_l_mels as module
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hear_mn import module_embedder
from hear_mn.architecture import widest_activation
from hear_mn.audio import AudioError
from hear_mn.checkpoints import Checkpoint, CheckpointError, checkpoint, locate
from hear_mn.embedding import load_embedder
from hear_mn.hear_api import HearModel
from hear_mn.mobilenet import FoldedConvNorm, MobileNet
from hear_mn.mobilenet_embedder import MobileNetEmbedder
from hear_mn.module_embedder import ModuleEmbedder
from tests.benchmarks.gpu import by_feature

ALL_FEATURES = ["logits", "e1", "mels", "clf", "block0", "block5", "block10", "se4", "se15"]


def noise(*shape: int) -> Tensor:
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def assert_equal_up_to_rounding(found: Tensor, expected: Tensor) -> None:
    assert found.shape == expected.shape
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return locate("mn04_seeded", tmp_path_factory.mktemp("cache"))


@pytest.fixture
def model(weights):
    return module.load_model(str(weights))


@pytest.fixture
def embedder(weights):
    return load_embedder("mn04_seeded", weights, ALL_FEATURES, "cpu")


def test_a_model_says_its_sample_rate_and_sizes(model):
    assert isinstance(model, nn.Module)
    assert model.sample_rate == 32000
    assert model.scene_embedding_size == model.timestamp_embedding_size == 527 + 384 + 128


def test_load_model_without_a_path_takes_the_checkpoint_from_the_cache(weights, monkeypatch):
    monkeypatch.setenv("HEAR_MN_CACHE", str(weights.parent))
    assert isinstance(module.load_model(), HearModel)


def test_load_model_uses_the_file_it_is_given(weights, tmp_path):
    state = torch.load(weights, weights_only=True)
    state["classifier.5.bias"] += 1
    torch.save(state, tmp_path / "other.pt")
    audio = noise(1, 16000)
    before, after = (
        module.get_scene_embeddings(audio, module.load_model(str(path)))
        for path in (weights, tmp_path / "other.pt")
    )
    assert torch.allclose(after[:, :527] - before[:, :527], torch.tensor(1.0), atol=1e-4)


def test_the_vector_is_the_features_one_after_another(model, embedder):
    audio = noise(2, 16000)
    found = by_feature(embedder, audio)
    expected = torch.cat([found["logits"], found["e1"], found["mels"]], dim=1)
    assert_equal_up_to_rounding(module.get_scene_embeddings(audio, model), expected)


@pytest.mark.parametrize("n_samples", [20000, 400000])
def test_a_scene_does_not_depend_on_the_batch(embedder, n_samples):
    audio = noise(5, n_samples) * torch.logspace(-3, 0, 5)[:, None]
    together = embedder.scene(audio)
    for i in range(5):
        assert_equal_up_to_rounding(together[i], embedder.scene(audio[i : i + 1])[0])


@pytest.mark.parametrize("free", [10**9, 8 * 10**9, 80 * 10**9, 10**12])
def test_a_batch_takes_a_tenth_of_a_gpus_free_memory_up_to_a_limit(embedder, free, monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 10**12))
    monkeypatch.setattr(MobileNetEmbedder, "device", torch.device("cuda"))
    row = checkpoint("mn04_seeded")
    values = max(widest_activation(row.width, row.strides, row.n_mels), 2 * row.n_fft)
    most = min(0.1 * free, 6.5 * 2**30)  # bytes
    assert embedder._frames_per_batch() == int(most / (4 * values))


@pytest.mark.parametrize("frames", [16, 81, 101, 477])  # 81: of mridangam's clips of 0.81 s
@pytest.mark.parametrize("name", ["mn10_as", "mn20_as", "mn40_as_ext", "mn10_as_fc_s2211"])
def test_no_activation_on_a_large_gpu_has_as_many_values_as_32_bits_count(
    monkeypatch, name, frames
):
    row = checkpoint(name)
    with torch.device("meta"):
        network = MobileNet(row.width, row.head, row.strides)
    embedder = MobileNetEmbedder(row, network, ["e1"])
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (10**12, 10**12))
    monkeypatch.setattr(MobileNetEmbedder, "device", torch.device("cuda"))
    sizes = []
    for layer in embedder.network.modules():
        if isinstance(layer, FoldedConvNorm):
            layer.register_forward_hook(lambda layer, given, out: sizes.append(out.numel()))
    batch = embedder._frames_per_batch() // frames
    embedder.network(torch.empty(batch, 1, row.n_mels, frames, device="meta"), ["e1"])
    assert 2**29 < max(sizes) < 2**31


@pytest.mark.parametrize("frames_per_batch", [1, 100, 500])
def test_timestamps_do_not_depend_on_the_batch(embedder, frames_per_batch):
    audio = noise(3, 16000)
    expected, _ = embedder.timestamps(audio)
    embedder.frames_per_batch = frames_per_batch
    found, _ = embedder.timestamps(audio)
    assert_equal_up_to_rounding(found, expected)


@pytest.mark.parametrize(
    ("n_samples", "count"), [(2561, 2), (3199, 2), (3200, 3), (32000, 21), (63360, 40)]
)
def test_timestamps_are_every_50_ms_from_0_to_the_end(embedder, n_samples, count):
    _, times = embedder.timestamps(noise(2, n_samples))
    assert times.dtype == torch.float32
    assert times.tolist() == [[50.0 * i for i in range(count)]] * 2
    assert times.max() <= 1000 * n_samples / 32000


def test_a_timestamp_is_the_scene_embedding_of_its_window(embedder):
    audio = noise(1, 16000)
    found, _ = embedder.timestamps(audio)
    window = audio[:, 4 * 1600 - 2560 : 4 * 1600 + 2560]
    assert_equal_up_to_rounding(found[:, 4], embedder.scene(window))


@pytest.mark.parametrize(("n_samples", "windows"), [(320000, 1), (360320, 5)])
def test_a_scene_over_ten_seconds_is_the_mean_over_windows(embedder, n_samples, windows):
    audio = noise(1, n_samples)
    if windows > 1:
        padded = nn.functional.pad(audio, (160000, 160000), mode="reflect")
        pieces = padded.unfold(1, 320000, 80000)[0]
        assert len(pieces) == windows
    else:
        pieces = audio
    expected = torch.stack([embedder.scene(piece[None])[0] for piece in pieces]).mean(0)
    assert_equal_up_to_rounding(embedder.scene(audio)[0], expected)


def test_global_random_state_is_neither_used_nor_changed(weights):
    def states():
        of_numpy = np.random.get_state()[1].tolist()  # noqa: NPY002 - the global generator's
        return [torch.get_rng_state().tolist(), random.getstate(), of_numpy]

    audio = noise(1, 16000)
    torch.manual_seed(1)
    before = states()
    model = module.load_model(str(weights))
    first = module.get_scene_embeddings(audio, model)
    module.get_timestamp_embeddings(audio, model)
    assert states() == before
    torch.manual_seed(2)
    assert torch.equal(module.get_scene_embeddings(audio, module.load_model(str(weights))), first)


def test_train_mode_left_by_a_caller_changes_nothing(model):
    audio = noise(2, 16000)
    expected = module.get_scene_embeddings(audio, model.eval())
    assert torch.equal(module.get_scene_embeddings(audio, model.train()), expected)


def test_audio_is_left_as_it_was(embedder):
    audio = noise(2, 16000)
    before = audio.clone()
    embedder.scene(audio)
    embedder.timestamps(audio)
    assert torch.equal(audio, before)


def test_a_classifier_can_be_trained_on_the_embeddings(model):
    embeddings = module.get_scene_embeddings(noise(2, 16000), model)
    nn.Linear(embeddings.shape[1], 3)(embeddings).sum().backward()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_a_program_that_changes_torchs_default_type_gets_the_same_embeddings(weights, dtype):
    audio = noise(1, 16000)
    model = module.load_model(str(weights))
    expected = [
        module.get_scene_embeddings(audio, model),
        *module.get_timestamp_embeddings(audio, model),
    ]
    torch.set_default_dtype(dtype)
    try:
        model = module.load_model(str(weights))
        found = [
            module.get_scene_embeddings(audio, model),
            *module.get_timestamp_embeddings(audio, model),
        ]
    finally:
        torch.set_default_dtype(torch.float32)
    assert all(map(torch.equal, found, expected))


def test_a_program_under_autocast_gets_the_same_embeddings(model):
    audio = noise(2, 16000)
    expected = (
        module.get_scene_embeddings(audio, model),
        *module.get_timestamp_embeddings(audio, model),
    )
    with torch.autocast("cpu", torch.bfloat16):
        found = (
            module.get_scene_embeddings(audio, model),
            *module.get_timestamp_embeddings(audio, model),
        )
    assert all(map(torch.equal, found, expected))


@pytest.mark.parametrize("cast", [nn.Module.half, nn.Module.double])
def test_a_model_that_was_cast_says_so(model, cast):
    with pytest.raises(TypeError, match=r"was made torch\.float\d+; leave it as load_model"):
        module.get_scene_embeddings(noise(1, 16000), cast(model))


@pytest.mark.parametrize(
    ("audio", "reason"),
    [
        (np.zeros((1, 32000), dtype=np.float32), "must be a torch.Tensor, got ndarray"),
        (torch.zeros(32000), r"must be \[n_sounds, n_samples\].*the shape \[32000\]"),
        (torch.zeros(1, 1, 32000), r"the shape \[1, 1, 32000\]"),
        (torch.zeros(0, 32000), "at least one sound"),
        (torch.zeros(1, 32000, dtype=torch.int32), "floating point in .* got torch.int32"),
        (torch.full((1, 32000), torch.nan), r"NaN or infinite samples in sounds \[0\]"),
        (torch.tensor([[0.0] * 6000, [torch.inf] * 6000]), r"in sounds \[1\]"),
        (torch.zeros(1, 513), "513 samples, too short for one frame: at least"),
    ],
)
def test_audio_that_cannot_be_embedded_is_refused(embedder, audio, reason):
    with pytest.raises(AudioError, match=reason):
        embedder.scene(audio)
    with pytest.raises(AudioError, match=reason):
        embedder.timestamps(audio)


@pytest.mark.parametrize(
    "lengths", [[16001, 16100, 16320], [320_001, 340_000, 399_999]], ids=["a frame", "windows"]
)
def test_sounds_of_other_lengths_in_a_batch_have_the_embeddings_of_each_alone(embedder, lengths):
    assert len({embedder.alike(n) for n in lengths}) == 1
    assert embedder.alike(lengths[-1] + 1) > embedder.alike(lengths[-1])
    audio = noise(3, max(lengths))
    together = embedder.scene(audio, lengths=lengths)
    for i, length in enumerate(lengths):
        alone = embedder.scene(audio[i : i + 1, :length])[0]
        torch.testing.assert_close(together[i], alone, rtol=1e-4, atol=1e-4)


def test_sounds_of_other_lengths_go_together_whatever_torchs_default_device_is(embedder):
    audio = noise(2, 16100)
    expected = embedder.scene(audio, lengths=[16001, 16100])
    with torch.device("meta"):
        assert torch.equal(embedder.scene(audio, lengths=[16001, 16100]), expected)


def test_the_shortest_sound_of_a_batch_is_the_one_that_is_too_short(embedder):
    audio = noise(3, 600)
    with pytest.raises(AudioError, match="500 samples, too short"):
        embedder.scene(audio, lengths=[500, 600, 600])


def test_int16_samples_are_the_audio_divided_by_32768(embedder):
    samples = (20000 * noise(2, 16000)).round().clamp(-32768, 32767).to(torch.int16)
    audio = samples / 32768
    assert torch.equal(embedder.scene(samples), embedder.scene(audio))
    assert torch.equal(embedder.timestamps(samples)[0], embedder.timestamps(audio)[0])


def test_the_shortest_audio_is_a_frame_for_a_scene_and_over_80_ms_for_timestamps(embedder):
    assert torch.isfinite(embedder.scene(noise(1, 514))).all()
    assert torch.isfinite(embedder.timestamps(noise(1, 2561))[0]).all()
    with pytest.raises(AudioError, match="at least 2561 are needed"):
        embedder.timestamps(noise(1, 2560))


def test_a_feature_that_does_not_exist_is_refused(weights):
    with pytest.raises(ValueError, match="mn04_seeded has no feature b5; it has logits, e1"):
        load_embedder("mn04_seeded", weights, ["e1", "b5"], "cpu")


def test_an_unknown_precision_is_refused(weights):
    with pytest.raises(ValueError, match="must be 'half' or 'float32'"):
        load_embedder("mn04_seeded", weights, ["e1"], "cpu", precision="bfloat16")


def test_mels_alone_do_not_run_the_network(weights, monkeypatch):
    embedder = load_embedder("mn04_seeded", weights, ["mels"], "cpu")
    monkeypatch.setattr(embedder.network, "forward", None)
    assert embedder.scene(noise(1, 16000)).shape == (1, 128)


def test_all_features_come_from_one_pass(embedder, monkeypatch):
    forward, calls = embedder.network.forward, []
    monkeypatch.setattr(
        embedder.network, "forward", lambda *args: calls.append(args) or forward(*args)
    )
    embedder.scene(noise(2, 16000))
    assert len(calls) == 1


@pytest.mark.parametrize(
    "error",
    [
        torch.cuda.OutOfMemoryError(),
        RuntimeError("GET was unable to find an engine to execute this computation"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"),
        RuntimeError("cuFFT error: CUFFT_INTERNAL_ERROR"),
        torch.AcceleratorError("CUDA error: out of memory", 2),
    ],
)
def test_out_of_gpu_memory_halves_the_batch_with_a_warning(embedder, monkeypatch, error):
    audio = noise(2, 32000)
    expected, _ = embedder.timestamps(audio)
    forward = embedder.network.forward

    def forward_in_little_memory(log_mels, wanted):
        if len(log_mels) > 10:
            raise error
        return forward(log_mels, wanted)

    monkeypatch.setattr(embedder.network, "forward", forward_in_little_memory)
    with pytest.warns(RuntimeWarning, match="out of GPU memory") as caught:
        found, _ = embedder.timestamps(audio)
    batches = [str(warning.message).split()[5] for warning in caught]
    assert batches == ["42", "21"]  # of which nothing is tried that is known to be too much
    assert_equal_up_to_rounding(found, expected)


def test_what_a_batch_held_that_ran_out_of_memory_is_gone_before_the_next(embedder, monkeypatch):
    forward = embedder.network.forward
    held = []

    def forward_that_fails_once(log_mels, wanted):
        if not held:
            held.append(weakref.ref(log_mels))
            raise torch.cuda.OutOfMemoryError
        return forward(log_mels, wanted)

    monkeypatch.setattr(embedder.network, "forward", forward_that_fails_once)
    emptied = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append(held[0]()))
    with pytest.warns(RuntimeWarning, match="out of GPU memory"):
        embedder.scene(noise(2, 32000))
    assert emptied == [None]


def test_a_model_that_is_moved_finds_its_batch_anew(weights, monkeypatch):
    model = module.load_model(str(weights))
    embedder = model.embedder
    embedder.scene(noise(1, 16000))
    on_cpu = embedder.frames_per_batch
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (10**12, 10**12))
    with monkeypatch.context() as moved:
        model.to("cpu")
        moved.setattr(MobileNetEmbedder, "device", torch.device("cuda"))
        assert embedder._frames_per_batch() > 100 * on_cpu
    model.to("cpu")
    assert embedder._frames_per_batch() == on_cpu


def test_other_weights_and_another_device_drop_the_copy_in_half_precision(weights):
    embedder = load_embedder("mn04_seeded", weights, ("e1",), "cpu")
    before = embedder._half_network()
    assert embedder._half_network() is before
    embedder.load_state_dict(embedder.state_dict())
    after = embedder._half_network()
    assert after is not before
    embedder.to("cpu")
    assert embedder._half_network() is not after


@pytest.mark.parametrize("name", ["cuda.matmul", "cudnn.conv", "mkldnn.matmul", "mkldnn.conv"])
def test_a_program_that_sets_tensor_float_32_keeps_its_setting(embedder, name):
    setting = operator.attrgetter(name)(torch.backends)
    before = setting.fp32_precision
    setting.fp32_precision = "tf32"
    try:
        embedder.scene(noise(1, 16000))
        assert setting.fp32_precision == "tf32"
    finally:
        setting.fp32_precision = before


@pytest.mark.parametrize("name", ["cuda.matmul", "cudnn.conv", "mkldnn.matmul", "mkldnn.conv"])
def test_a_program_that_embeds_in_two_threads_keeps_its_setting(embedder, monkeypatch, name):
    setting = operator.attrgetter(name)(torch.backends)
    forward = embedder.network.forward
    first_in, second_in, first_out = (threading.Event() for _ in range(3))
    seen = []

    def overlapping(*args):
        if not first_in.is_set():
            first_in.set()
            assert second_in.wait(10)
        else:
            second_in.set()
            assert first_out.wait(10)
            seen.append(setting.fp32_precision)
        return forward(*args)

    monkeypatch.setattr(embedder.network, "forward", overlapping)
    before = setting.fp32_precision
    setting.fp32_precision = "tf32"
    try:
        with ThreadPoolExecutor(2) as threads:
            first = threads.submit(embedder.scene, noise(1, 16000))
            assert first_in.wait(10)
            second = threads.submit(embedder.scene, noise(1, 16000))
            first.result()
            first_out.set()
            second.result()
        assert seen == ["ieee"]
        assert setting.fp32_precision == "tf32"
    finally:
        setting.fp32_precision = before


def test_another_error_than_too_little_memory_is_raised_as_it_is(embedder, monkeypatch):
    def forward_in_error(log_mels, wanted):
        raise RuntimeError("an illegal memory access was encountered")

    monkeypatch.setattr(embedder.network, "forward", forward_in_error)
    with pytest.raises(RuntimeError, match="illegal memory access"):
        embedder.timestamps(noise(1, 16000))


def test_no_memory_for_one_window_is_an_error(embedder, monkeypatch):
    def forward_without_memory(log_mels, wanted):
        raise torch.cuda.OutOfMemoryError

    monkeypatch.setattr(embedder.network, "forward", forward_without_memory)
    with pytest.raises(torch.cuda.OutOfMemoryError), pytest.warns(RuntimeWarning):
        embedder.timestamps(noise(1, 16000))


def test_another_models_object_is_refused():
    with pytest.raises(TypeError, match="must be what load_model returned, got Linear"):
        module.get_scene_embeddings(noise(1, 16000), nn.Linear(1, 1))


class Loudness(nn.Module):
    """A HEAR model that is not ours: the root mean square, and a trap in train mode."""

    sample_rate = 16000
    scene_embedding_size = 1
    timestamp_embedding_size = 1

    def loudness(self, audio: Tensor) -> Tensor:
        assert not self.training
        return audio.square().mean(-1, keepdim=True).sqrt()


@pytest.fixture
def loudness(monkeypatch):
    api = ModuleType("loudness")
    api.load_model = lambda path="": Loudness()
    api.get_scene_embeddings = lambda audio, model: model.loudness(audio)
    api.get_timestamp_embeddings = lambda audio, model: (
        model.loudness(audio)[:, None],
        torch.zeros(len(audio), 1),
    )
    monkeypatch.setitem(sys.modules, "loudness", api)
    return Checkpoint("loudness", "module", 16000, module="loudness")


def test_a_module_that_is_not_ours_has_the_same_interface(loudness):
    embedder = ModuleEmbedder(loudness, None, ["embedding"], "cpu")
    audio = noise(2, 16000)
    assert embedder.feature_sizes == {"embedding": 1}
    assert embedder.scene(audio).shape == (2, 1)
    found, times = embedder.timestamps(audio)
    assert found.shape == (2, 1, 1)
    assert times.shape == (2, 1)


def test_a_module_that_turns_gradients_on_gives_embeddings_without(loudness, monkeypatch):
    def timestamps(audio, model):
        with torch.enable_grad():
            gain = torch.ones(1, requires_grad=True)
            return gain * model.loudness(audio)[:, None], gain * torch.zeros(len(audio), 1)

    embedder = ModuleEmbedder(loudness, None, ["embedding"], "cpu")
    monkeypatch.setattr(embedder.module, "get_timestamp_embeddings", timestamps)
    for found in embedder.timestamps(noise(2, 16000)):
        found.numpy()


def test_a_module_may_write_all_its_embeddings_into_the_same_memory(loudness, monkeypatch):
    memory = torch.empty(1, 1)

    def scene(audio, model):
        return torch.mul(model.loudness(audio), 1, out=memory)

    def timestamps(audio, model):
        return scene(audio, model)[:, None], torch.zeros(len(audio), 1)

    embedder = ModuleEmbedder(loudness, None, ["embedding"], "cpu")
    monkeypatch.setattr(embedder.module, "get_scene_embeddings", scene)
    monkeypatch.setattr(embedder.module, "get_timestamp_embeddings", timestamps)
    monkeypatch.setattr(module_embedder, "MODULE_BATCH_SECONDS", 1.0)  # one sound at a time
    audio = noise(2, 16000)
    expected = embedder.model.loudness(audio)
    assert torch.equal(embedder.scene(audio), expected)
    found = [embedder.timestamps(audio[i : i + 1])[0] for i in range(2)]
    assert torch.equal(torch.cat(found)[:, 0], expected)


def test_a_module_without_parameters_computes_where_its_buffers_are(loudness):
    embedder = ModuleEmbedder(loudness, None, ["embedding"], "cpu")
    embedder.model.register_buffer("window", torch.ones(1))
    assert embedder.device == torch.device("cpu")
    assert embedder.to("meta").device == torch.device("meta")


def test_a_module_with_another_sample_rate_than_its_row_is_refused(loudness):
    row = Checkpoint("loudness", "module", 32000, module="loudness")
    with pytest.raises(CheckpointError, match=r"wants 16000 Hz, its row .* says 32000"):
        ModuleEmbedder(row, None, ["embedding"], "cpu")


def test_a_module_that_returns_another_size_than_it_declares_is_refused(loudness):
    embedder = ModuleEmbedder(loudness, None, ["embedding"], "cpu")
    embedder.scene_size = embedder.timestamp_size = 1487
    with pytest.raises(CheckpointError, match=r"returned \[1, 1\], expected a tensor \[1, 1487\]"):
        embedder.scene(noise(1, 16000))
    with pytest.raises(CheckpointError, match=r"\[1, 1, 1\], expected a tensor \[1, 1, 1487\]"):
        embedder.timestamps(noise(1, 16000))


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (lambda audio: np.zeros((2, 1)), "returned ndarray, expected a tensor"),
        (lambda audio: torch.zeros(2, 7, 1), r"returned \[2, 7, 1\], expected a tensor \[2, 1\]"),
        (
            lambda audio: audio[:, :, None] @ audio,
            r"failed on sounds of the shape \[2, 16000\]: Ru",
        ),
        (lambda audio: 1 / 0, "ZeroDivisionError: division by zero"),
    ],
)
def test_what_a_module_does_wrong_is_said_with_its_name(loudness, monkeypatch, found, said):
    embedder = ModuleEmbedder(loudness, None, ["embedding"], "cpu")
    monkeypatch.setattr(embedder.module, "get_scene_embeddings", lambda audio, model: found(audio))
    with pytest.raises(CheckpointError, match=f"^loudness: get_scene_embeddings of .*{said}"):
        embedder.scene(noise(2, 16000))


@pytest.mark.parametrize(
    ("times", "refused"),
    [
        (torch.arange(0.0, 4000.0, 50.0), False),
        (torch.arange(500.0, 3500.0, 100.0), False),  # windows of a second that end with the sound
        (torch.tensor([2000.0]), False),
        (torch.arange(0.0, 4.0, 0.05), True),  # seconds
        (torch.arange(0.0, 64000.0, 800.0), True),  # samples
        (torch.arange(0.0, 1000.0, 50.0), True),  # the first quarter
        (torch.full((5,), torch.nan), True),
        (torch.arange(4000.0, 0.0, -50.0), True),
    ],
)
def test_times_of_a_module_are_milliseconds_over_the_whole_sound(
    loudness, monkeypatch, times, refused
):
    embedder = ModuleEmbedder(loudness, None, ["embedding"], "cpu")
    monkeypatch.setattr(
        embedder.module,
        "get_timestamp_embeddings",
        lambda audio, model: (torch.zeros(len(audio), len(times), 1), times.expand(len(audio), -1)),
    )
    expected = pytest.raises(CheckpointError, match=r"of sounds of 4000 ms\. HEAR wants millisec")
    with expected if refused else nullcontext():
        embedder.timestamps(noise(2, 64000))


def test_times_of_a_module_are_looked_at_once_a_length(loudness, monkeypatch):
    embedder = ModuleEmbedder(loudness, None, ["embedding"], "cpu")
    lengths = []
    monkeypatch.setattr(embedder, "_check_times", lambda times, ms: lengths.append(ms))
    for n_samples in (16000, 64000, 16000, 64000):
        embedder.timestamps(noise(2, n_samples))
    assert lengths == [1000, 4000]


def test_a_module_that_gives_no_timestamp_is_named(loudness, monkeypatch):
    embedder = ModuleEmbedder(loudness, None, ["embedding"], "cpu")
    nothing = torch.zeros(2, 0, 1), torch.zeros(2, 0)
    monkeypatch.setattr(embedder.module, "get_timestamp_embeddings", lambda audio, model: nothing)
    with pytest.raises(CheckpointError, match=r"^loudness: .* returned no timestamp of .* 1000 ms"):
        embedder.timestamps(noise(2, 16000))


@pytest.mark.parametrize(
    ("load_model", "said"),
    [
        (nn.Identity, "the model of loudness has no sample_rate, scene_embedding_size"),
        (lambda path: None, "load_model of loudness failed on no file .`weights` in the config"),
    ],
)
def test_a_module_without_the_hear_api_is_told_what_is_absent(
    loudness, monkeypatch, load_model, said
):
    monkeypatch.setattr(sys.modules["loudness"], "load_model", load_model)
    with pytest.raises(CheckpointError, match=said):
        ModuleEmbedder(loudness, None, ["embedding"], "cpu")


def test_a_module_with_a_syntax_error_is_named(tmp_path, monkeypatch):
    (tmp_path / "with_a_slip.py").write_text("def load_model(:\n")
    monkeypatch.syspath_prepend(tmp_path)
    row = Checkpoint("slip", "module", 16000, module="with_a_slip")
    with pytest.raises(
        CheckpointError, match="slip: its module with_a_slip cannot be imported: Sy"
    ):
        ModuleEmbedder(row, None, ["embedding"], "cpu")


def test_a_module_that_ends_the_process_is_named(tmp_path, monkeypatch):
    (tmp_path / "of_a_program.py").write_text(
        "import argparse\nparser = argparse.ArgumentParser()\nparser.parse_args(['--log', 'a'])\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    row = Checkpoint("program", "module", 16000, module="of_a_program")
    with pytest.raises(CheckpointError, match=r"of_a_program cannot be imported: SystemExit: 2"):
        ModuleEmbedder(row, None, ["embedding"], "cpu")


def test_a_module_that_is_not_installed_is_named():
    row = Checkpoint("absent", "module", 32000, module="no_such_package.base")
    with pytest.raises(CheckpointError, match=r"cannot import its module no_such_package\.base"):
        ModuleEmbedder(row, None, ["embedding"], "cpu")
