"""Waveform to log mel, as EfficientAT's networks were trained with (its AugmentMelSTFT)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache

import torch
import torchaudio
from torch import Tensor, nn

from hear_mn.audio import on_device

PREEMPHASIS = 0.97

# Frames transformed at a time on a CPU: their spectra stay in its cache, and in memory that the
# process has already.
CPU_BLOCK_FRAMES = 512

# A mel filter is zero but for its own bins. Products of a quarter of the filters with the bins that
# these have take a quarter of the multiply-adds of one product.
BANDS = 4


class LogMel(nn.Module):
    """Pre-emphasis, short-time Fourier transform, Kaldi mel filters, logarithm, fixed scaling.

    The reference draws its mel range from torch's global generator on every call, in evaluation
    too, and builds the filters anew; here they are made once, and nothing is random.
    """

    def __init__(
        self,
        sample_rate: int = 32000,
        n_mels: int = 128,
        win_length: int = 800,
        hop: int = 320,
        n_fft: int = 1024,
    ) -> None:
        super().__init__()
        self.sample_rate = sample_rate
        self.n_mels = n_mels
        self.win_length = win_length
        self.hop = hop
        self.n_fft = n_fft
        with _float32_by_default():
            filters, _ = torchaudio.compliance.kaldi.get_mel_banks(
                n_mels,
                n_fft,
                float(sample_rate),
                0.0,
                sample_rate / 2 - 1000,  # the middle of the range that training drew from
                vtln_low=100.0,
                vtln_high=-500.0,
                vtln_warp_factor=1.0,
            )
            window = torch.hann_window(win_length, periodic=False)
        used = int(filters.any(0).nonzero().max()) + 1  # no filter reaches the bins above
        # Real and imaginary parts stay interleaved up to the filters: one pass less over the
        # spectrum than adding their squares first.
        filters = filters[:, :used].repeat_interleave(2, dim=1).T.contiguous()
        self.register_buffer("filters", filters, persistent=False)
        self._bands = []  # which bins go into which mels
        for numbers in torch.arange(n_mels).tensor_split(BANDS):
            mels = slice(int(numbers[0]), int(numbers[-1]) + 1)
            bins = filters[:, mels].any(1).nonzero()
            self._bands.append((slice(int(bins.min()), int(bins.max()) + 1), mels))
        self.register_buffer("window", window, persistent=False)
        self.filters: Tensor
        self.window: Tensor

    @property
    def minimum_samples(self) -> int:
        """The fewest samples that the transform's reflect padding works for."""
        return self.n_fft // 2 + 2

    def frames(self, n_samples: int) -> int:
        """Return the number of frames of a waveform of `n_samples`."""
        return (n_samples - 1) // self.hop + 1

    def forward(self, audio: Tensor, *, half: bool = False) -> Tensor:
        """Return the log mels [n_sounds, n_mels, frames] of waveforms [n_sounds, n_samples].

        `half`: the pre-emphasis in half precision, as it is in the reference under autocast.
        """
        return self.windows(audio, audio.shape[-1], audio.shape[-1], half=half)[:, 0]

    def windows(
        self,
        audio: Tensor,
        length: int,
        step: int,
        *,
        half: bool = False,
        lengths: Sequence[int] | None = None,
    ) -> Tensor:
        """Return the log mels [n_sounds, n_windows, n_mels, frames] of overlapping windows.

        Window i is `audio[:, i * step : i * step + length]`, and its log mels are those of that
        piece alone. Neighbouring windows have most frames in common, except those that reach
        over a window's ends, where the reflect padding differs; the common ones are computed once.

        `lengths`: the samples of each sound, where they differ; all of as many frames as `length`,
        and one window. Beyond them the audio is not read.
        """
        n_windows = (audio.shape[-1] - length) // step + 1
        if n_windows > 1 and step % self.hop:  # no frame in common
            pieces = audio.unfold(-1, length, step)
            mels = self.windows(pieces.flatten(0, 1), length, length, half=half)
            return mels.view(*pieces.shape[:2], *mels.shape[2:])
        waveform = self._preemphasize(audio, half)
        inner, edges, order = _plan(
            self.win_length,
            self.hop,
            min(lengths) if lengths else length,
            step,
            n_windows,
            audio.device,
        )
        last: int | Tensor = length - 2  # a window's last sample after pre-emphasis
        if lengths:
            last = on_device(lengths, audio.device)[:, None, None] - 2
        samples = last - (last - edges).abs()
        if lengths:
            framed = [waveform.gather(1, samples.flatten(1)).view(samples.shape)]
        else:
            framed = [waveform.unfold(-1, length - 1, step)[..., samples].flatten(1, 2)]
        if inner:
            start = inner[0] * self.hop - self.win_length // 2
            stop = ((n_windows - 1) * step) + inner[-1] * self.hop + self.win_length // 2
            framed.insert(0, waveform[:, start:stop].unfold(-1, self.win_length, self.hop))
        mels = torch.cat([self._log_mel(frames) for frames in framed], dim=1)
        return mels[:, order].transpose(-1, -2)

    def _preemphasize(self, audio: Tensor, half: bool) -> Tensor:
        if not half:
            return torch.sub(audio[:, 1:], audio[:, :-1], alpha=PREEMPHASIS)
        # A half-precision convolution: inputs and weights rounded, summed in float32, rounded.
        alpha = torch.tensor(PREEMPHASIS).half().item()
        audio = audio.half().float()
        return torch.sub(audio[:, 1:], audio[:, :-1], alpha=alpha).half().float()

    def _log_mel(self, frames: Tensor) -> Tensor:
        """Return the scaled log mels [n, n_frames, n_mels] of frames [n, n_frames, win_length]."""
        n_sounds, n_frames, _ = frames.shape
        block = n_frames
        if frames.device.type == "cpu":
            block = min(n_frames, max(1, CPU_BLOCK_FRAMES // n_sounds))
        padded = frames.new_zeros(n_sounds, block, self.n_fft)
        mels = frames.new_empty(n_sounds, n_frames, self.n_mels)
        for start in range(0, n_frames, block):
            some = frames[:, start : start + block]
            piece = padded[:, : some.shape[1]]
            torch.mul(some, self.window, out=piece[..., : self.win_length])
            spectrum = torch.view_as_real(torch.fft.rfft(piece)).flatten(-2)
            power = spectrum[..., : len(self.filters)].square_()
            for bins, band in self._bands:
                mels[:, start : start + block, band] = power[..., bins] @ self.filters[bins, band]
        return mels.add_(1e-5).log_().add_(4.5).div_(5)


@contextmanager
def _float32_by_default() -> Iterator[None]:
    """Compute in float32, whatever a program makes of torch's default."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@lru_cache(maxsize=64)
def _plan(
    win_length: int, hop: int, length: int, step: int, n_windows: int, device: torch.device
) -> tuple[range, Tensor, Tensor]:
    """Say which frames of a window are common, where the others lie, and the frames' order.

    Made on the device, without a copy that would wait for it.

    Returns the common frames of a window, the sample indices [n_edges, win_length] of the
    others in a window (reflected at its start, but not yet at its end), and for each frame
    [n_windows, frames] of each window its row in the common frames followed by all windows' other
    frames.
    """
    side = win_length // 2
    last = length - 2  # the window's last sample after pre-emphasis
    n_frames = (length - 1) // hop + 1
    first_inner = min(-(-side // hop), n_frames)
    inner = range(first_inner, max(first_inner, (last + 1 - side) // hop + 1))
    frames = torch.arange(n_frames, device=device)
    edge_frames = torch.cat([frames[: inner.start], frames[inner.stop :]])
    around = torch.arange(-side, win_length - side, device=device)
    samples = (edge_frames[:, None] * hop + around).abs()
    n_common = (n_windows - 1) * (step // hop) + len(inner) if inner else 0
    window = torch.arange(n_windows, device=device)[:, None]
    order = window * (step // hop) + frames - first_inner
    edges = n_common + window * len(edge_frames) + torch.arange(len(edge_frames), device=device)
    order[:, : inner.start] = edges[:, : inner.start]
    order[:, inner.stop :] = edges[:, inner.start :]
    return inner, samples, order
