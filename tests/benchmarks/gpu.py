"""What only a GPU can tell: how busy a pass keeps it, half precision, too little memory."""

import tempfile
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hear_mn.checkpoints import checkpoint
from hear_mn.embedding import load_embedder
from tests.benchmarks.comparison import as_table
from tests.benchmarks.embedding import run_pass
from tests.benchmarks.inputs import InputTask

BUSY_TARGET = 0.8
SAMPLE_SECONDS = 0.05


def busy_table(
    tasks: Sequence[tuple[str, InputTask]], checkpoints: dict[str, Path], device: str
) -> str:
    """Return a table of how busy passes keep the GPU, sampled while they run.

    Args:
        tasks: scene tasks by what they are called; prepared, so that a pass reads and decodes them.
        checkpoints: weights by the name of their checkpoint.
        device: a CUDA device.
    """
    rows = [["pass", "clips/s", "x real time", "GPU busy", f"target {BUSY_TARGET:.0%}"]]
    for name, given in tasks:
        for checkpoint_name, weights in checkpoints.items():
            embedder = load_embedder(checkpoint_name, weights, ("logits", "e1"), device)
            with tempfile.TemporaryDirectory() as folder:
                run_pass(given, embedder, Path(folder))  # the batch size is found, kernels loaded
                with utilisation(device) as samples:
                    done = run_pass(given, embedder, Path(folder))
            busy = float(np.mean(samples)) if samples else float("nan")
            rows.append(
                [
                    f"{name}, {checkpoint_name}",
                    f"{done['clips_per_second']:.0f}",
                    f"{done['audio_seconds_per_second']:.0f}",
                    f"{busy:.0%}",
                    "met" if busy >= BUSY_TARGET else "NOT MET",
                ]
            )
    return as_table(rows)


@contextmanager
def utilisation(device: str) -> Iterator[list[float]]:
    """Sample, while the block runs, the share of time in which a CUDA device ran a kernel."""
    samples: list[float] = []
    ended = threading.Event()

    def sample() -> None:
        while not ended.wait(SAMPLE_SECONDS):
            samples.append(torch.cuda.utilization(device) / 100)

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield samples
    finally:
        ended.set()
        thread.join()


def precision_table(audio: torch.Tensor, name: str, weights: Path, device: str) -> str:
    """Return by how much features on a device differ from a CPU's, in both precisions.

    Differences are the largest and the mean one, as shares of the feature's largest value.
    """
    features = tuple(checkpoint(name).feature_sizes)
    expected = load_embedder(name, weights, features, "cpu").scene(audio)
    rows = [["feature", "float32 largest", "float32 mean", "half largest", "half mean"]]
    found = [
        load_embedder(name, weights, features, device, precision).scene(audio)
        for precision in ("float32", "half")
    ]
    for feature, values in expected.items():
        scale = values.abs().max()
        cells = [feature]
        for one in found:
            difference = (one[feature].cpu() - values).abs() / scale
            cells += [f"{difference.max():.1e}", f"{difference.mean():.1e}"]
        rows.append(cells)
    return as_table(rows)


def short_of_memory(audio: torch.Tensor, name: str, weights: Path, device: str) -> str:
    """Embed with too little GPU memory for the first batch that is tried; say what became of it.

    Raises AssertionError if the embeddings are others, or no memory was short.
    """
    enough = load_embedder(name, weights, ("logits", "e1"), device, "float32")
    expected = enough.scene_vectors(audio)
    peak = torch.cuda.max_memory_allocated(device)
    total = torch.cuda.get_device_properties(device).total_memory
    tight = load_embedder(name, weights, ("logits", "e1"), device, "float32")
    tight.frames_per_batch = enough.frames_per_batch
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(0.6 * peak / total, device)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = tight.scene_vectors(audio)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)
    said = [str(one.message) for one in caught if "out of GPU memory" in str(one.message)]
    assert said, "the memory was enough"
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    return f"With 60 % of the {peak / 1e9:.1f} GB it took, the same embeddings, and: {said[-1]}"


def noise(clips: int, seconds: float, rate: int = 32000) -> torch.Tensor:
    """Return noise of differing loudness, (clips, samples)."""
    generator = torch.Generator().manual_seed(0)
    audio = torch.randn(clips, round(seconds * rate), generator=generator)
    loudness: Any = torch.linspace(0.01, 0.3, clips)[:, None]
    return (audio * loudness).clamp(-1, 1)
