"""Matrix products of linear layers on a CPU with the digits of torch's, by faster kernels.

torch multiplies by MKL, which does without AVX-512 on an AMD CPU. It sums what makes one value of a
product in blocks, each from zero, one number after the other, and adds the blocks in their order
(found as in FPRev, Xie et al. 2024). oneDNN, which comes with torch for convolutions, sums as many
numbers as a block has in the same way, and with all of the registers' width. So a product of
oneDNN's for each block gives the same bits.
"""

import time
from collections.abc import Callable, Collection, Iterator, Set
from functools import cache
from typing import Any

import torch

BLOCK = 192
TELLING_OUTPUTS = 32  # of a layer: two orders of summing, tried once, can agree on fewer by chance
MULTIPLY_ADDS_WORTHWHILE = 2**22


def multiply_in_blocks(predictor: torch.nn.Module, n_rows: Collection[int]) -> int:
    """Replace the linear layers of a predictor on a CPU that are faster in blocks, bit for bit.

    Args:
        predictor: its linear layers are replaced; their parameters stay.
        n_rows: of the batches to come; those of other sizes are multiplied as before.

    Returns:
        How many layers were replaced.
    """
    replaced, threads = 0, torch.get_num_threads()
    for parent in list(predictor.modules()):
        for name, layer in parent.named_children():
            if not isinstance(layer, torch.nn.Linear):
                continue
            of_layer = layer.in_features, layer.out_features, by_input(layer.weight), threads
            in_blocks = {n for n in n_rows if faster_in_blocks(n, *of_layer)}
            if in_blocks:
                setattr(parent, name, BlockwiseLinear(layer, in_blocks))
                replaced += 1
    return replaced


class BlockwiseLinear(torch.nn.Linear):
    """torch.nn.Linear on a CPU, bit for bit, where `faster_in_blocks`.

    Attributes:
        n_rows: of the batches multiplied in blocks.
        laid_out_by_input: how its weights lie as long as any are.
    """

    def __init__(self, layer: torch.nn.Linear, n_rows: Set[int]) -> None:
        # On this device torch's class draws no values, which the protocol would miss.
        super().__init__(layer.in_features, layer.out_features, device="meta")
        self.weight, self.bias = layer.weight, layer.bias
        self.n_rows, self.laid_out_by_input = n_rows, by_input(layer.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (n, in_features) to (n, out_features)."""
        if len(x) not in self.n_rows or by_input(self.weight) != self.laid_out_by_input:
            return super().forward(x)
        return _Product.apply(x, self.weight, self.bias)  # type: ignore[no-any-return]


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, rows: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor
    ) -> torch.Tensor:
        ctx.save_for_backward(rows, weight)
        return product(rows, weight, bias)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # type: ignore[override]
        rows, weight = ctx.saved_tensors
        of_rows = product(gradient, weight.t()) if ctx.needs_input_grad[0] else None
        return of_rows, weight_gradient(rows, gradient, by_input(weight)), gradient.sum(0)


def by_input(weight: torch.Tensor) -> bool:
    """Return whether a layer's weights are laid out by input (`training.lay_out_by_input`)."""
    return not weight.is_contiguous()


def weight_gradient(
    rows: torch.Tensor, gradient: torch.Tensor, laid_out_by_input: bool
) -> torch.Tensor:
    """Return the gradient of a layer's weights, laid out as they are."""
    if laid_out_by_input:
        return product(rows.t(), gradient.t()).t()
    return product(gradient.t(), rows.t())


def product(a: torch.Tensor, b: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """Return `a @ b.t() + bias`, summed block by block.

    Args:
        a: float32 (m, k).
        b: float32 (n, k).
        bias: float32 (n,).

    Returns:
        float32 (m, n).
    """
    linear = torch.ops.mkldnn._linear_pointwise
    (a_block, b_block), *others = (
        (a[:, block], _without_gaps(b[:, block])) for block in blocks(a.shape[1])
    )
    summed: torch.Tensor = linear(a_block, b_block, bias, "none", [], "")
    for a_block, b_block in others:
        summed = linear.binary(a_block, summed, b_block, None, "add")
    return summed


def _without_gaps(b: torch.Tensor) -> torch.Tensor:
    """Return a matrix without gaps, for which oneDNN has other kernels than its slowest."""
    return b if b.t().is_contiguous() else b.contiguous()


def blocks(k: int) -> Iterator[slice]:
    """Return the blocks in which MKL sums k numbers on an AMD CPU."""
    size = k // 2 if BLOCK < k < 2 * BLOCK else BLOCK
    return (slice(start, min(start + size, k)) for start in range(0, k, size))


@cache
def faster_in_blocks(
    n_rows: int, n_inputs: int, n_outputs: int, laid_out_by_input: bool, threads: int
) -> bool:
    """Try whether a layer's products are torch's bit for bit, forward and backward, and faster.

    Args:
        n_rows: of a batch.
        n_inputs, n_outputs, laid_out_by_input: of the layer.
        threads: of torch, by which its products can differ.
    """
    if (
        not torch.backends.mkldnn.is_available()
        or torch.backends.cpu.get_cpu_capability() != "AVX512"
        or n_outputs < TELLING_OUTPUTS
        or n_rows * n_inputs * n_outputs < MULTIPLY_ADDS_WORTHWHILE
    ):
        return False
    generator = torch.Generator().manual_seed(0)  # leaves the protocol's draws alone
    rows, weight, bias, gradient = (
        torch.randn(shape, generator=generator)
        for shape in ((n_rows, n_inputs), (n_outputs, n_inputs), n_outputs, (n_rows, n_outputs))
    )
    laid_out = weight.t().contiguous().t() if laid_out_by_input else weight
    products = [
        (
            lambda: torch.addmm(bias, rows, weight.t()),
            lambda: product(rows, laid_out, bias),
        ),
        (
            lambda: gradient.t().mm(rows),
            lambda: weight_gradient(rows, gradient, laid_out_by_input),
        ),
        (
            lambda: gradient.mm(weight),
            lambda: product(gradient, laid_out.t()),
        ),
    ]
    alike = all(torch.equal(by_torch(), in_blocks()) for by_torch, in_blocks in products)
    return alike and sum(_seconds(in_blocks) for _, in_blocks in products) < sum(
        _seconds(by_torch) for by_torch, _ in products
    )


def _seconds(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
