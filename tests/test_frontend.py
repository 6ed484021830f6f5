"""The front end: waveform to log mel, whole and in overlapping windows."""

import pytest
import torch
import torchaudio
from torch import Tensor

from hear_mn.frontend import LogMel


def noise(*shape: int) -> Tensor:
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def log_mel_in_float64(audio: Tensor, n_mels: int = 128, hop: int = 320) -> Tensor:
    """The definition, step by step, with torch.stft and the filters as Kaldi gives them."""
    audio = audio.double()
    emphasized = audio[:, 1:] - 0.97 * audio[:, :-1]
    window = torch.hann_window(800, periodic=False, dtype=torch.float64)
    spectrum = torch.stft(emphasized, 1024, hop, 800, window, return_complex=True)
    filters, _ = torchaudio.compliance.kaldi.get_mel_banks(
        n_mels, 1024, 32000.0, 0.0, 15000.0, 100.0, -500.0, 1.0
    )
    filters = torch.nn.functional.pad(filters, (0, 1)).double()
    return ((filters @ spectrum.abs().square() + 1e-5).log() + 4.5) / 5


@pytest.mark.parametrize("n_samples", [514, 900, 1200, 5120, 32000])
def test_log_mels_are_those_of_the_definition(n_samples):
    audio = noise(2, n_samples)
    expected = log_mel_in_float64(audio)
    torch.testing.assert_close(LogMel()(audio).double(), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(("n_mels", "hop"), [(40, 320), (256, 320), (128, 160), (128, 800)])
def test_other_bands_and_hops_follow_the_definition(n_mels, hop):
    audio = noise(1, 16000)
    expected = log_mel_in_float64(audio, n_mels, hop)
    found = LogMel(n_mels=n_mels, hop=hop)(audio).double()
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("hop", [160, 320, 480, 640, 800])
@pytest.mark.parametrize(("length", "step"), [(5120, 1600), (32000, 8000)])
def test_a_window_has_the_log_mels_of_that_piece_alone(hop, length, step):
    frontend = LogMel(hop=hop)
    audio = noise(2, length + 6 * step)
    windows = frontend.windows(audio, length, step)
    assert windows.shape == (2, 7, 128, frontend.frames(length))
    for i in range(7):
        alone = frontend(audio[:, i * step : i * step + length].contiguous())
        torch.testing.assert_close(windows[:, i], alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("hop", [160, 320, 800])
@pytest.mark.parametrize("most", [800, 1600, 32000])
def test_sounds_of_as_many_frames_have_the_log_mels_of_each_alone(hop, most):
    frontend = LogMel(hop=hop)
    frames = frontend.frames(most)
    shortest = max(most - hop, frontend.minimum_samples)
    lengths = [n for n in range(shortest, most + 1, 37) if frontend.frames(n) == frames]
    audio = noise(len(lengths), most)
    together = frontend.windows(audio, most, most, lengths=lengths)[:, 0]
    assert together.shape == (len(lengths), 128, frames)
    assert len(lengths) > 3
    for i, length in enumerate(lengths):
        alone = frontend(audio[i : i + 1, :length])[0]
        torch.testing.assert_close(together[i], alone, rtol=0, atol=1e-5)


def test_ten_seconds_are_1000_frames_and_a_timestamp_window_16():
    frontend = LogMel()
    assert frontend.frames(320000) == 1000
    assert frontend.frames(5120) == 16
    assert frontend(torch.zeros(1, 320000)).shape == (1, 128, 1000)


def test_silence_is_the_floor():
    assert torch.allclose(LogMel()(torch.zeros(1, 3200)), torch.tensor(-1.40259), atol=1e-5)


def test_half_precision_moves_log_mels_as_little_as_the_reference_says():
    audio = noise(1, 32000)
    frontend = LogMel()
    difference = (frontend(audio, half=True) - frontend(audio)).abs()
    assert 0 < difference.mean() < 1e-3
    assert difference.max() < 0.05
