"""Embedders: what turns waveforms into scene and timestamp embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from hear_mn.checkpoints import checkpoint, load_state_dict, locate
from hear_mn.mobilenet import MobileNet
from hear_mn.mobilenet_embedder import MobileNetEmbedder, Precision
from hear_mn.module_embedder import ModuleEmbedder


class Embedder(Protocol):
    """The interface of `MobileNetEmbedder` and `ModuleEmbedder`; `sample_rate` is in Hz."""

    sample_rate: int

    @property
    def device(self) -> torch.device:
        """Where it computes."""

    @property
    def feature_sizes(self) -> dict[str, int]:
        """The number of values of each feature of a scene."""

    @property
    def timestamp_feature_sizes(self) -> dict[str, int]:
        """The number of values of each feature of a timestamp."""

    @property
    def scene_size(self) -> int:
        """The number of values of a scene embedding."""

    @property
    def timestamp_size(self) -> int:
        """The number of values of a timestamp embedding."""

    def alike(self, n_samples: int) -> int:
        """Return a number that grows with a scene's length, equal for those of one batch."""

    def scene(self, audio: Tensor, *, lengths: Sequence[int] | None = None) -> Tensor:
        """Map sounds [n_sounds, n_samples] to their features side by side, [n_sounds, scene_size].

        Args:
            audio: in [-1, 1], or int16; zero behind the shorter sounds.
            lengths: the samples of each sound, where they differ; all `alike`.
        """

    def timestamps(self, audio: Tensor) -> tuple[Tensor, Tensor]:
        """Map sounds of one length to their timestamps' features and times in ms.

        [n_sounds, n_timestamps, timestamp_size] and [n_sounds, n_timestamps].
        """


def load_embedder(
    name: str,
    weights: Path | None,
    features: Sequence[str],
    device: str | torch.device,
    precision: Precision = "half",
) -> Embedder:
    """Return the embedder of a checkpoint: its features in one pass of the network.

    Args:
        name: a checkpoint of checkpoints.csv.
        weights: its file; None takes the checkpoint's own (`checkpoints.locate`). For a module:
            what its `load_model` gets; None lets it find its own.
        features: of the checkpoint's `feature_sizes`, in the order wanted; may repeat.
        device: where to run.
        precision: on CUDA only: `half` is what the reference computes under autocast, `float32` is
            what a CPU always computes (TensorFloat-32 is off). In float32 an H200's features
            are a CPU's to 4e-6 of their largest value. In half precision they differ from them by
            at most 1 to 2 % of it (mn04 on 10 s of noise: `block0` 0.1 %, `logits` 0.5 %, `e1`
            0.7 %, `clf` 1.4 %, `block10` 2.1 %), on average by a tenth of that.

    Raises:
        UnknownCheckpoint, CheckpointError, FileNotFoundError: what is wrong with the weights.
        ValueError: a feature that this checkpoint does not have, or an unknown precision.
    """
    row = checkpoint(name)
    if row.module:
        return ModuleEmbedder(row, weights, features, device)
    path = locate(name) if weights is None else weights
    with torch.device("meta"):  # no initial values: they would come from the global generator
        network = MobileNet(row.width, row.head, row.strides)
    network.load_state_dict(load_state_dict(path, row), strict=True, assign=True)
    return MobileNetEmbedder(row, network.float(), features, precision).to(device)
