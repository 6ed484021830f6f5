"""A layer multiplied in blocks has the bits of torch's, or is left to torch."""

import itertools

import numpy as np
import pytest
import torch

from workflow_scripts.hear2021.evaluation import products
from workflow_scripts.hear2021.evaluation.products import (
    BlockwiseLinear,
    blocks,
    faster_in_blocks,
    multiply_in_blocks,
    product,
)

pytestmark = pytest.mark.usefixtures("one_thread")


def network():
    torch.manual_seed(3)
    layers = [torch.nn.Linear(250, 70), torch.nn.ReLU(), torch.nn.Linear(70, 400), torch.nn.ReLU()]
    return torch.nn.Sequential(torch.nn.Sequential(*layers), torch.nn.Linear(400, 40))


@pytest.mark.parametrize(
    ("k", "sizes"),
    [
        (1, [1]),
        (192, [192]),
        (193, [96, 96, 1]),
        (240, [120, 120]),
        (384, [192, 192]),
        (911, [192, 192, 192, 192, 143]),
    ],
)
def test_blocks_are_of_192_numbers_or_two_halves(k, sizes):
    assert [len(range(k)[block]) for block in blocks(k)] == sizes
    assert [i for block in blocks(k) for i in range(k)[block]] == list(range(k))


@pytest.mark.parametrize("k", [1, 70, 250, 911])
@pytest.mark.parametrize("by_input", [False, True])
def test_a_product_in_blocks_is_the_product(k, by_input):
    a, b, bias = torch.randn(60, k), torch.randn(50, k), torch.randn(50)
    if by_input:
        a, b = a.t().contiguous().t(), b.t().contiguous().t()
    exact = a.double() @ b.double().t()
    for ours, expected in ((product(a, b), exact), (product(a, b, bias), exact + bias.double())):
        np.testing.assert_allclose(ours, expected, atol=2e-5 * k**0.5)


@pytest.mark.parametrize("by_input", [False, True])
@pytest.mark.parametrize("training", [True, False])
def test_a_networks_output_and_gradients_stay_the_same(by_input, training, blocks_worthwhile):
    rows = torch.randn(90, 250)
    results = []
    for in_blocks in (False, True):
        net = network().train(training)
        if by_input:
            net[0][0].weight.data = net[0][0].weight.t().contiguous().t()
        if in_blocks:
            of_layers = (250, 70, by_input), (70, 400, False), (400, 40, False)
            alike = [faster_in_blocks(90, *of_layer, 1) for of_layer in of_layers]
            assert multiply_in_blocks(net, [90, 90]) == sum(alike)
            assert [type(net[0][0]), type(net[0][2]), type(net[1])] == [
                BlockwiseLinear if layer else torch.nn.Linear for layer in alike
            ]
        output = net(rows)
        output.square().sum().backward()
        gradients = [parameter.grad for parameter in net.parameters()]
        assert [g.stride() for g in gradients] == [p.stride() for p in net.parameters()]
        assert list(net.state_dict()) == list(network().state_dict())
        results.append([output, *gradients, torch.rand(3)])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def sparse(shape, generator):
    values = torch.randn(shape, generator=generator).relu()
    return values * (torch.rand(shape, generator=generator) < 0.9)


def tiny(shape, generator):
    return 1e-21 * torch.randn(shape, generator=generator)  # their products have lost digits


def of_many_magnitudes(shape, generator):
    return (
        torch.randn(shape, generator=generator)
        * torch.randn(shape, generator=generator).mul(8).exp()
    )


@pytest.mark.parametrize("values", [sparse, tiny, of_many_magnitudes])
@pytest.mark.parametrize("seed", range(12))
def test_a_layer_that_passed_the_trial_has_torchs_bits_for_all_values(
    seed, values, blocks_worthwhile
):
    random, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    n_rows, n_inputs, n_outputs = (
        int(random.integers(*r)) for r in ((2, 400), (1, 1200), (32, 400))
    )
    rows, gradient = values((n_rows, n_inputs), generator), values((n_rows, n_outputs), generator)
    results = []
    for in_blocks in (False, True):
        torch.manual_seed(seed)
        net = torch.nn.Sequential(torch.nn.Linear(n_inputs, n_outputs))
        if in_blocks:
            if seed % 2:
                net[0].weight.data = net[0].weight.t().contiguous().t()
            if not multiply_in_blocks(net, [n_rows]):
                return  # nothing to hold: it did not pass
        given = rows.clone().requires_grad_()
        output = net(given)
        output.backward(gradient)
        results.append([output, given.grad, net[0].weight.grad, net[0].bias.grad])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_batches_and_layouts_not_tried_are_multiplied_by_torch(monkeypatch):
    monkeypatch.setattr(products, "faster_in_blocks", lambda n_rows, *_: n_rows == 90)
    net = network()
    assert multiply_in_blocks(net, [90, 91]) == 3
    monkeypatch.setattr(products, "product", lambda *_: pytest.fail("in blocks"))
    for n_rows in (89, 91):
        rows = torch.randn(n_rows, 250)
        assert torch.equal(net(rows), network()(rows))
    layer, rows = net[0][0], torch.randn(90, 250)
    with pytest.raises(pytest.fail.Exception, match="in blocks"):
        layer(rows)
    layer.weight.data = layer.weight.t().contiguous().t()
    torch.testing.assert_close(layer(rows), network()[0][0](rows))


def test_layers_that_are_not_faster_in_blocks_stay(monkeypatch):
    monkeypatch.setattr(products, "faster_in_blocks", lambda *_: False)
    net = network()
    assert multiply_in_blocks(net, [90]) == 0
    assert str(net) == str(network())


@pytest.fixture
def all_alike(blocks_worthwhile, monkeypatch):
    """A processor with AVX-512, and trials of whole numbers, whose sums are exact in any order."""

    def whole_numbers(shape, generator):
        return torch.randint(-3, 4, torch.empty(shape).shape, generator=generator).float()

    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    monkeypatch.setattr(torch, "randn", whole_numbers)


@pytest.mark.parametrize("by_input", [False, True])
def test_a_layer_is_multiplied_in_blocks_where_no_bit_changes(by_input, all_alike):
    random_state = torch.get_rng_state()
    assert faster_in_blocks(90, 250, 70, by_input, 1)
    assert torch.equal(torch.get_rng_state(), random_state)


@pytest.mark.parametrize("which", ["output", "gradient of the weights", "gradient of the rows"])
def test_a_bit_that_differs_is_noticed(which, monkeypatch, all_alike):
    shape = {
        "output": (90, 70),
        "gradient of the weights": (70, 250),
        "gradient of the rows": (90, 250),
    }[which]

    def another(a, b, bias=None):
        summed = product(a, b, bias)
        if summed.shape == shape:
            summed[-1, -1] = summed[-1, -1].nextafter(torch.tensor(9.0))
        return summed

    monkeypatch.setattr(products, "product", another)
    assert not faster_in_blocks(90, 250, 70, False, 1)


@pytest.mark.parametrize(
    "case", ["slower", "too little", "too few outputs", "a processor without AVX-512"]
)
def test_torch_multiplies_where_blocks_would_not_help(case, monkeypatch, all_alike):
    n_outputs = 31 if case == "too few outputs" else 70
    if case == "slower":
        seconds = itertools.count(100, step=-1)
        monkeypatch.setattr(products, "_seconds", lambda work: next(seconds))
    if case == "too little":
        monkeypatch.setattr(products, "MULTIPLY_ADDS_WORTHWHILE", 90 * 250 * 70 + 1)
    if case == "a processor without AVX-512":
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    assert not faster_in_blocks(90, 250, n_outputs, False, 1)
