"""Cost against size: time and peak memory of both stages, each size in a process of its own."""

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hear_mn.embedding import load_embedder
from hear_mn.variants import parse_variant
from tests.benchmarks.comparison import as_table
from tests.benchmarks.embedding import quiet
from tests.benchmarks.evaluation import SIZE, VARIANT, made_files
from tests.benchmarks.inputs import event_embeddings, event_task, scene_embeddings, scene_task
from tests.benchmarks.machine import apart
from workflow_scripts.hear2021.embedding.embed_task import embed_task
from workflow_scripts.hear2021.embedding.embedded_task import EmbeddedTask
from workflow_scripts.hear2021.evaluation.protocol import evaluate
from workflow_scripts.hear2021.run.devices import keep_freed_memory
from workflow_scripts.hear2021.tasks.task import Clip, Task

GROWTH = (1, 4, 16)
HIDDEN = 1024
WARM_UP_CLIPS = 4


@dataclass(frozen=True)
class Size:
    """What one measurement gave.

    Attributes:
        factor: of the smallest size.
        size: in words.
        seconds: of the stage, without start-up.
        peak_bytes: of the process, beyond what it held before.
        data_bytes: of the embeddings, which a pass writes; an evaluation here holds them twice, as
            made and in heareval's order.
    """

    factor: float
    size: str
    seconds: float
    peak_bytes: int
    data_bytes: int


def table(sizes: Sequence[Size]) -> str:
    """Return a series as a table; `growth` is how time grew, 1 being as the size did."""
    first = sizes[0]
    rows = [["size", "seconds", "time / size, first = 1", "peak MB", "embeddings MB"]]
    for one in sizes:
        growth = (one.seconds / first.seconds) / (one.factor / first.factor)
        rows.append(
            [
                one.size,
                f"{one.seconds:.2f}",
                f"{growth:.2f}",
                f"{one.peak_bytes / 1e6:.0f}",
                f"{one.data_bytes / 1e6:.1f}",
            ]
        )
    return as_table(rows)


def embedding_series(
    kind: str, weights: Path, checkpoint: str, clips: int, seconds: float
) -> list[Size]:
    """Embed x1, x4, x16 `clips` of a "scene" or "event" task."""
    sizes = []
    for factor in GROWTH:
        (took, data), peak = apart(embed, kind, weights, checkpoint, factor * clips, seconds)
        sizes.append(Size(factor, f"{factor * clips} clips of {seconds:g} s", took, peak, data))
    return sizes


def embed(
    kind: str, weights: Path, checkpoint: str, clips: int, seconds: float
) -> tuple[float, int]:
    """Embed a made task; return the seconds it took and the bytes of the embeddings."""
    make = {"scene": scene_task, "event": event_task}[kind]
    embedder = load_embedder(checkpoint, weights, ("logits", "e1"), "cpu")
    with tempfile.TemporaryDirectory() as temporary, quiet():
        folder = Path(temporary)
        warm_up = make(folder / "warm_up", max(3, min(clips, WARM_UP_CLIPS)), min(seconds, 10.0))
        given = make(folder / "task", clips, seconds)
        identity = {"task_sha256": given.task.sha256}
        embed_task(warm_up.task, embedder, folder / "w.npy", folder / "w.json", identity)
        matrix = folder / "embeddings.npy"
        done = embed_task(given.task, embedder, matrix, folder / "embeddings.json", identity)
        return done["seconds"], matrix.stat().st_size


def embed_silence(
    kind: str, weights: Path, checkpoint: str, clips: int, seconds: float
) -> tuple[float, int]:
    """Embed a task of silence that takes no memory to make, for the peak of the pass alone."""
    rate = 32000
    n_samples = round(seconds * rate)
    embedder = load_embedder(checkpoint, weights, ("logits", "e1"), "cpu")
    with tempfile.TemporaryDirectory() as temporary, quiet():
        folder = Path(temporary)
        samples = np.lib.format.open_memmap(
            folder / "audio.npy", mode="w+", dtype=np.int16, shape=(clips * n_samples,)
        )
        listed = [Clip("train", f"{i}.wav", i * n_samples, n_samples) for i in range(clips)]
        metadata = {"embedding_type": kind, "prediction_type": "multilabel"}
        task = Task("silence", metadata, [], {"train": listed}, rate, "0" * 64, samples)
        matrix = folder / "embeddings.npy"
        done = embed_task(task, embedder, matrix, folder / "embeddings.json", {})
        return done["seconds"], matrix.stat().st_size


def evaluation_series(
    vary: str, clips: int, size: int, labels: int, epochs: int, kind: str = "scene"
) -> list[Size]:
    """Evaluate with x1, x4, x16 of `vary` ("clips", "size" or "labels"), for so many epochs."""
    sizes = []
    for factor in GROWTH:
        base = {"clips": clips, "size": size, "labels": labels}
        chosen = base | {vary: factor * base[vary]}
        (seconds, data), peak = apart(evaluate_made, kind, epochs, chosen)
        words = f"{chosen['clips']} clips, {chosen['size']} values, {chosen['labels']} labels"
        sizes.append(Size(factor, words, seconds, peak, data))
    return sizes


def evaluate_made(kind: str, epochs: int, of: dict[str, int]) -> tuple[float, int]:
    """Evaluate made embeddings, one grid point; return the seconds and the embeddings' bytes."""
    made = made_embeddings(kind, epochs, of)
    warm_up = made_embeddings(kind, 3, {"clips": 20, "size": 8, "labels": 2})
    evaluate(warm_up, grid_points=1)
    started = time.perf_counter()
    evaluate(made, grid_points=1)
    data = sum(rows.nbytes for rows in made.embeddings.values())
    return time.perf_counter() - started, data


def made_embeddings(kind: str, epochs: int, of: dict[str, int]) -> Any:
    """Return made embeddings; half of the clips for training, a quarter to validate."""
    clips = of["clips"]
    splits = {"train": clips // 2, "valid": clips // 4, "test": clips // 4}
    make: Callable[..., Any] = event_embeddings if kind == "event" else scene_embeddings
    more = {"check_val_every_n_epoch": [3], "patience": [1000], "max_epochs": [epochs]}
    return make(splits, of["size"], of["labels"], **more)


def training_rate(clips: int, size: int, labels: int, epochs: int, threads: int) -> float:
    """Return the multiply-adds a second of an evaluation that trains one predictor."""
    torch.set_num_threads(threads)
    keep_freed_memory()  # as an evaluation job does
    made = made_embeddings("scene", epochs, {"clips": 2 * clips, "size": size, "labels": labels})
    evaluate(made, grid_points=1)  # what a process does once
    started = time.perf_counter()
    evaluate(made, grid_points=1)
    seconds = time.perf_counter() - started
    return training_multiply_adds(clips, clips // 2, size, labels, epochs) / seconds


def training_multiply_adds(
    train_rows: float, valid_rows: float, size: int, labels: int, epochs: float, every: int = 3
) -> float:
    """Return the multiply-adds of a training with one hidden layer.

    Forward, and backward twice that but for the gradient of the input, which nobody needs.
    """
    first, last = size * HIDDEN, HIDDEN * labels
    return epochs * (train_rows * (2 * first + 3 * last) + valid_rows / every * (first + last))


def write_large(folder: Path, clips: int, labels: int) -> None:
    """Write made embeddings of a multilabel task, for `evaluate_large`."""
    splits = {"train": clips // 2, "valid": clips // 4, "test": clips // 4}
    made_files(scene_embeddings(splits, SIZE, labels, multilabel=True, max_epochs=[3]), folder)


def evaluate_large(folder: Path) -> tuple[float, int]:
    """Evaluate what `write_large` wrote, three epochs; return seconds and the embeddings' bytes."""
    started = time.perf_counter()
    embedded = EmbeddedTask(
        Task.load(folder), [folder / "embeddings.json"], parse_variant(VARIANT).features
    )
    evaluate(embedded, grid_points=1)
    return time.perf_counter() - started, (folder / "embeddings.npy").stat().st_size
