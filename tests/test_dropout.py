"""Masks drawn at once are the ones torch draws value by value, from the same generator."""

import pytest
import torch

from workflow_scripts.hear2021.evaluation import dropout
from workflow_scripts.hear2021.evaluation.dropout import VALUES_AT_ONCE, draw_at_once, scaled_mask


@pytest.mark.parametrize("drawn_before", [0, 1, 2, 311, 5000])
@pytest.mark.parametrize("shape", [(0,), (1,), (312,), (3, 209), (2, VALUES_AT_ONCE + 1)])
@pytest.mark.parametrize("kept", [0.9, 0.5, 1 / 3])
def test_a_mask_and_all_draws_after_it_are_torchs(drawn_before, shape, kept):
    torch.manual_seed(5)
    torch.empty(drawn_before).random_()
    uniform = torch.empty(shape, dtype=torch.float64).uniform_()  # what bernoulli_ compares
    expected = (uniform < kept).float().div_(kept), torch.rand(700), torch.randn(5)
    torch.manual_seed(5)
    torch.empty(drawn_before).random_()
    drawn = scaled_mask(torch.Size(shape), kept), torch.rand(700), torch.randn(5)
    assert all(torch.equal(a, b) for a, b in zip(expected, drawn, strict=True))


def network(p=0.1):
    torch.manual_seed(3)
    layers = [torch.nn.Linear(20, 40), torch.nn.Dropout(p), torch.nn.ReLU()]
    return torch.nn.Sequential(*layers, torch.nn.Sequential(torch.nn.Dropout(0.3)))


@pytest.mark.parametrize("training", [True, False])
def test_a_networks_output_and_gradients_stay_the_same(training, monkeypatch):
    monkeypatch.setattr(dropout, "VALUES_WORTHWHILE", 0)
    rows = torch.randn(50, 20)
    results = []
    for at_once in (False, True):
        net = network().train(training)
        if at_once:
            assert draw_at_once(net, 0) == dropout.draws_as_torch()
            assert any(isinstance(layer, torch.nn.Dropout) for layer in net.modules()) == (
                not dropout.draws_as_torch()
            )
        output = net(rows)
        output.sum().backward()
        results.append((output, net[0].weight.grad, torch.rand(3)))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize("p", [0, 1])
def test_a_dropout_of_nothing_or_all_draws_nothing_as_in_torch(p, monkeypatch):
    monkeypatch.setattr(dropout, "VALUES_WORTHWHILE", 0)
    rows = torch.randn(50, 20)
    results = []
    for at_once in (False, True):
        net = network(p)
        if at_once:
            draw_at_once(net, 0)
        results.append((net(rows), torch.rand(3)))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize(("n_values", "alike"), [(10**9, False), (1000, True)])
def test_torch_draws_where_it_draws_otherwise_or_little(n_values, alike, monkeypatch):
    monkeypatch.setattr(dropout, "draws_as_torch", lambda: alike)
    net = network()
    assert not draw_at_once(net, n_values)
    assert str(net) == str(network())
