"""What only a GPU can tell: how busy a pass keeps it, half precision, too little memory."""

import math
import statistics
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from hear_mn.bias_activation import ACTIVATIONS, biased
from hear_mn.checkpoints import checkpoint
from hear_mn.embedding import Embedder, load_embedder
from hear_mn.mobilenet import activate_
from hear_mn.mobilenet_embedder import MobileNetEmbedder
from tests.benchmarks.comparison import as_table
from tests.benchmarks.embedding import EMBEDDINGS, run_pass
from tests.benchmarks.inputs import InputTask, repeated
from tests.benchmarks.machine import disk_rates

BUSY_TARGET = 0.8
BUSY_SECONDS = 12.0  # of a pass that is sampled, at least
SAMPLE_SECONDS = 0.05
# NVML's samples are of up to the last second, so the first ones are of what was before.
SETTLE_SECONDS = 1.5
MEMORY_AGREEMENT = 1e-2  # of the largest value: batches of other sizes take other kernels


def busy_table(
    tasks: Sequence[tuple[str, InputTask]], checkpoints: dict[str, Path], device: str
) -> str:
    """Return a table of how busy long passes keep the GPU, sampled while they run.

    Args:
        tasks: scene tasks by what they are called; their clips are repeated until a pass is long
            enough to be sampled. A pass reads and writes as a job does.
        checkpoints: weights by the name of their checkpoint.
        device: a CUDA device.
    """
    target = f"target {BUSY_TARGET:.0%}"
    rows = [["pass", "clips/s", "x real time", "MB/s written", "of disk", "GPU busy", target]]
    with tempfile.TemporaryDirectory() as folder:
        disk = disk_rates(Path(folder)).write
    for name, given in tasks:
        for checkpoint_name, weights in checkpoints.items():
            embedder = load_embedder(checkpoint_name, weights, ("logits", "e1"), device)
            times, seconds = 1, 0.0
            with tempfile.TemporaryDirectory() as folder:
                while seconds < BUSY_SECONDS:  # the first finds the batch size and loads kernels
                    long = repeated(given, times)
                    with utilisation(device) as samples:
                        done = run_pass(long, embedder, Path(folder))
                    seconds = done["seconds"]
                    written = Path(folder, EMBEDDINGS).stat().st_size / seconds
                    times = math.ceil(times * max(2, 1.2 * BUSY_SECONDS / seconds))
            busy = statistics.fmean(samples)
            rows.append(
                [
                    f"{name}, {checkpoint_name}",
                    f"{done['clips_per_second']:.0f}",
                    f"{done['audio_seconds_per_second']:.0f}",
                    f"{written / 1e6:.0f}",
                    f"{written / disk:.0%}",
                    f"{busy:.0%}",
                    "met" if busy >= BUSY_TARGET else "NOT MET",
                ]
            )
            print(*rows[-1], sep=", ", file=sys.stderr, flush=True)
    return as_table(rows)


@contextmanager
def utilisation(device: str) -> Iterator[list[float]]:
    """Sample, while the block runs, the share of time in which a CUDA device ran a kernel.

    Gives no samples of a block that is over too soon. Raises RuntimeError if nothing can be
    sampled: NVML is missing, or the device is a slice of a GPU (MIG).
    """
    samples: list[float] = []
    ended = threading.Event()
    errors: list[Exception] = []

    def sample() -> None:
        ended.wait(SETTLE_SECONDS)
        try:
            while not ended.wait(SAMPLE_SECONDS):
                samples.append(torch.cuda.utilization(device) / 100)
        except Exception as error:  # of NVML, in a thread of its own
            errors.append(error)

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield samples
    finally:
        ended.set()
        thread.join()
    if errors:
        raise RuntimeError(f"no sample of {device}'s use: {errors}")


def precision_table(audio: torch.Tensor, name: str, weights: Path, device: str) -> str:
    """Return by how much features on a device differ from a CPU's, in both precisions.

    Differences are the largest and the mean one, as shares of the feature's largest value.
    """
    features = tuple(checkpoint(name).feature_sizes)
    expected = by_feature(load_embedder(name, weights, features, "cpu"), audio)
    rows = [["feature", "float32 largest", "float32 mean", "half largest", "half mean"]]
    found = [
        by_feature(load_embedder(name, weights, features, device, precision), audio)
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


def by_feature(embedder: Embedder, audio: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return each feature [n_sounds, size] of sounds."""
    sizes = embedder.feature_sizes
    return dict(zip(sizes, embedder.scene(audio).split(list(sizes.values()), dim=1), strict=True))


def refuse_other_bits(device: str) -> str:
    """Compare the one pass for bias and activation with torch's two; say so if they are equal.

    Raises AssertionError if a value of any of them differs, infinite ones and NaN included.
    """
    x = 4 * torch.randn(64, 4, 32, 96, device=device).half()  # channels last
    x[0, 0, 0, :3] = torch.tensor([torch.inf, -torch.inf, torch.nan])
    bias = torch.randn(x.shape[-1], device=device)
    for activation in ACTIVATIONS:
        expected = activate_((x + bias).half(), activation)
        found = biased(x, bias, activation)
        assert torch.allclose(found, expected, rtol=0, atol=0, equal_nan=True), activation
    return f"Bias and activation in one pass: the bits of two, for {len(ACTIVATIONS)} activations."


def short_of_memory(audio: torch.Tensor, name: str, weights: Path) -> str:
    """Embed with too little GPU memory for the first batch that is tried; say what became of it.

    Raises AssertionError if the embeddings are others, or no memory was short.
    """
    device = torch.cuda.current_device()
    on_device = torch.device("cuda", device)
    torch.cuda.reset_peak_memory_stats(device)
    enough = load_embedder(name, weights, ("logits", "e1"), on_device, "float32")
    expected = enough.scene(audio)
    peak = torch.cuda.max_memory_allocated(device)
    total = torch.cuda.get_device_properties(device).total_memory
    tight = load_embedder(name, weights, ("logits", "e1"), on_device, "float32")
    assert isinstance(enough, MobileNetEmbedder)
    assert isinstance(tight, MobileNetEmbedder)
    tight.frames_per_batch = enough.frames_per_batch
    del enough
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(0.6 * peak / total, device)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = tight.scene(audio)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)
    said = [str(one.message) for one in caught if "out of GPU memory" in str(one.message)]
    assert said, "the memory was enough"
    difference = float((found - expected).abs().max() / expected.abs().max())
    assert difference < MEMORY_AGREEMENT, f"the embeddings differ by {difference:.1e} relatively"
    return (
        f"With 60 % of the {peak / 1e9:.1f} GB it took, embeddings within {difference:.0e}: {said}"
    )


def noise(clips: int, seconds: float, rate: int = 32000) -> torch.Tensor:
    """Return noise of differing loudness, (clips, samples)."""
    generator = torch.Generator().manual_seed(0)
    audio = torch.randn(clips, round(seconds * rate), generator=generator)
    loudness: Any = torch.linspace(0.01, 0.3, clips)[:, None]
    return (audio * loudness).clamp(-1, 1)
