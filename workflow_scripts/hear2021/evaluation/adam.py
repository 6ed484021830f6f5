"""torch.optim.Adam with its defaults, bit for bit, and in fewer passes over memory on one core.

An optimiser's step is bound by memory: torch goes over a layer seven times for it.
"""

from collections.abc import Callable, Iterable
from functools import cache

import numpy as np
import torch

from workflow_scripts.hear2021.evaluation.compilation import compiled

BETAS = (0.9, 0.999)
EPSILON = 1e-8

BLOCK = 2**16  # values whose state stays in a core's cache
VALUES_WORTHWHILE = 500_000


class Adam:
    """Adam for parameters of any kind, on any device.

    torch's own class imports torch._dynamo when made, some 900 modules.
    """

    def __init__(self, parameters: Iterable[torch.nn.Parameter], lr: float) -> None:
        self._parameters = list(parameters)
        self._lr = lr
        self._steps = 0
        # As tensors, which torch makes of numbers at each call: 0.3 ms a step of 2.7 (911 x 1024).
        self._beta2, self._epsilon, self._correction = (
            torch.tensor(value, dtype=torch.float32) for value in (BETAS[1], EPSILON, 1.0)
        )
        self._first, self._second = (
            [torch.zeros_like(parameter) for parameter in self._parameters] for _ in range(2)
        )
        # One after the other in the same memory, which stays in the cache.
        largest = max(self._parameters, key=torch.numel)
        scratch = torch.empty(largest.numel(), device=largest.device)
        self._denominator = [scratch.as_strided(p.shape, p.stride()) for p in self._parameters]

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for parameter in self._parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Change the parameters by their gradients."""
        self._steps += 1
        step_size = self._lr / (1 - BETAS[0] ** self._steps)
        correction = (1 - BETAS[1] ** self._steps) ** 0.5
        for number, parameter in enumerate(self._parameters):
            if parameter.grad is not None:
                self._change(number, parameter.grad, step_size, correction)

    def _change(
        self, number: int, gradient: torch.Tensor, step_size: float, correction: float
    ) -> None:
        first, second = self._first[number], self._second[number]
        first.lerp_(gradient, 1 - BETAS[0])
        second.mul_(self._beta2).addcmul_(gradient, gradient, value=1 - BETAS[1])
        denominator = torch.sqrt(second, out=self._denominator[number])
        denominator.div_(self._correction.fill_(correction)).add_(self._epsilon)
        self._parameters[number].addcdiv_(first, denominator, value=-step_size)


class BlockwiseAdam(Adam):
    """Adam for float32 parameters on a CPU, block by block, where `steps_as_torch`.

    A block's moments, and then its values, are changed by a compiled function. The square root
    between them is torch's: MKL's, which rounds a few values in 100,000 differently from the
    processor's own.
    """

    def __init__(self, parameters: Iterable[torch.nn.Parameter], lr: float) -> None:
        super().__init__(parameters, lr)
        self._change_moments, self._change_values = _compiled()
        self._weights = [np.float32(w) for w in (1 - BETAS[0], BETAS[1], 1 - BETAS[1])]
        self._blocks = [
            list(zip(*(_blocks(tensor) for tensor in tensors), strict=True))
            for tensors in zip(
                self._parameters, self._first, self._second, self._denominator, strict=True
            )
        ]

    def _change(
        self, number: int, gradient: torch.Tensor, step_size: float, correction: float
    ) -> None:
        numbers = [np.float32(value) for value in (correction, EPSILON, -step_size)]
        for block, gradients in zip(self._blocks[number], _blocks(gradient), strict=True):
            (_, values), (_, first), (square, second), (square_root, denominator) = block
            self._change_moments(gradients[1], first, second, *self._weights)
            torch.sqrt(square, out=square_root)
            self._change_values(values, first, denominator, *numbers)


def fastest_adam(parameters: Iterable[torch.nn.Parameter], lr: float) -> Adam:
    """Return the Adam that takes the least time for a network of float32 parameters."""
    listed = list(parameters)
    if (
        listed[0].device.type == "cpu"
        and torch.get_num_threads() == 1  # torch's passes use several
        and sum(parameter.numel() for parameter in listed) >= VALUES_WORTHWHILE
        and steps_as_torch()
    ):
        return BlockwiseAdam(listed, lr)
    return Adam(listed, lr)


@cache
def steps_as_torch() -> bool:
    """Return whether BlockwiseAdam takes the steps of Adam on this machine, bit for bit."""
    generator = torch.Generator().manual_seed(0)  # leaves the protocol's draws alone
    sizes = [*range(1, 33), BLOCK + 4099]  # with rests of all lengths
    start = [torch.randn(size, generator=generator) for size in sizes]
    networks = [[torch.nn.Parameter(values.clone()) for values in start] for _ in range(2)]
    optimizers = Adam(networks[0], lr=1e-3), BlockwiseAdam(networks[1], lr=1e-3)
    for step in range(3):
        for pair in zip(*networks, strict=True):
            gradient = torch.randn(pair[0].shape, generator=generator) * 10.0**-step
            for parameter in pair:
                parameter.grad = gradient
        for optimizer in optimizers:
            optimizer.step()
    return all(torch.equal(*pair) for pair in zip(*networks, strict=True))


def _blocks(dense: torch.Tensor) -> list[tuple[torch.Tensor, np.ndarray]]:
    """Return the blocks of a tensor without gaps, in the order they lie in memory, twice each."""
    values = dense.detach().as_strided((dense.numel(),), (1,))
    return [(block, block.numpy()) for block in values.split(BLOCK)]


def _change_moments(
    gradients: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    towards_gradient: np.float32,
    beta2: np.float32,
    towards_square: np.float32,
) -> None:
    for i in range(len(gradients)):
        gradient = gradients[i]
        first[i] += towards_gradient * (gradient - first[i])
        # In this order: a product on the left is not rounded before it is added to, as in torch.
        second[i] = towards_square * gradient * gradient + second[i] * beta2


def _change_values(
    values: np.ndarray,
    first: np.ndarray,
    root: np.ndarray,
    correction: np.float32,
    epsilon: np.float32,
    size: np.float32,
) -> None:
    for i in range(len(values)):
        values[i] += size * first[i] / (root[i] / correction + epsilon)


@cache
def _compiled() -> tuple[Callable[..., None], Callable[..., None]]:
    return (
        compiled(_change_moments, fastmath={"contract"}),  # multiply and add in one instruction
        compiled(_change_values, error_model="numpy"),  # a division by zero raises nothing
    )
