"""Dropout with the random numbers of torch's generator, drawn as vectors.

On a CPU torch draws a dropout mask value by value: two words of a Mersenne twister (mt19937,
Matsumoto and Nishimura 1998), of which 53 bits are compared with the probability. A word depends on
none of the 226 before it, so that they can be drawn several at a time.
"""

import math
from collections.abc import Callable
from functools import cache

import numpy as np
import torch

from workflow_scripts.hear2021.evaluation.compilation import compiled

STATE_WORDS = 624
LAG = 397
UNIFORM_BITS = 53
VALUES_AT_ONCE = 32 * STATE_WORDS  # what is drawn for them stays in a core's cache
VALUES_WORTHWHILE = 100_000

# Where torch.get_rng_state() has what: struct CPUGeneratorImplStateLegacy of ATen's
# CPUGeneratorImpl.cpp. `left` counts down to the next twist of the state, which comes at 1.
LEFT = slice(8, 12)
NEXT = slice(16, 24)
STATE = slice(24, 24 + 8 * STATE_WORDS)


def draw_at_once(predictor: torch.nn.Module, n_values: int) -> bool:
    """Have the dropout masks of a predictor on a CPU drawn here, if torch gives the same ones.

    Args:
        predictor: its dropout layers are replaced.
        n_values: of its masks in an epoch; for few, loading the compiled function takes longer than
            the draws.

    Returns:
        Whether the layers were replaced.
    """
    if not (n_values >= VALUES_WORTHWHILE and draws_as_torch()):
        return False
    for parent in list(predictor.modules()):
        for name, layer in parent.named_children():
            # Of a probability of 0 or 1 torch draws nothing.
            if isinstance(layer, torch.nn.Dropout) and 0 < layer.p < 1:
                setattr(parent, name, Dropout(layer.p).train(layer.training))
    return True


class Dropout(torch.nn.Module):
    """torch.nn.Dropout on a CPU, bit for bit, where `draws_as_torch`."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self._kept = 1 - p

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Set values to zero with probability p in training, scaling the others by 1 / (1 - p)."""
        return x * scaled_mask(x.shape, self._kept) if self.training else x


def scaled_mask(shape: torch.Size, kept: float) -> torch.Tensor:
    """Return `torch.empty(shape).bernoulli_(kept).div_(kept)`, moving torch's generator alike."""
    mask = torch.empty(shape)
    torch_state = torch.get_rng_state()
    fields = torch_state.numpy()
    left, position, words = (
        fields[where].view(kind)
        for where, kind in ((LEFT, np.int32), (NEXT, np.uint64), (STATE, np.uint64))
    )
    state = words.astype(np.uint32)
    used = STATE_WORDS if left[0] == 1 else int(position[0])
    threshold, scale = math.ceil(kept * 2**UNIFORM_BITS), np.float32(1) / np.float32(kept)
    used = _compiled_draw()(mask.view(-1).numpy(), threshold, scale, state, used)
    words[:] = state
    position[0] = used
    left[0] = STATE_WORDS + 1 - used
    torch.set_rng_state(torch_state)
    return mask


@cache
def draws_as_torch() -> bool:
    """Return whether `scaled_mask` is what torch gives on this machine.

    Not so on an Intel CPU, where MKL draws torch's mask, from one number of torch's generator.
    """
    shape, kept = torch.Size([3, 701]), 0.9
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        expected = torch.empty(shape).bernoulli_(kept).div_(kept), torch.rand(9)
        torch.manual_seed(0)
        drawn = scaled_mask(shape, kept), torch.rand(9)
    return all(torch.equal(*pair) for pair in zip(expected, drawn, strict=True))


def _draw(mask: np.ndarray, threshold: int, scale: np.float32, state: np.ndarray, used: int) -> int:
    """Fill a mask, part by part.

    Args:
        mask: float32 (n,), written to.
        threshold: numbers below it are kept.
        scale: float32, the value of the kept.
        state: uint32 (624,), of the twister; changed.
        used: how many of its words are used.

    Returns:
        How many words of the changed state are used.
    """
    words = np.empty((2 * VALUES_AT_ONCE // STATE_WORDS + 2) * STATE_WORDS, dtype=np.uint32)
    pairs = np.empty(VALUES_AT_ONCE, dtype=np.uint64)
    tempered = pairs.view(np.uint32)
    for start in range(0, len(mask), VALUES_AT_ONCE):
        part = mask[start : start + VALUES_AT_ONCE]
        first, used = used, used + 2 * len(part)
        twisted = (used - 1) // STATE_WORDS * STATE_WORDS
        words[:STATE_WORDS] = state
        for i in range(twisted):
            mixed = (words[i] & np.uint32(0x80000000)) | (words[i + 1] & np.uint32(0x7FFFFFFF))
            twist = (np.uint32(0) - (mixed & np.uint32(1))) & np.uint32(0x9908B0DF)
            words[i + STATE_WORDS] = words[i + LAG] ^ (mixed >> np.uint32(1)) ^ twist
        drawn = words[first:used]
        for i in range(len(drawn)):
            word = drawn[i]
            word ^= word >> np.uint32(11)
            word ^= (word << np.uint32(7)) & np.uint32(0x9D2C5680)
            word ^= (word << np.uint32(15)) & np.uint32(0xEFC60000)
            tempered[i] = word ^ (word >> np.uint32(18))
        for i in range(len(part)):
            # The word drawn first is the upper one.
            number = (pairs[i] << np.uint64(32)) | (pairs[i] >> np.uint64(32))
            number &= np.uint64((1 << UNIFORM_BITS) - 1)
            part[i] = scale if np.int64(number) < threshold else np.float32(0)
        state[:] = words[twisted : twisted + STATE_WORDS]
        used -= twisted
    return used


@cache
def _compiled_draw() -> Callable[..., int]:
    return compiled(_draw)
