"""The HEAR API as the reference embeds: one window a call, nothing prepared beforehand.

The same network and the same numbers as ours, used plainly (facts of the reference: the mel matrix
is made anew on every call, timestamps are embedded one window of 160 ms after another, the network
is as trained, with batch norms apart and contiguous tensors). What the reference does beyond that,
it computes the squeeze-and-excitation blocks twice, is left out.
"""

from pathlib import Path

import torch
import torchaudio
from torch import Tensor, nn
from torch.nn.functional import conv1d, pad

from hear_mn.checkpoints import Checkpoint, checkpoint, load_state_dict
from hear_mn.frontend import PREEMPHASIS
from hear_mn.mobilenet import MobileNet
from hear_mn.variants import parse_variant
from hear_mn.windows import SCENE_STEP_S, SCENE_WINDOW_S, TIMESTAMP_STEP_MS, TIMESTAMP_WINDOW_MS


class ReferenceModel(nn.Module):
    """A variant's network with its front end."""

    def __init__(self, row: Checkpoint, network: MobileNet, features: tuple[str, ...]) -> None:
        super().__init__()
        self.row = row
        self.network = network
        self.features = features
        self.sample_rate = row.sample_rate
        size = sum(row.feature_sizes[name] for name in features)
        self.scene_embedding_size = self.timestamp_embedding_size = size
        self.register_buffer("preemphasis", torch.tensor([[[-PREEMPHASIS, 1.0]]]))
        self.register_buffer("window", torch.hann_window(row.win_length, periodic=False))
        self.preemphasis: Tensor
        self.window: Tensor

    def log_mels(self, audio: Tensor) -> Tensor:
        """Return the scaled log mels [n_sounds, n_mels, frames] of [n_sounds, n_samples]."""
        row = self.row
        waveform = conv1d(audio.unsqueeze(1), self.preemphasis).squeeze(1)
        spectrum = torch.stft(
            waveform,
            row.n_fft,
            hop_length=row.hop,
            win_length=row.win_length,
            window=self.window,
            center=True,
            normalized=False,
            return_complex=True,
        )
        power = torch.view_as_real(spectrum).square().sum(-1)
        filters, _ = torchaudio.compliance.kaldi.get_mel_banks(
            row.n_mels,
            row.n_fft,
            float(row.sample_rate),
            0.0,
            row.sample_rate / 2 - 1000,
            vtln_low=100.0,
            vtln_high=-500.0,
            vtln_warp_factor=1.0,
        )
        filters = pad(filters, (0, 1)).to(audio.device)
        with torch.autocast(audio.device.type, enabled=False):  # as in the reference
            return ((filters @ power.float() + 1e-5).log() + 4.5) / 5.0

    def forward(self, audio: Tensor) -> Tensor:
        """Return the vectors [n_sounds, size] of waveforms embedded whole; on CUDA by autocast."""
        with torch.autocast(audio.device.type, torch.float16, enabled=audio.is_cuda):
            mels = self.log_mels(audio)
            tapped = tuple(dict.fromkeys(name for name in self.features if name != "mels"))
            found = {"mels": mels.mean(-1)} | self.network(mels.unsqueeze(1), tapped)
        return torch.cat([found[name].float() for name in self.features], dim=1)


def load_model(model_file_path: str, variant: str) -> ReferenceModel:
    """Load a variant with weights from a file."""
    parsed = parse_variant(variant)
    row = checkpoint(parsed.checkpoint)
    network = MobileNet(row.width, row.head, row.strides)
    network.load_state_dict(load_state_dict(Path(model_file_path), row), strict=True)
    return ReferenceModel(row, network, parsed.features)


def get_scene_embeddings(audio: Tensor, model: ReferenceModel) -> Tensor:
    """Embed clips up to 10 s whole, longer ones by the mean over windows, one after another."""
    length, step = (round(s * model.sample_rate) for s in (SCENE_WINDOW_S, SCENE_STEP_S))
    if audio.shape[1] <= length:
        return model(audio)
    return torch.stack(_embedded_windows(audio, model, length, step)).mean(0)


def get_timestamp_embeddings(audio: Tensor, model: ReferenceModel) -> tuple[Tensor, Tensor]:
    """Embed windows of 160 ms every 50 ms, one after another."""
    length, step = (
        ms * model.sample_rate // 1000 for ms in (TIMESTAMP_WINDOW_MS, TIMESTAMP_STEP_MS)
    )
    embeddings = torch.stack(_embedded_windows(audio, model, length, step), dim=1)
    times = torch.arange(embeddings.shape[1]) * float(TIMESTAMP_STEP_MS)
    return embeddings, times.repeat(len(audio), 1)


def _embedded_windows(audio: Tensor, model: ReferenceModel, length: int, step: int) -> list[Tensor]:
    padded = pad(audio, (length // 2, length // 2), mode="reflect")
    return [model(window) for window in padded.unfold(1, length, step).unbind(1)]
