"""EfficientAT's MobileNet: MobileNetV3-Large on log-mel images, with taps for the HEAR features.

The names and shapes of the state dict are those of the released checkpoints, so that they load
with `strict=True`. The modules only run inference: batch norm always uses its running statistics
and there is no dropout, so train mode changes nothing. (In the reference, calling the methods of
its wrapper directly leaves it in train mode: SpecAugment and batch statistics.)
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Collection, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm, conv2d, hardswish, linear, relu

from hear_mn.architecture import (
    BLOCKS,
    CLASSIFIER_CHANNELS,
    FIRST_CHANNELS,
    LAST_EXPANSION,
    N_CLASSES,
    squeezed,
    widened,
)
from hear_mn.bias_activation import biased

# cuDNN plans a convolution for every new shape, on an H200 some 30 ms, and with few columns it
# starts a kernel for every channel: 1456 a clip of events. torch's own kernel has no plan and takes
# up to 0.5 ms for 2**24 values (that it reads or writes) where cuDNN's takes 0.1. So fewer values
# than these are left to torch's, and so is a shape until that has cost as much as its plan: clips
# of many lengths, of which no shape comes often, would be planned for minutes.
PLANNED_VALUES = 1 << 24
PLANNED_AFTER_VALUES = 1 << 30

# On an x86 CPU oneDNN multiplies with all of the registers' width, which MKL, torch's own way, does
# not on AMD's. It takes 0.2 ms for every new shape. (It would apply the activation too, a tenth of
# the time or less, but its ReLU makes 0 of NaN.)
ONEDNN = torch.backends.mkldnn.is_available() and torch.backends.cpu.get_cpu_capability() in (
    "AVX2",
    "AVX512",
)
ONEDNN_MULTIPLY_ADDS = 1 << 23


def activate_(x: Tensor, activation: str | None) -> Tensor:
    """Apply "hardswish", "relu" or nothing to `x` in place."""
    if activation == "hardswish":
        return hardswish(x, inplace=True)
    return relu(x, inplace=True) if activation == "relu" else x


def onednn_linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return what torch's `linear` returns, computed by oneDNN, without gradients."""
    product: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return product


class FrozenBatchNorm(nn.BatchNorm2d):
    """Batch norm that always uses its running statistics."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise `x` [batch, channels, frequency, time]."""
        return batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
        )


class ConvNorm(nn.Sequential):
    """Convolution and batch norm; `activation` is applied in place."""

    def __init__(
        self,
        channels: int,
        out: int,
        kernel: int,
        *,
        stride: int = 1,
        depthwise: bool = False,
        activation: str | None = None,
    ) -> None:
        convolution = nn.Conv2d(
            channels,
            out,
            kernel,
            stride,
            padding=kernel // 2,
            groups=channels if depthwise else 1,
            bias=False,
        )
        super().__init__(convolution, FrozenBatchNorm(out, eps=1e-3))
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """Return [batch, out, frequency / stride, time / stride]."""
        return activate_(super().forward(x), self.activation)


class SqueezeExcitation(nn.Module):
    """Channel attention: scales every channel by a function of the means of all channels."""

    def __init__(self, channels: int, squeeze: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, squeeze)
        self.fc2 = nn.Linear(squeeze, channels)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return `x` scaled in place, and the bottleneck [batch, squeeze] before its ReLU."""
        bottleneck = self.fc1(x.mean((2, 3)))
        scale = torch.sigmoid(self.fc2(relu(bottleneck)))
        return x.mul_(scale[:, :, None, None]), bottleneck


class ConcurrentSqueezeExcitation(nn.Module):
    """The reference's container of attention layers; released networks have one, on channels."""

    def __init__(self, channels: int, squeeze: int) -> None:
        super().__init__()
        self.conc_se_layers = nn.ModuleList([SqueezeExcitation(channels, squeeze)])

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return `x` scaled in place, and the bottleneck [batch, squeeze] before its ReLU."""
        return self.conc_se_layers[0](x)


class InvertedResidual(nn.Module):
    """Expand (1x1), filter (depthwise), weigh (squeeze-and-excitation), project (1x1), add."""

    def __init__(
        self,
        channels: int,
        expanded: int,
        out: int,
        kernel: int,
        stride: int,
        *,
        squeeze: bool,
        activation: str,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        if expanded != channels:
            layers.append(ConvNorm(channels, expanded, 1, activation=activation))
        layers.append(
            ConvNorm(
                expanded, expanded, kernel, stride=stride, depthwise=True, activation=activation
            )
        )
        if squeeze:
            layers.append(ConcurrentSqueezeExcitation(expanded, squeezed(expanded)))
        layers.append(ConvNorm(expanded, out, 1))
        self.block = nn.Sequential(*layers)
        self.residual = stride == 1 and channels == out

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the output after the residual, and the attention's bottleneck where it has one."""
        bottleneck = None
        y = x
        for layer in self.block:
            if isinstance(layer, ConcurrentSqueezeExcitation):
                y, bottleneck = layer(y)
            else:
                y = layer(y)
        return (y.add_(x) if self.residual else y), bottleneck


class MobileNet(nn.Module):
    """The backbone and its AudioSet classifier.

    `features[0]` is the first convolution, `features[1]` to `features[15]` are the inverted
    residual blocks, `features[16]` is the last 1x1 convolution. `strides` are the strides of
    blocks 2, 4, 7 and 13. `head` is "mlp" or "fully_convolutional".
    """

    def __init__(
        self, width: float, head: str = "mlp", strides: Sequence[int] = (2, 2, 2, 2)
    ) -> None:
        super().__init__()
        channels = widened(FIRST_CHANNELS, width)
        layers: list[nn.Module] = [ConvNorm(1, channels, 3, stride=2, activation="hardswish")]
        for block in BLOCKS:
            out = widened(block.out, width)
            layers.append(
                InvertedResidual(
                    channels,
                    widened(block.expanded, width),
                    out,
                    block.kernel,
                    1 if block.stage is None else strides[block.stage],
                    squeeze=block.squeeze,
                    activation="hardswish" if block.hardswish else "relu",
                )
            )
            channels = out
        last = LAST_EXPANSION * channels
        layers.append(ConvNorm(channels, last, 1, activation="hardswish"))
        self.features = nn.ModuleList(layers)
        self.head = head
        if head == "mlp":
            hidden = widened(CLASSIFIER_CHANNELS, width)
            # The places between hold what has no weights: pool, flatten, Hardswish, dropout.
            self.classifier = nn.ModuleDict(
                {"2": nn.Linear(last, hidden), "5": nn.Linear(hidden, N_CLASSES)}
            )
        elif head == "fully_convolutional":
            self.classifier = nn.ModuleDict(
                {"0": nn.Conv2d(last, N_CLASSES, 1, bias=False), "1": FrozenBatchNorm(N_CLASSES)}
            )
        else:
            raise ValueError(f"head {head!r}: must be 'mlp' or 'fully_convolutional'")

    def forward(self, log_mels: Tensor, wanted: Collection[str]) -> dict[str, Tensor]:
        """Return the `wanted` features of log mels [batch, 1, n_mels, frames], each [batch, size].

        Layers after the last one wanted do not run. What each feature is:

        - `block0`, `block5`, `block10`: mean over frequency and time of the layer's output, after
          the residual is added. Block 16 is `e1`.
        - `se<k>`: the squeeze-and-excitation bottleneck of block k, before its ReLU.
        - `e1`: mean over frequency and time of the last convolution, after Hardswish.
        - `clf`: the classifier's hidden layer after Hardswish. The reference means to store it
          before, but its Hardswish works in place on the stored tensor; the published scores
          were made with these values, so they are kept.
        - `logits`: the 527 AudioSet classes, before any sigmoid.
        """
        found: dict[str, Tensor] = {}
        x = log_mels
        for index, layer in enumerate(self.features[: depth(wanted)]):
            bottleneck = None
            if isinstance(layer, InvertedResidual):
                x, bottleneck = layer(x)
            else:
                x = layer(x)
            if f"se{index}" in wanted and bottleneck is not None:
                found[f"se{index}"] = bottleneck
            if f"block{index}" in wanted:
                found[f"block{index}"] = x.mean((2, 3))
        if not {"e1", "clf", "logits"}.isdisjoint(wanted):
            found |= self._classify(x, wanted)
        return {name: found[name] for name in wanted}

    def _classify(self, x: Tensor, wanted: Collection[str]) -> dict[str, Tensor]:
        found = {"e1": x.mean((2, 3))}
        if self.head == "fully_convolutional":
            if "logits" in wanted:
                found["logits"] = self.classifier["1"](self.classifier["0"](x)).mean((2, 3))
            return found
        if not {"clf", "logits"}.isdisjoint(wanted):
            found["clf"] = hardswish(self.classifier["2"](found["e1"]))
        if "logits" in wanted:
            found["logits"] = self.classifier["5"](found["clf"])
        return found


def depth(wanted: Collection[str]) -> int:
    """Return how many of the 17 layers must run for these features."""
    taps = [name.removeprefix("block").removeprefix("se") for name in wanted]
    return max((int(tap) + 1 if tap.isdigit() else 17 for tap in taps), default=0)


class FoldedConvNorm(nn.Module):
    """A `ConvNorm` with its batch norm folded into the convolution, for channels-last input.

    A 1x1 convolution is a matrix product over the channels, which is the last dimension.
    """

    def __init__(self, layer: ConvNorm) -> None:
        super().__init__()
        convolution, norm = layer[0], layer[1]
        assert isinstance(convolution, nn.Conv2d)
        assert isinstance(norm, FrozenBatchNorm)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        # In float64, rounded once: closer to the exact network than applying the norm apart.
        scale = norm.weight.double() * (norm.running_var.double() + norm.eps).rsqrt()
        weight = convolution.weight.double() * scale[:, None, None, None]
        bias = norm.bias.double() - norm.running_mean.double() * scale
        self.pointwise = convolution.kernel_size == (1, 1)
        weight = weight[:, :, 0, 0] if self.pointwise else weight
        self.weight = nn.Parameter(
            weight.float()
            if self.pointwise
            else weight.float().contiguous(memory_format=torch.channels_last)
        )
        self.bias = nn.Parameter(bias.float())
        self.stride = convolution.stride
        self.padding = convolution.padding
        self.groups = convolution.groups
        self.activation = layer.activation
        self._unplanned_values: Counter[torch.Size] = Counter()

    def forward(self, x: Tensor) -> Tensor:
        """Return [batch, out, frequency / stride, time / stride]."""
        # In half precision (`halved`) the bias stays float32. It holds the norm's mean, so that the
        # error of a rounded one would not average out over frequency and time.
        half = self.weight.dtype == torch.float16
        bias = None if half else self.bias
        if self.pointwise:
            product = onednn_linear if self._pays_by_onednn(x) else linear
            x = product(x.permute(0, 2, 3, 1), self.weight, bias).permute(0, 3, 1, 2)
        elif half and x.is_cuda and not self._pays_by_plan(x):
            x = torch.ops.aten._conv_depthwise2d(
                x, self.weight, self.weight.shape[2:], None, self.stride, self.padding, (1, 1)
            )
        else:
            x = conv2d(x, self.weight, bias, self.stride, self.padding, groups=self.groups)
        if half and x.is_cuda:
            return biased(x.permute(0, 2, 3, 1), self.bias, self.activation).permute(0, 3, 1, 2)
        if half:
            x = x.add_(self.bias[:, None, None])
        return activate_(x, self.activation)

    def _pays_by_plan(self, x: Tensor) -> bool:
        """Return whether `x` is large and of a shape that came often enough to be planned."""
        made = x.numel() // x.shape[1] * len(self.weight) // (self.stride[0] * self.stride[1])
        values = max(x.numel(), made)
        if values < PLANNED_VALUES:
            return False
        if self._unplanned_values[x.shape] < PLANNED_AFTER_VALUES:
            self._unplanned_values[x.shape] += values
            return False
        return True

    def _pays_by_onednn(self, x: Tensor) -> bool:
        """Return whether the product takes less time by oneDNN and needs no gradients."""
        return (
            ONEDNN
            and x.device.type == "cpu"
            and x.dtype == torch.float32
            and not torch.is_grad_enabled()
            and x.numel() * len(self.weight) >= ONEDNN_MULTIPLY_ADDS
        )


@torch.no_grad()
def folded(network: MobileNet) -> MobileNet:
    """Fold the network's batch norms, in place, and return it: the same function, faster.

    Measured with mn04 on 2 CPU cores, against the network as trained with contiguous tensors: 57 ms
    to 10 ms for 64 windows of 160 ms, 18 ms to 7 ms for a clip of 10 s.
    """
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, ConvNorm):
                setattr(module, name, FoldedConvNorm(child))
    return network


@torch.no_grad()
def halved(network: MobileNet) -> MobileNet:
    """Return a copy of a folded network that maps float16 log mels to float16 features.

    It computes what autocast would compute, without casting all weights for every batch: what
    autocast leaves in float32, the norms, stays so.
    """
    half = copy.deepcopy(network)
    for module in half.modules():
        if isinstance(module, FoldedConvNorm):
            module.weight.data = module.weight.half()
        elif isinstance(module, nn.Linear | nn.Conv2d):
            module.half()
    return half
