"""Any module with the HEAR API as an embedder."""

from __future__ import annotations

import importlib
import itertools
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
        self.scene_size = int(model.scene_embedding_size)
        self.timestamp_size = int(model.timestamp_embedding_size)
        self.feature_sizes = {MODULE_PART: self.scene_size}
        self.timestamp_feature_sizes = {MODULE_PART: self.timestamp_size}
        self._checked_times: set[tuple[int, int]] = set()  # of so many samples, so many timestamps

    @property
    def device(self) -> torch.device:
        """Where the model's parameters lie, or its buffers."""
        tensors = itertools.chain(self.model.parameters(), self.model.buffers())
        return next((tensor.device for tensor in tensors), torch.device("cpu"))

    def alike(self, n_samples: int) -> int:
        """Return the length: a batch has one."""
        return n_samples

    @torch.no_grad()
    def scene(self, audio: Tensor, *, lengths: Sequence[int] | None = None) -> Tensor:
        """Return the module's scene embeddings, float32 [n_sounds, scene_size].

        Raises:
            AudioError: for audio that no module takes, or sounds of several lengths.
            CheckpointError: if the module fails, or returns anything else.
        """
        if lengths is not None:
            raise AudioError(f"{self.name} takes sounds of one length, got {lengths[:10]}")
        check_audio(audio, 1, self.sample_rate)
        at_a_time = max(1, int(MODULE_BATCH_SECONDS * self.sample_rate) // audio.shape[1])
        return torch.cat([self._scenes(some) for some in audio.split(at_a_time)])

    def _scenes(self, audio: Tensor) -> Tensor:
        try:
            vectors = self._called("get_scene_embeddings", audio)
        except RuntimeError:  # too little memory: of all else `_called` makes CheckpointError
            if len(audio) == 1:
                raise
        else:
            self._check_shape("scene", vectors, (len(audio), self.scene_size))
            return _kept(vectors)
        torch.cuda.empty_cache()
        return torch.cat([self._scenes(half) for half in audio.tensor_split(2)])

    @torch.no_grad()
    def timestamps(self, audio: Tensor) -> tuple[Tensor, Tensor]:
        """Return the module's timestamp embeddings and times in ms, both float32.

        [n_sounds, n_timestamps, timestamp_size] and [n_sounds, n_timestamps]; raises as `scene`.
        The times are checked of the first sounds of a length.
        """
        check_audio(audio, 1, self.sample_rate)
        vectors, times = self._called("get_timestamp_embeddings", audio)
        n_timestamps = times.shape[-1] if isinstance(times, Tensor) and times.ndim else 0
        self._check_shape("timestamp", vectors, (len(audio), n_timestamps, self.timestamp_size))
        self._check_shape("timestamp", times, (len(audio), n_timestamps))
        times = times.detach().float()
        # Once a length: to look at them is to wait for the GPU.
        if (seen := (audio.shape[1], n_timestamps)) not in self._checked_times:
            self._check_times(times.cpu(), 1000 * audio.shape[1] / self.sample_rate)
            self._checked_times.add(seen)
        return _kept(vectors), times

    def _called(self, function: str, audio: Tensor) -> Any:
        """Call a function of the module; raises CheckpointError that names it, if it fails.

        RuntimeError of a GPU that is out of memory is raised as it is.
        """
        try:
            return getattr(self.module, function)(waveform(audio, self.device), self.model)
        except Exception as error:
            if isinstance(error, RuntimeError) and is_out_of_memory(error):
                raise
            raise CheckpointError(
                f"{self.name}: {function} of {self.module.__name__} failed on sounds of the shape "
                f"{list(audio.shape)}: {type(error).__name__}: {error}"
            ) from error

    def _check_shape(self, kind: str, found: Any, expected: tuple[int, ...]) -> None:
        shape = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
        if shape != list(expected):
            raise CheckpointError(
                f"{self.name}: get_{kind}_embeddings of {self.module.__name__} returned {shape}, "
                f"expected a tensor {list(expected)}, for {kind}_embedding_size is "
                f"{getattr(self, f'{kind}_size')}"
            )

    def _check_times(self, times: Tensor, milliseconds: float) -> None:
        """Refuse times that are no milliseconds, do not grow or leave out a part of the sounds."""
        if not times.shape[1]:
            raise CheckpointError(
                f"{self.name}: get_timestamp_embeddings of {self.module.__name__} returned no "
                f"timestamp of sounds of {milliseconds:g} ms"
            )
        last, hops = times[:, -1], times.diff(dim=1)
        longest_hop = float(hops.max()) if hops.numel() else milliseconds
        slack = max(2 * longest_hop, milliseconds / 2)  # windows may end where the sounds do
        grow = bool(torch.isfinite(times).all() and (hops > 0).all())
        if not grow or ((last - milliseconds).abs() > slack).any():
            raise CheckpointError(
                f"{self.name}: get_timestamp_embeddings of {self.module.__name__} returned the "
                f"times {times[0, 0]:g} to {last[0]:g} of sounds of {milliseconds:g} ms. HEAR "
                f"wants milliseconds, growing, from the start of the sounds to their end"
            )


def _kept(vectors: Tensor) -> Tensor:
    """Return a copy, float32: a module may write its next embeddings into the same memory."""
    return vectors.detach().to(torch.float32, copy=True)


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
    except (Exception, SystemExit) as error:  # a module may read the job's command line as its own
        raise CheckpointError(
            f"{row.checkpoint}: its module {row.module} cannot be imported: "
            f"{type(error).__name__}: {error}"
        ) from error
    try:
        model = module.load_model(str(weights)) if weights else module.load_model()
    except (Exception, SystemExit) as error:
        of = f"the file {weights}" if weights else "no file (`weights` in the config names one)"
        raise CheckpointError(
            f"{row.checkpoint}: load_model of {row.module} failed on {of}: "
            f"{type(error).__name__}: {error}"
        ) from error
    if not issubclass(type(model), nn.Module):
        raise CheckpointError(
            f"{row.checkpoint}: {row.module}.load_model returned {type(model).__name__}, "
            "not a torch.nn.Module"
        )
    asked = ("sample_rate", "scene_embedding_size", "timestamp_embedding_size")
    if absent := [name for name in asked if not hasattr(model, name)]:
        raise CheckpointError(
            f"{row.checkpoint}: the model of {row.module} has no {', '.join(absent)}, which the "
            "HEAR API asks for"
        )
    if model.sample_rate != row.sample_rate:
        raise CheckpointError(
            f"{row.checkpoint}: {row.module} wants {model.sample_rate} Hz, "
            f"its row in checkpoints.csv says {row.sample_rate}"
        )
    return module, model
