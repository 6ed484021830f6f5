"""What every model takes: waveforms, checked."""

from collections.abc import Sequence

import torch
from torch import Tensor

INT16_SCALE = 1 / 32768


class AudioError(ValueError):
    """Audio that cannot be embedded: its shape, type, values or length."""


def check_audio(
    audio: Tensor,
    minimum: int,
    sample_rate: int,
    lengths: Sequence[int] | None = None,
) -> None:
    """Raise AudioError unless `audio` is int16 or finite float [n_sounds, n_samples >= minimum].

    `lengths`: the samples of each sound, where they differ. `sample_rate`: in Hz.
    """
    if not isinstance(audio, Tensor):
        raise AudioError(f"audio must be a torch.Tensor, got {type(audio).__name__}")
    if audio.ndim != 2 or len(audio) == 0:
        raise AudioError(
            f"audio must be [n_sounds, n_samples] with at least one sound, "
            f"got the shape {list(audio.shape)}"
        )
    pcm = audio.dtype == torch.int16
    if not (pcm or audio.is_floating_point()):
        raise AudioError(f"audio must be floating point in [-1, 1] or int16, got {audio.dtype}")
    shortest = min(lengths) if lengths else audio.shape[1]
    if shortest < minimum:
        raise AudioError(
            f"audio has {shortest} samples, too short for one frame: "
            f"at least {minimum} are needed ({1000 * minimum / sample_rate:.1f} ms)"
        )
    # One pass; the sum also overflows on huge finite samples.
    if not (pcm or torch.isfinite(audio.sum())):
        sounds = (~torch.isfinite(audio).all(1)).nonzero().flatten().tolist()
        if sounds:
            raise AudioError(
                f"audio has NaN or infinite samples in sounds {sounds[:10]} of the batch"
            )


def waveform(audio: Tensor, device: torch.device) -> Tensor:
    """Return floating point or int16 audio as float32 on a device.

    A GPU has read audio in host memory when this returns: that memory may be used again. Float32 on
    the device it is on is returned itself.
    """
    moved = audio.to(device)
    return moved.float().mul_(INT16_SCALE) if audio.dtype == torch.int16 else moved.float()


def on_device(numbers: Sequence[int], device: torch.device) -> Tensor:
    """Return whole numbers as an int64 tensor on a device; without waiting for a GPU."""
    here = torch.tensor(numbers, device="cpu", pin_memory=device.type == "cuda")
    return here.to(device, non_blocking=True)
