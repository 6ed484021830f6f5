"""Any module with the HEAR API as an embedder."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from hear_mn.audio import AudioError, check_audio, waveform
from hear_mn.checkpoints import Checkpoint, CheckpointError
from hear_mn.gpu_memory import is_out_of_memory
from hear_mn.variants import MODULE_PART

MODULE_BATCH_SECONDS = 640.0  # of audio that a module gets at a time


class ModuleEmbedder(nn.Module):
    """A module with the HEAR API that is not ours, as an embedder.

    It has the one feature `embedding`, whose size may differ between scenes and timestamps. For
    scenes it gets 640 s of audio at a time; where a GPU runs out of memory on them, their halves.
    """

    def __init__(
        self,
        row: Checkpoint,
        weights: Path | None,
        features: Sequence[str],
        device: str | torch.device,
    ) -> None:
        super().__init__()
        if tuple(features) != (MODULE_PART,):
            raise ValueError(f"{row.checkpoint}: a module has the one feature {MODULE_PART}")
        self.name = row.checkpoint
        self.module, model = _load_module(row, weights)
        self.model = model.to(device).eval()
        self.features = tuple(features)
        self.sample_rate = row.sample_rate
        self.scene_size: int = model.scene_embedding_size
        self.timestamp_size: int = model.timestamp_embedding_size
        self.feature_sizes = {MODULE_PART: self.scene_size}
        self.timestamp_feature_sizes = {MODULE_PART: self.timestamp_size}

    @property
    def device(self) -> torch.device:
        """Where the model's parameters lie."""
        return next((p.device for p in self.model.parameters()), torch.device("cpu"))

    def alike(self, n_samples: int) -> int:
        """Return the length: a batch has one."""
        return n_samples

    @torch.no_grad()
    def scene(self, audio: Tensor, *, lengths: Sequence[int] | None = None) -> Tensor:
        """Return the module's scene embeddings, float32 [n_sounds, scene_size].

        Raises:
            AudioError: for audio that no module takes, or sounds of several lengths.
            CheckpointError: for embeddings of another size than the module declares.
        """
        if lengths is not None:
            raise AudioError(f"{self.name} takes sounds of one length, got {lengths[:10]}")
        check_audio(audio, 1, self.sample_rate)
        at_a_time = max(1, int(MODULE_BATCH_SECONDS * self.sample_rate) // audio.shape[1])
        vectors = torch.cat([self._scenes(some) for some in audio.split(at_a_time)])
        self._refuse_another_size("scene", vectors, self.scene_size)
        return vectors

    def _scenes(self, audio: Tensor) -> Tensor:
        try:
            return self.module.get_scene_embeddings(
                waveform(audio, self.device), self.model
            ).float()
        except RuntimeError as error:
            if len(audio) == 1 or not is_out_of_memory(error):
                raise
        torch.cuda.empty_cache()
        return torch.cat([self._scenes(half) for half in audio.tensor_split(2)])

    @torch.no_grad()
    def timestamps(self, audio: Tensor) -> tuple[Tensor, Tensor]:
        """Return the module's timestamp embeddings and times in ms, both float32.

        [n_sounds, n_timestamps, timestamp_size] and [n_sounds, n_timestamps]; raises as `scene`.
        """
        check_audio(audio, 1, self.sample_rate)
        vectors, times = self.module.get_timestamp_embeddings(
            waveform(audio, self.device), self.model
        )
        self._refuse_another_size("timestamp", vectors, self.timestamp_size)
        if vectors.shape[:2] != times.shape:
            raise CheckpointError(
                f"{self.name}: get_timestamp_embeddings of {self.module.__name__} returned "
                f"{list(vectors.shape)} embeddings and {list(times.shape)} times"
            )
        return vectors.float(), times.float()

    def _refuse_another_size(self, kind: str, vectors: Tensor, declared: int) -> None:
        if vectors.shape[-1] != declared:
            raise CheckpointError(
                f"{self.name}: {self.module.__name__} declares {kind}_embedding_size {declared} "
                f"and returned {vectors.shape[-1]} values"
            )


def _load_module(row: Checkpoint, weights: Path | None) -> tuple[ModuleType, Any]:
    """Import a module with the HEAR API and load its model, which must be what its row says."""
    assert row.module is not None
    try:
        module = importlib.import_module(row.module)
    except ImportError as error:
        raise CheckpointError(
            f"{row.checkpoint}: cannot import its module {row.module} ({error}); "
            "install the package that has it"
        ) from error
    model = module.load_model(str(weights)) if weights else module.load_model()
    if not issubclass(type(model), nn.Module):
        raise CheckpointError(
            f"{row.checkpoint}: {row.module}.load_model returned {type(model).__name__}, "
            "not a torch.nn.Module"
        )
    if model.sample_rate != row.sample_rate:
        raise CheckpointError(
            f"{row.checkpoint}: {row.module} wants {model.sample_rate} Hz, "
            f"its row in checkpoints.csv says {row.sample_rate}"
        )
    return module, model
