"""From waveforms to what a MobileNet makes of them, batched over windows."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Sequence
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from hear_mn.architecture import widest_activation
from hear_mn.audio import check_audio, on_device, waveform
from hear_mn.checkpoints import Checkpoint
from hear_mn.frontend import LogMel
from hear_mn.gpu_memory import is_out_of_memory
from hear_mn.mobilenet import MobileNet, folded, halved
from hear_mn.windows import (
    SCENE_STEP_S,
    SCENE_WINDOW_S,
    TIMESTAMP_STEP_MS,
    TIMESTAMP_WINDOW_MS,
)

Precision = Literal["half", "float32"]

# The bytes of the largest activation of one batch, and on a CPU its frames of log mels: larger ones
# are no faster there. Telling a GPU what to do with a batch takes 6 to 13 ms, so the batch should
# take it longer: some 800 clips of 10 s for a narrow network on an H200. The bytes also keep an
# activation under 2**31 values, beyond which torch leaves it to cuDNN whether a convolution works:
# widths that do not halve evenly (81 frames, then 41) take up to a fifth more than their share. (Of
# 2 or 3 frames a third more: too much for a batch of 70,000 sounds of 30 ms, which no task has.)
CPU_BYTES, CUDA_BYTES = 128 << 20, 13 << 29
CPU_FRAMES = 4096
CUDA_SHARE = 0.1  # of the free memory, for the largest activation


class MobileNetEmbedder(nn.Module):
    """A checkpoint's front end and network, giving the wanted features of any audio.

    Nothing depends on train or evaluation mode, on torch's random generators or, beyond float
    rounding, on the other sounds of a batch. Every result is float32 on the embedder's device.

    Waveforms are floating point in [-1, 1], or int16 samples, which mean the same divided by 32768.

    Memory: one batch of windows (the largest activation is at most 128 MiB on a CPU, and on a GPU
    6.5 GiB or a tenth of the free memory; three or so are alive at a time), one padded copy of the
    sounds in it (for long sounds of several lengths four times that), and the output. Where a GPU
    still runs out of memory, a batch is from then on at most half of the one that failed.
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

    def scene(self, audio: Tensor, *, lengths: Sequence[int] | None = None) -> Tensor:
        """Return the features, side by side [n_sounds, scene_size], of whole sounds.

        Up to 10 s (inclusive) a sound is embedded whole. A longer one is padded by 5 s of
        reflection and its embedding is the mean over windows of 10 s every 2.5 s.

        Args:
            audio: the waveforms [n_sounds, n_samples].
            lengths: the samples of each sound, where they differ; all `alike`.

        Raises:
            AudioError: for audio that cannot be embedded.
        """
        check_audio(audio, self.frontend.minimum_samples, self.sample_rate, lengths)
        window, step = self._scene_window_and_step
        if audio.shape[1] <= window:
            return self._embed_windows(audio, audio.shape[1], step, 0, lengths)[:, 0]
        return self._embed_windows(audio, window, step, window // 2, lengths).mean(1)

    def timestamps(self, audio: Tensor) -> tuple[Tensor, Tensor]:
        """Return the features [n_sounds, n_timestamps, timestamp_size] and the times in ms.

        Timestamp i is a window of 160 ms centred at 50 * i ms, the audio padded by 80 ms of
        reflection; the times are float32 [n_sounds, n_timestamps]. Raises AudioError.
        """
        window, step = (
            ms * self.sample_rate // 1000 for ms in (TIMESTAMP_WINDOW_MS, TIMESTAMP_STEP_MS)
        )
        check_audio(audio, window // 2 + 1, self.sample_rate)
        vectors = self._embed_windows(audio, window, step, window // 2)
        numbers = torch.arange(vectors.shape[1], dtype=torch.float32, device=vectors.device)
        times = numbers * TIMESTAMP_STEP_MS
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
        if (found := self.frontend.filters.dtype) != torch.float32:
            raise TypeError(
                f"the model was made {found}; leave it as load_model returned it, float32. On CUDA "
                f"it computes in half precision without being told"
            )
        shape = len(audio), n_windows, self.scene_size
        vectors = torch.empty(shape, dtype=torch.float32, device=self.device)
        frames = self.frontend.frames(length)
        sound = 0
        while sound < len(audio):
            limit = max(1, self._frames_per_batch() // frames)
            sounds = slice(sound, min(sound + max(1, limit // n_windows), len(audio)))
            ends = lengths[sounds] if lengths else None
            windows = (sounds.stop - sounds.start) * min(n_windows, limit)
            try:
                self._embed_sounds(
                    audio[sounds], length, step, padding, ends, limit, vectors[sounds]
                )
            except RuntimeError as error:
                if windows == 1 or not is_out_of_memory(error):
                    raise
            else:
                sound = sounds.stop
                continue
            # Here the error, and with it what the failed batch held, is gone.
            torch.cuda.empty_cache()
            self.frames_per_batch = windows // 2 * frames
            warnings.warn(
                f"out of GPU memory with {windows} windows a batch; going on with half of that",
                RuntimeWarning,
                stacklevel=3,
            )
        return vectors

    @torch.inference_mode()
    def _embed_sounds(
        self,
        audio: Tensor,
        length: int,
        step: int,
        padding: int,
        lengths: Sequence[int] | None,
        limit: int,
        vectors: Tensor,
    ) -> None:
        """Fill `vectors` [n_sounds, n_windows, size], at most `limit` windows of a sound a time."""
        n_windows = vectors.shape[1]
        padded = self._padded(audio, padding, lengths)
        for first in range(0, n_windows, limit):
            last = min(first + limit, n_windows) - 1
            span = padded[:, first * step : last * step + length]
            vectors[:, first : last + 1] = self._embed_span(
                span, length, step, None if padding else lengths
            )

    def _padded(self, audio: Tensor, padding: int, lengths: Sequence[int] | None) -> Tensor:
        audio = waveform(audio, self.device)
        if not padding:
            return audio
        if lengths is None:
            return pad(audio, (padding, padding), mode="reflect")
        last = on_device(lengths, self.device)[:, None] - 1
        samples = torch.arange(-padding, audio.shape[1] + padding, device=self.device).abs()
        reflected = (last - samples).abs_().neg_().add_(last)
        return audio.gather(1, reflected)

    def _embed_span(
        self, audio: Tensor, length: int, step: int, lengths: Sequence[int] | None
    ) -> Tensor:
        """Return the vectors [n_sounds, n_windows, size] of the windows of a few seconds."""
        half = self.precision == "half" and self.device.type == "cuda"
        # A program may train under autocast what it puts behind the model.
        with _float32_products, torch.autocast(self.device.type, enabled=False):
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
            self.frames_per_batch = self._fitting_frames()
        return self.frames_per_batch

    def _fitting_frames(self) -> int:
        frame_bytes = int(self._widest * torch.float32.itemsize)
        if self.device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(self.device)
            return int(min(CUDA_BYTES, CUDA_SHARE * free) / frame_bytes)
        return min(CPU_FRAMES, CPU_BYTES // frame_bytes)

    def _apply(self, *args: Any, **options: Any) -> Self:
        """Move the embedder, as `to` does; what was found of the device it leaves is forgotten."""
        self.frames_per_batch = None
        self._half_networks.clear()
        return super()._apply(*args, **options)

    def _load_from_state_dict(self, *args: Any, **options: Any) -> None:
        """Take other weights, as `load_state_dict` does; copies of the former ones are dropped."""
        self._half_networks.clear()
        super()._load_from_state_dict(*args, **options)


class _Float32Products:
    """Takes all bits of what float32 convolutions and products are computed from.

    cuDNN takes 10 of 23 by default (TensorFloat-32); products, and both on some CPUs (bfloat16),
    take fewer where a program or its environment has asked for it. The settings are the process's:
    of threads that embed side by side, the first one in changes them, and the last one out puts
    back what it found.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._before: list[str] = []
        # By the newer of torch's two interfaces: the older one refuses to be read after its use.
        backends: Any = torch.backends  # whose types leave out some of its attributes
        self._settings = [
            backends.cudnn.conv,
            backends.cuda.matmul,
            backends.mkldnn.conv,
            backends.mkldnn.matmul,
        ]

    def __enter__(self) -> None:
        with self._lock:
            self._inside += 1
            if self._inside == 1:
                self._before = [setting.fp32_precision for setting in self._settings]
                for setting in self._settings:
                    setting.fp32_precision = "ieee"

    def __exit__(self, *exception: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                for setting, precision in zip(self._settings, self._before, strict=True):
                    setting.fp32_precision = precision


_float32_products = _Float32Products()
