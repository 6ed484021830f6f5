"""From waveforms to scene and timestamp embeddings, batched over windows."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from hear_mn.architecture import widest_activation
from hear_mn.audio import AudioError, check_audio, on_device, waveform
from hear_mn.checkpoints import Checkpoint, CheckpointError, checkpoint, load_state_dict, locate
from hear_mn.frontend import LogMel
from hear_mn.mobilenet import MobileNet, folded, halved
from hear_mn.variants import MODULE_PART

Precision = Literal["half", "float32"]

SCENE_WINDOW_S = 10.0
SCENE_STEP_S = 2.5
TIMESTAMP_WINDOW_MS = 160
TIMESTAMP_STEP_MS = 50

# Frames of log mels in one batch, and the bytes of its largest activation. On a CPU larger batches
# are no faster. Telling a GPU what to do with a batch takes 6 to 13 ms, so the batch should take it
# longer: some 800 clips of 10 s for a narrow network on an H200.
CPU_FRAMES, CUDA_FRAMES = 4096, 1 << 20
CPU_BYTES, CUDA_BYTES = 128 << 20, 8 << 30
CUDA_SHARE = 0.1  # of the free memory, for the largest activation
MODULE_BATCH_SECONDS = 640.0  # of audio that a module with the HEAR API gets at a time


def load_embedder(
    name: str,
    weights: Path | None,
    features: Sequence[str],
    device: str | torch.device,
    precision: Precision = "half",
) -> Embedder | ModuleEmbedder:
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
    return Embedder(row, network.float(), features, precision).to(device)


class Embedder(nn.Module):
    """A checkpoint's front end and network, giving the wanted features of any audio.

    Nothing depends on train or evaluation mode, on torch's random generators or, beyond float
    rounding, on the other sounds of a batch. Every result is float32 on the embedder's device.

    Waveforms are floating point in [-1, 1], or int16 samples, which mean the same divided by 32768.

    Memory: one batch of windows (the largest activation is at most 128 MiB on a CPU, and on a GPU
    8 GiB or a tenth of the free memory; three or so are alive at a time), one padded copy of the
    sounds in it, and the output. A GPU that still runs out of memory gets half the batch from then
    on.
    """

    def __init__(
        self,
        row: Checkpoint,
        network: MobileNet,
        features: Sequence[str],
        precision: Precision = "half",
    ) -> None:
        super().__init__()
        if unknown := [name for name in features if name not in row.feature_sizes]:
            raise ValueError(
                f"{row.checkpoint} has no feature {', '.join(unknown)}; "
                f"it has {', '.join(row.feature_sizes)}"
            )
        if precision not in ("half", "float32"):
            raise ValueError(f"precision {precision!r}: must be 'half' or 'float32'")
        self.features = tuple(features)
        self.feature_sizes = {name: row.feature_sizes[name] for name in features}
        self.sample_rate = row.sample_rate
        self.precision = precision
        self.frames_per_batch: int | None = None  # found from the memory there is, at first use
        self.frontend = LogMel(row.sample_rate, row.n_mels, row.win_length, row.hop, row.n_fft)
        self.network = folded(network).requires_grad_(False)
        self._half_networks: dict[torch.device, MobileNet] = {}
        self._tapped = tuple(name for name in self.feature_sizes if name != "mels")
        # Values a frame: of the largest activation, or of the spectrum and what it is made of.
        self._widest = max(widest_activation(row.width, row.strides, row.n_mels), 2 * row.n_fft)

    @property
    def device(self) -> torch.device:
        """Where the embedder computes."""
        return self.frontend.filters.device

    @property
    def scene_size(self) -> int:
        """The number of values of a scene embedding."""
        return sum(self.feature_sizes[name] for name in self.features)

    timestamp_size = scene_size

    @property
    def timestamp_feature_sizes(self) -> dict[str, int]:
        """The size of every feature at a timestamp: that of a scene."""
        return self.feature_sizes

    @property
    def _scene_window_and_step(self) -> tuple[int, int]:
        return round(SCENE_WINDOW_S * self.sample_rate), round(SCENE_STEP_S * self.sample_rate)

    def alike(self, n_samples: int) -> int:
        """Return a number that is equal for scenes whose lengths may differ in one batch."""
        window, step = self._scene_window_and_step
        if n_samples <= window:
            return self.frontend.frames(n_samples)
        return n_samples // step * step  # as many windows; no number of frames is as large

    def scene(
        self,
        audio: Tensor,
        sample_rate: int | None = None,
        lengths: Sequence[int] | None = None,
    ) -> dict[str, Tensor]:
        """Return every feature [n_sounds, size] of waveforms [n_sounds, n_samples] in [-1, 1].

        Up to 10 s (inclusive) a sound is embedded whole. A longer one is padded by 5 s of
        reflection and its embedding is the mean over windows of 10 s every 2.5 s.

        Args:
            audio: the waveforms.
            sample_rate: theirs; checked where it is given.
            lengths: the samples of each sound, where they differ; all `alike`.

        Raises:
            AudioError: for audio that cannot be embedded.
        """
        return self._by_feature(self.scene_vectors(audio, sample_rate, lengths))

    def timestamps(
        self, audio: Tensor, sample_rate: int | None = None
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Return every feature [n_sounds, n_timestamps, size] and the times in ms.

        Timestamp i is a window of 160 ms centred at 50 * i ms, the audio padded by 80 ms of
        reflection; the times are float32 [n_sounds, n_timestamps]. Raises AudioError.
        """
        vectors, times = self.timestamp_vectors(audio, sample_rate)
        return self._by_feature(vectors), times

    def scene_vectors(
        self,
        audio: Tensor,
        sample_rate: int | None = None,
        lengths: Sequence[int] | None = None,
    ) -> Tensor:
        """Return the features of `scene` one after another [n_sounds, scene_size]."""
        check_audio(audio, self.frontend.minimum_samples, self.sample_rate, sample_rate, lengths)
        window, step = self._scene_window_and_step
        if audio.shape[1] <= window:
            return self._embed_windows(audio, audio.shape[1], step, 0, lengths)[:, 0]
        return self._embed_windows(audio, window, step, window // 2, lengths).mean(1)

    def timestamp_vectors(
        self, audio: Tensor, sample_rate: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the features of `timestamps` one after another, and the times in ms."""
        window, step = (
            ms * self.sample_rate // 1000 for ms in (TIMESTAMP_WINDOW_MS, TIMESTAMP_STEP_MS)
        )
        check_audio(audio, window // 2 + 1, self.sample_rate, sample_rate)
        vectors = self._embed_windows(audio, window, step, window // 2)
        times = torch.arange(vectors.shape[1], device=vectors.device) * float(TIMESTAMP_STEP_MS)
        return vectors, times.repeat(len(audio), 1)

    def _embed_windows(
        self,
        audio: Tensor,
        length: int,
        step: int,
        padding: int,
        lengths: Sequence[int] | None = None,
    ) -> Tensor:
        """Return the vectors [n_sounds, n_windows, size] of the windows of the padded audio.

        `lengths`: the samples of each sound, where they differ; all of as many windows.
        """
        n_windows = (audio.shape[1] + 2 * padding - length) // step + 1
        vectors = torch.empty(len(audio), n_windows, self.scene_size, device=self.device)
        sound = 0
        while sound < len(audio):
            limit = max(1, self._frames_per_batch() // self.frontend.frames(length))
            sounds = slice(sound, sound + max(1, limit // n_windows))
            ends = lengths[sounds] if lengths else None
            try:
                with torch.inference_mode():
                    padded = self._padded(audio[sounds], padding, ends)
                    for first in range(0, n_windows, limit):
                        last = min(first + limit, n_windows) - 1
                        span = padded[:, first * step : last * step + length]
                        vectors[sounds, first : last + 1] = self._embed_span(
                            span, length, step, None if padding else ends
                        )
            except RuntimeError as error:
                if not _is_out_of_memory(error):
                    raise
                self._halve_batch(limit)
                continue
            sound = sounds.stop
        return vectors

    def _padded(self, audio: Tensor, padding: int, lengths: Sequence[int] | None) -> Tensor:
        audio = waveform(audio, self.device)
        if not padding:
            return audio
        if lengths is None:
            return pad(audio, (padding, padding), mode="reflect")
        last = on_device(lengths, self.device)[:, None] - 1
        samples = torch.arange(-padding, audio.shape[1] + padding, device=self.device).abs()
        return audio.gather(1, last - (last - samples).abs())

    def _embed_span(
        self, audio: Tensor, length: int, step: int, lengths: Sequence[int] | None
    ) -> Tensor:
        """Return the vectors [n_sounds, n_windows, size] of the windows of a few seconds."""
        half = self.precision == "half" and self.device.type == "cuda"
        with _without_tensor_float_32():
            mels = self.frontend.windows(audio, length, step, half=half, lengths=lengths)
            mels = mels.flatten(0, 1)
            found = {"mels": mels.mean(-1)}
            if self._tapped:
                network = self._half_network() if half else self.network
                images = mels.half() if half else mels
                # Written in this order, or convolutions of one channel would leave the network's.
                images = images.unsqueeze(1).contiguous(memory_format=torch.channels_last)
                found |= network(images, self._tapped)
        joined = torch.cat([found[name].float() for name in self.features], dim=1)
        return joined.view(len(audio), -1, self.scene_size)

    def _half_network(self) -> MobileNet:
        if self.device not in self._half_networks:
            self._half_networks[self.device] = halved(self.network)
        return self._half_networks[self.device]

    def _frames_per_batch(self) -> int:
        if self.frames_per_batch is None:
            if self.device.type == "cuda":
                free, _ = torch.cuda.mem_get_info(self.device)
                most, memory = CUDA_FRAMES, min(CUDA_BYTES, CUDA_SHARE * free)
            else:
                most, memory = CPU_FRAMES, CPU_BYTES
            value_bytes = torch.finfo(torch.float32).bits // 8
            self.frames_per_batch = min(most, int(memory / (self._widest * value_bytes)))
        return self.frames_per_batch

    def _halve_batch(self, windows: int) -> None:
        """Halve the batch after the GPU ran out of memory on one of `windows`."""
        if windows == 1:
            raise  # noqa: PLE0704 - called where the error is handled
        assert self.frames_per_batch is not None
        self.frames_per_batch //= 2
        torch.cuda.empty_cache()
        warnings.warn(
            f"out of GPU memory with {windows} windows a batch; going on with half of that",
            RuntimeWarning,
            stacklevel=3,
        )

    def _by_feature(self, vectors: Tensor) -> dict[str, Tensor]:
        sizes = [self.feature_sizes[name] for name in self.features]
        return dict(zip(self.features, vectors.split(sizes, dim=-1), strict=True))


class ModuleEmbedder(nn.Module):
    """A module with the HEAR API that is not ours, with the interface of `Embedder`.

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

    def scene(
        self,
        audio: Tensor,
        sample_rate: int | None = None,
        lengths: Sequence[int] | None = None,
    ) -> dict[str, Tensor]:
        """Return {"embedding": float32 [n_sounds, scene_size]}; raises AudioError."""
        if lengths is not None:
            raise AudioError(f"{self.name} takes sounds of one length, got {lengths[:10]}")
        return {MODULE_PART: self.scene_vectors(audio, sample_rate)}

    def timestamps(
        self, audio: Tensor, sample_rate: int | None = None
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Return {"embedding": [n_sounds, n_timestamps, timestamp_size]} and the times in ms."""
        vectors, times = self.timestamp_vectors(audio, sample_rate)
        return {MODULE_PART: vectors}, times

    @torch.no_grad()
    def scene_vectors(self, audio: Tensor, sample_rate: int | None = None) -> Tensor:
        """Return the module's scene embeddings; raises AudioError, CheckpointError."""
        check_audio(audio, 1, self.sample_rate, sample_rate)
        at_a_time = max(1, int(MODULE_BATCH_SECONDS * self.sample_rate) // audio.shape[1])
        vectors = torch.cat([self._scene_vectors(some) for some in audio.split(at_a_time)])
        self._refuse_another_size("scene", vectors, self.scene_size)
        return vectors

    def _scene_vectors(self, audio: Tensor) -> Tensor:
        try:
            return self.module.get_scene_embeddings(
                waveform(audio, self.device), self.model
            ).float()
        except RuntimeError as error:
            if len(audio) == 1 or not _is_out_of_memory(error):
                raise
        torch.cuda.empty_cache()
        return torch.cat([self._scene_vectors(half) for half in audio.tensor_split(2)])

    @torch.no_grad()
    def timestamp_vectors(
        self, audio: Tensor, sample_rate: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the module's timestamp embeddings and times; raises as `scene_vectors`."""
        check_audio(audio, 1, self.sample_rate, sample_rate)
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


@contextmanager
def _without_tensor_float_32() -> Iterator[None]:
    """Round no input of a float32 convolution or product to 10 bits.

    cuDNN does so by default, and products where a program or its environment has asked for it.
    """
    # By the newer of torch's two interfaces: the older one refuses to be read after its use.
    backends: Any = torch.backends  # whose types leave out some of its attributes
    settings = [backends.cudnn.conv, backends.cuda.matmul]
    before = [setting.fp32_precision for setting in settings]
    for setting in settings:
        setting.fp32_precision = "ieee"
    try:
        yield
    finally:
        for setting, precision in zip(settings, before, strict=True):
            setting.fp32_precision = precision


def _is_out_of_memory(error: RuntimeError) -> bool:
    """Return whether a GPU had too little memory; its libraries say so in their own ways."""
    said = (
        "out of memory",
        "ALLOC_FAILED",
        "CUBLAS_STATUS_NOT_INITIALIZED",
        "CUFFT_INTERNAL_ERROR",
        "unable to find an engine",
    )
    return isinstance(error, torch.cuda.OutOfMemoryError) or any(s in str(error) for s in said)
