"""The HEAR API (https://hearbenchmark.com/hear-api.html) for the module of one variant."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

from torch import Tensor, nn

from hear_mn.embedding import Embedder, load_embedder
from hear_mn.variants import Variant


class HearModel(nn.Module):
    """What `load_model` returns: an embedder with the attributes the HEAR API asks for.

    The sizes are those of the tensors that come back. (The reference's `mn40_e1_l` declares 1487
    for 4367 values, and hear-validator rejects it.)
    """

    def __init__(self, embedder: Embedder) -> None:
        super().__init__()
        self.embedder = embedder
        self.sample_rate = embedder.sample_rate
        self.scene_embedding_size = embedder.scene_size
        self.timestamp_embedding_size = embedder.timestamp_size


def load_variant(variant: Variant, model_file_path: str | Path = "") -> HearModel:
    """Load a variant's model on the CPU; `.to(device)` moves it.

    Weights come from `model_file_path`, or without it from the checkpoint's own file, fetched into
    the cache on first use. (The reference ignores `model_file_path`, and for
    `mn10_mels_256_e1_l` loads the weights of `mn10_as`.)
    """
    path = Path(model_file_path) if model_file_path else None
    return HearModel(load_embedder(variant.checkpoint, path, variant.features, "cpu"))


def get_scene_embeddings(audio: Tensor, model: nn.Module) -> Tensor:
    """Return one embedding a sound.

    Args:
        audio: waveforms [n_sounds, n_samples] at `model.sample_rate`, in [-1, 1] or int16.
        model: what `load_model` returned, on any device.

    Returns:
        float32 [n_sounds, model.scene_embedding_size], on the model's device, without gradients:
        what is trained on them leaves the model as it is.
    """
    return _embedder(model).scene(audio)


def get_timestamp_embeddings(audio: Tensor, model: nn.Module) -> tuple[Tensor, Tensor]:
    """Return an embedding of every 50 ms of each sound, with the times in milliseconds.

    Args:
        audio: waveforms [n_sounds, n_samples] at `model.sample_rate`, in [-1, 1] or int16.
        model: what `load_model` returned, on any device.

    Returns:
        float32 [n_sounds, n_timestamps, model.timestamp_embedding_size], on the model's device,
        and float32 [n_sounds, n_timestamps], the centres of the embedded windows in ms.
    """
    return _embedder(model).timestamps(audio)


def _embedder(model: nn.Module) -> Embedder:
    if not isinstance(model, HearModel):
        raise TypeError(f"model must be what load_model returned, got {type(model).__name__}")
    return model.embedder


def fill_module(module: ModuleType, variant: Variant) -> None:
    """Give an empty module the HEAR API of a variant."""

    def load_model(model_file_path: str = "") -> HearModel:
        return load_variant(variant, model_file_path)

    load_model.__doc__ = load_variant.__doc__
    load_model.__module__ = module.__name__
    module.__doc__ = (
        f"HEAR API of the variant {variant.name}: checkpoint {variant.checkpoint}, "
        f"features {' '.join(variant.features)}."
    )
    public = {
        "load_model": load_model,
        "get_scene_embeddings": get_scene_embeddings,
        "get_timestamp_embeddings": get_timestamp_embeddings,
    }
    module.__dict__.update(public, __all__=list(public))
