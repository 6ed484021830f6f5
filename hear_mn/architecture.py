"""The layers of EfficientAT's MobileNets as numbers, for the network and the variants.

MobileNetV3-Large (Howard et al., "Searching for MobileNetV3", 2019, table 1) on a one-channel
log-mel image, with every channel count multiplied by a width (Schmid et al., "Efficient
Large-scale Audio Tagging via Transformer-to-CNN Knowledge Distillation", 2022).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

N_CLASSES = 527  # AudioSet
FIRST_CHANNELS = 16
LAST_EXPANSION = 6  # the last 1x1 convolution: six times the channels of block 15
CLASSIFIER_CHANNELS = 1280
SE_BLOCKS = (4, 5, 6, 11, 12, 13, 14, 15)


@dataclass(frozen=True)
class Block:
    """One inverted residual block of table 1, before it is widened."""

    kernel: int
    expanded: int
    out: int
    squeeze: bool
    hardswish: bool
    stage: int | None = None  # the strided blocks: position of their stride in `strides`


BLOCKS = (
    Block(3, 16, 16, squeeze=False, hardswish=False),
    Block(3, 64, 24, squeeze=False, hardswish=False, stage=0),
    Block(3, 72, 24, squeeze=False, hardswish=False),
    Block(5, 72, 40, squeeze=True, hardswish=False, stage=1),
    Block(5, 120, 40, squeeze=True, hardswish=False),
    Block(5, 120, 40, squeeze=True, hardswish=False),
    Block(3, 240, 80, squeeze=False, hardswish=True, stage=2),
    Block(3, 200, 80, squeeze=False, hardswish=True),
    Block(3, 184, 80, squeeze=False, hardswish=True),
    Block(3, 184, 80, squeeze=False, hardswish=True),
    Block(3, 480, 112, squeeze=True, hardswish=True),
    Block(3, 672, 112, squeeze=True, hardswish=True),
    Block(5, 672, 160, squeeze=True, hardswish=True, stage=3),
    Block(5, 960, 160, squeeze=True, hardswish=True),
    Block(5, 960, 160, squeeze=True, hardswish=True),
)


def make_divisible(channels: float) -> int:
    """Round to the nearest multiple of 8 that is at least 90 % of `channels`."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


def widened(channels: int, width: float) -> int:
    """Return the channel count of a layer in a network of this width."""
    return make_divisible(channels * width)


def squeezed(expanded: int) -> int:
    """Return the size of the squeeze-and-excitation bottleneck of a block with that expansion."""
    return make_divisible(expanded // 4)


def feature_sizes(width: float, head: str, n_mels: int) -> dict[str, int]:
    """Return the size of every feature that a network of this architecture gives.

    The fully convolutional head has no hidden layer, so it has no `clf`.
    """
    sizes = {
        "logits": N_CLASSES,
        "e1": LAST_EXPANSION * widened(BLOCKS[-1].out, width),
        "mels": n_mels,
        "clf": widened(CLASSIFIER_CHANNELS, width),
        "block0": widened(FIRST_CHANNELS, width),
        "block5": widened(BLOCKS[4].out, width),
        "block10": widened(BLOCKS[9].out, width),
    }
    if head != "mlp":
        del sizes["clf"]
    for index in SE_BLOCKS:
        sizes[f"se{index}"] = squeezed(widened(BLOCKS[index - 1].expanded, width))
    return sizes


def widest_activation(width: float, strides: Sequence[int], n_mels: int) -> float:
    """Return the values of the largest activation, a frame of log mels: what bounds a batch."""
    frequencies, times = n_mels / 2, 1 / 2  # after the first convolution
    widest = widened(FIRST_CHANNELS, width) * frequencies * times
    for block in BLOCKS:
        widest = max(widest, widened(block.expanded, width) * frequencies * times)
        stride = 1 if block.stage is None else strides[block.stage]
        frequencies, times = frequencies / stride, times / stride
    last = LAST_EXPANSION * widened(BLOCKS[-1].out, width)
    return max(widest, last * frequencies * times)
