"""Embeddings equal to the reference's (EfficientAT_HEAR 0.0.1), to 1e-5 of the largest value."""

import importlib
import importlib.util

import numpy as np
import pytest
import torch

from hear_mn.checkpoints import checkpoint, expected_shapes
from hear_mn.variants import parse_variant
from tests.conftest import needs_shared

pytestmark = needs_shared

MODULES = [
    "mn04_e1_l",
    "mn10_e1_l",
    "mn40_ext_clf_l",
    "mn40_ext_e1",
    "mn40_ext_e1_l_all_se",
    "mn40_ext_e1_l_mels",
]


@pytest.fixture(scope="module")
def weights(shared, tmp_path_factory):
    """The weights file that a golden file was made with."""
    specification = importlib.util.spec_from_file_location(
        "seeded_weights", shared / "golden" / "seeded_weights.py"
    )
    golden = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(golden)
    folder = tmp_path_factory.mktemp("weights")

    def find(module):
        if module == "mn04_e1_l":
            return shared / "real" / "weights" / "mn04_as_mAP_432.pt"
        name = parse_variant(module).checkpoint
        path = folder / f"{name}.pt"
        if not path.exists():
            torch.save(golden.seeded_state_dict(expected_shapes(checkpoint(name))), path)
        return path

    yield find
    for path in folder.iterdir():
        path.unlink()  # hundreds of megabytes


@pytest.fixture(scope="module", params=MODULES)
def golden(request, shared, weights):
    """A reference module by name: its HEAR API, its loaded model, its golden values."""
    module = importlib.import_module(f"hear_mn.{request.param}")
    model = module.load_model(str(weights(request.param)))
    with np.load(shared / "golden" / f"{request.param}.npz") as values:
        return module, model, dict(values)


@pytest.fixture(scope="module")
def audio(shared):
    with np.load(shared / "golden" / "audio.npz") as clips:
        return {name: torch.from_numpy(clip) for name, clip in clips.items()}


def relative_difference(found: torch.Tensor, expected: np.ndarray) -> float:
    assert found.shape == expected.shape
    assert found.dtype == torch.float32
    return float(np.abs(found.numpy() - expected).max() / np.abs(expected).max())


def test_every_golden_file_is_compared(shared):
    files = {path.stem for path in (shared / "golden").glob("*.npz")}
    assert files - {"audio"} == {*MODULES}


@pytest.mark.parametrize("clip", ["clip_1s", "clip_5s", "clip_12s"])
def test_scene_embeddings_equal_the_reference(golden, audio, clip):
    module, model, values = golden
    found = module.get_scene_embeddings(audio[clip], model)
    assert relative_difference(found, values[f"scene_{clip}"]) < 1e-5


def test_timestamp_embeddings_and_times_equal_the_reference(golden, audio):
    module, model, values = golden
    found, times = module.get_timestamp_embeddings(audio["clip_1s"], model)
    assert relative_difference(found, values["timestamp_clip_1s"]) < 1e-5
    assert times.dtype == torch.float32
    np.testing.assert_array_equal(times.numpy(), values["times_clip_1s"])


def test_declared_sizes_are_the_sizes_returned(golden):
    _, model, values = golden
    assert model.scene_embedding_size == values["scene_clip_1s"].shape[-1]
    assert model.timestamp_embedding_size == values["timestamp_clip_1s"].shape[-1]
