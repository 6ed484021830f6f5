"""The network: its layout, its features, what it computes and what it does not."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from hear_mn import bias_activation, mobilenet
from hear_mn.architecture import SE_BLOCKS, feature_sizes
from hear_mn.checkpoints import checkpoint, checkpoints, expected_shapes
from hear_mn.mobilenet import FoldedConvNorm, MobileNet, activate_, depth, folded, halved
from hear_mn.seeded import seeded_entry
from tests.conftest import needs_shared

LOG_MELS = torch.randn(2, 1, 128, 16, generator=torch.Generator().manual_seed(0))
NETWORK_FEATURES = [name for name in feature_sizes(0.4, "mlp", 128) if name != "mels"]
# one checkpoint of each layout
LAYOUTS = list(
    {
        (row.width, row.head, row.strides, row.n_mels, row.hop): name
        for name, row in checkpoints().items()
        if row.macs_10s
    }.values()
)


def seeded_network(name: str) -> MobileNet:
    row = checkpoint(name)
    network = MobileNet(row.width, row.head, row.strides)
    entries = {key: seeded_entry(key, shape) for key, shape in expected_shapes(row).items()}
    for key, entry in entries.items():  # statistics that folding can get wrong
        if key.endswith(("running_mean", "running_var")):
            entries[key] = entry + 0.3 * seeded_entry(f"{key}.weight", (1, *entry.shape))[0].abs()
    network.load_state_dict(entries, strict=True)
    return network


@pytest.mark.parametrize("name", LAYOUTS)
def test_parameters_are_as_many_as_published(name):
    row = checkpoint(name)
    with torch.device("meta"):
        network = MobileNet(row.width, row.head, row.strides)
    assert sum(parameter.numel() for parameter in network.parameters()) == row.parameters


@pytest.mark.parametrize("name", LAYOUTS)
def test_multiply_adds_of_ten_seconds_are_as_many_as_published(name):
    row = checkpoint(name)
    with torch.device("meta"):
        network = MobileNet(row.width, row.head, row.strides)
        log_mels = torch.empty(1, 1, row.n_mels, -(-320000 // row.hop))
    with FlopCounterMode(display=False) as counter:
        network(log_mels, ["logits"])
    assert counter.get_total_flops() / 2 == row.macs_10s


@needs_shared
def test_a_released_checkpoint_loads_unchanged(shared):
    path = shared / "real" / "weights" / "mn04_as_mAP_432.pt"
    state = torch.load(path, map_location="cpu", weights_only=True)
    MobileNet(0.4).load_state_dict(state, strict=True)


@pytest.mark.parametrize("name", ["mn01_as", "mn04_as", "mn10_as_fc_s2221"])
def test_every_feature_has_its_size_and_the_right_place(name):
    network = seeded_network(name)
    row = checkpoint(name)
    wanted = [feature for feature in row.feature_sizes if feature != "mels"]
    found = network(LOG_MELS, wanted)
    assert {key: value.shape[1] for key, value in found.items()} == {
        key: row.feature_sizes[key] for key in wanted
    }
    assert list(found) == wanted


def test_features_are_taken_where_the_reference_takes_them():
    network = seeded_network("mn04_as")
    outputs: dict[str, torch.Tensor] = {}

    def keep(name, take):
        return lambda module, inputs, output: outputs.update({name: take(output).clone()})

    for index, layer in enumerate(network.features):
        if 0 < index < 16:
            layer.register_forward_hook(keep(f"block{index}", lambda out: out[0].mean((2, 3))))
            if index in SE_BLOCKS:
                attention = layer.block[2].conc_se_layers[0]
                attention.fc1.register_forward_hook(keep(f"se{index}", lambda out: out))
    network.classifier["2"].register_forward_hook(keep("clf", torch.nn.functional.hardswish))
    found = network(LOG_MELS, NETWORK_FEATURES)
    for name in ["block5", "block10", "clf", *(f"se{index}" for index in SE_BLOCKS)]:
        assert torch.equal(found[name], outputs[name]), name


@pytest.mark.parametrize("name", NETWORK_FEATURES)
def test_a_feature_alone_is_the_same_as_with_all_others(name):
    network = seeded_network("mn04_as")
    assert torch.equal(network(LOG_MELS, [name])[name], network(LOG_MELS, NETWORK_FEATURES)[name])


def test_only_the_layers_that_are_needed_run():
    assert depth(["block0"]) == 1
    assert depth(["se4", "block5"]) == 6
    assert depth(["se15"]) == 16
    assert depth(["se4", "e1"]) == 17
    assert depth([]) == 0


@pytest.mark.parametrize("by_onednn", [True, False])
@pytest.mark.parametrize("name", ["mn01_as", "mn04_as", "mn10_as", "mn10_as_fc_s2211"])
@torch.inference_mode()
def test_folding_batch_norms_changes_nothing(name, by_onednn, monkeypatch):
    monkeypatch.setattr(mobilenet, "ONEDNN_MULTIPLY_ADDS", 0 if by_onednn else 10**9)
    network = seeded_network(name)
    wanted = [feature for feature in checkpoint(name).feature_sizes if feature != "mels"]
    expected = network(LOG_MELS, wanted)
    found = folded(network)(LOG_MELS, wanted)
    for feature in wanted:
        scale = expected[feature].abs().max()
        assert (found[feature] - expected[feature]).abs().max() < 1e-5 * scale, feature


def test_large_products_are_onednns_unless_they_need_gradients(monkeypatch):
    shapes = []

    def product(x, weight, bias):
        shapes.append(x.numel() * len(weight))
        return torch.nn.functional.linear(x, weight, bias)

    monkeypatch.setattr(mobilenet, "onednn_linear", product)
    monkeypatch.setattr(mobilenet, "ONEDNN", True)
    network = folded(seeded_network("mn10_as"))
    log_mels = torch.randn(2, 1, 128, 100)
    network(log_mels, ["e1"])
    assert not shapes
    with torch.inference_mode():
        network(log_mels, ["e1"])
    assert shapes
    assert min(shapes) >= mobilenet.ONEDNN_MULTIPLY_ADDS


def test_a_value_that_is_not_a_number_goes_through_the_network(monkeypatch):
    monkeypatch.setattr(mobilenet, "ONEDNN_MULTIPLY_ADDS", 0)
    log_mels = LOG_MELS.clone()
    log_mels[1, 0, 5, 5] = torch.nan
    with torch.inference_mode():
        embedded = folded(seeded_network("mn04_as"))(log_mels, ["e1"])["e1"]
    assert embedded[0].isfinite().all()
    assert embedded[1].isnan().any()


def test_half_precision_stays_near_float32():
    network = folded(seeded_network("mn04_as"))
    expected = network(LOG_MELS, NETWORK_FEATURES)
    found = halved(network)(LOG_MELS.half(), NETWORK_FEATURES)
    for feature in NETWORK_FEATURES:
        scale = expected[feature].abs().max()
        assert (found[feature] - expected[feature]).abs().max() < 0.03 * scale, feature


def test_a_gpu_plans_convolutions_of_a_large_shape_that_comes_often():
    layer = folded(seeded_network("mn04_as")).features[0]
    assert isinstance(layer, FoldedConvNorm)
    # The layer makes twice as many values as it reads: eight channels of one, at half the size.
    large, larger, small = (
        torch.empty(n, 1, 128, 1024, device="meta", dtype=torch.half) for n in (64, 128, 32)
    )
    assert [layer._pays_by_plan(large) for _ in range(66)] == [False] * 64 + [True] * 2
    assert [layer._pays_by_plan(larger) for _ in range(34)] == [False] * 32 + [True] * 2
    assert not any(layer._pays_by_plan(small) for _ in range(1000))


@pytest.mark.parametrize("activation", ["relu", "hardswish", None])
def test_a_gpu_gets_four_channels_with_their_biases_at_a_time(monkeypatch, activation):
    def kernel(four, first_two, last_two):
        # What the kernel does for one element of its operands, on a CPU.
        shape = torch.broadcast_shapes(four.shape, first_two.shape)
        pairs = [pair.expand(shape).contiguous() for pair in (first_two, last_two)]
        biases = torch.stack(pairs, dim=-1).view(torch.float32)
        values = four.view(torch.float16).view(*shape, 4)
        sums = (values + biases).half()
        return activate_(sums, activation).flatten(-2).view(torch.int64)

    monkeypatch.setattr(bias_activation, "_kernel", {activation: kernel}.__getitem__)
    x = 3 * torch.randn(2, 16, 5, 7).half().contiguous(memory_format=torch.channels_last)
    bias = torch.randn(16)
    for channels_last in (x.permute(0, 2, 3, 1), x[:, :, :1, :1].permute(0, 2, 3, 1)):
        found = bias_activation.biased(channels_last, bias, activation)
        assert torch.equal(found, activate_((channels_last + bias).half(), activation))


def test_train_mode_changes_nothing():
    network = seeded_network("mn04_as").eval()
    expected = network(LOG_MELS, ["logits"])["logits"]
    assert torch.equal(network.train()(LOG_MELS, ["logits"])["logits"], expected)


def test_an_unknown_head_is_refused():
    with pytest.raises(ValueError, match="must be 'mlp' or 'fully_convolutional'"):
        MobileNet(0.4, "attention")
