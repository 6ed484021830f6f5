"""Adam's steps are torch's, bit for bit, whichever of ours takes them."""

import pytest
import torch

from workflow_scripts.hear2021.evaluation import adam
from workflow_scripts.hear2021.evaluation.adam import BLOCK, Adam, BlockwiseAdam, fastest_adam


def parameters_and_gradients(shapes):
    generator = torch.Generator().manual_seed(0)
    values = [torch.randn(shape, generator=generator) for shape in shapes]
    values[0] = values[0].t().contiguous().t()  # as training.lay_out_by_input leaves it
    gradients = [
        # Laid out as the parameters, as autograd does it, and as small as once it has learnt.
        [torch.randn_like(value) * 10.0 ** -(step % 9) for value in values]
        for step in range(20)
    ]
    return values, gradients


@pytest.mark.parametrize("ours", [Adam, fastest_adam])
def test_steps_are_torchs_bit_for_bit(ours, one_thread):
    shapes = [(300, 500), (7,), (2, BLOCK), (3, 5, 67), (BLOCK + 13,)]
    values, gradients = parameters_and_gradients(shapes)
    stepped = {}
    for kind in (torch.optim.Adam, ours):
        stepped[kind] = [torch.nn.Parameter(value.clone()) for value in values]
        optimizer = kind(stepped[kind], lr=1e-3)
        for of_a_step in gradients:
            for parameter, gradient in zip(stepped[kind], of_a_step, strict=True):
                parameter.grad = gradient.clone()
            stepped[kind][1].grad = None  # a parameter without a gradient stays
            optimizer.step()
    assert all(torch.equal(*pair) for pair in zip(*stepped.values(), strict=True))
    assert not torch.equal(stepped[ours][0], values[0])
    assert torch.equal(stepped[ours][1], values[1])


def test_a_large_network_on_one_core_is_stepped_block_by_block(one_thread, monkeypatch):
    large, small = torch.nn.Linear(1000, 500), torch.nn.Linear(1000, 499)
    kind = BlockwiseAdam if adam.steps_as_torch() else Adam
    assert type(fastest_adam(large.parameters(), 1e-3)) is kind
    assert type(fastest_adam(small.parameters(), 1e-3)) is Adam
    torch.set_num_threads(2)
    assert type(fastest_adam(large.parameters(), 1e-3)) is Adam
    torch.set_num_threads(1)
    monkeypatch.setattr(adam, "steps_as_torch", lambda: False)
    assert type(fastest_adam(large.parameters(), 1e-3)) is Adam


def test_a_machine_whose_steps_differ_in_a_bit_is_noticed(monkeypatch):
    monkeypatch.setattr(BlockwiseAdam, "_change", lambda self, number, *_: None)
    assert not adam.steps_as_torch.__wrapped__()
