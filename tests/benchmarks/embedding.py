"""Embedding: heareval's runner with a module that embeds as the reference does, against a pass."""

import importlib.util
import json
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import yaml
from torch.utils.flop_counter import FlopCounterMode

from hear_mn.checkpoints import checkpoint
from hear_mn.embedding import load_embedder
from hear_mn.mobilenet import MobileNet
from hear_mn.variants import Variant, parse_variant
from tests.benchmarks.comparison import Comparison, as_table, in_turn, timed
from tests.benchmarks.inputs import InputTask
from workflow_scripts.hear2021.embedding.embed_task import embed_task
from workflow_scripts.hear2021.embedding.embedded_task import EmbeddedTask
from workflow_scripts.hear2021.embedding.planning import embedding_files
from workflow_scripts.hear2021.evaluation.packing import pack
from workflow_scripts.hear2021.run.config_tables import CONFIG
from workflow_scripts.hear2021.run.devices import keep_freed_memory

EMBEDDINGS = "embeddings.npy"  # of a pass, in its folder
REFERENCE_MODULE = "tests.benchmarks.reference_module"
AGREEMENT = 1e-4
HALF_AGREEMENT = 0.1  # of the largest value; table `precision` of part `gpu` has what it is


class DisagreementError(AssertionError):
    """Two sides whose results differ: their times are not worth comparing."""


def compare(
    name: str,
    given: InputTask,
    variant: str,
    weights: Path,
    repetitions: int,
    target: float | None = None,
) -> Comparison:
    """Embed a task by both paths in turn and compare the matrices.

    The stock path reads wavs and writes a file a clip and one a split, ours reads the prepared task
    and writes one file; models are loaded before. Where there is a GPU both use it, in half
    precision. Raises DisagreementError.
    """
    if "tensorflow" not in sys.modules and importlib.util.find_spec("tensorflow") is None:
        # heareval only asks of a model whether it is one of TensorFlow's
        sys.modules["tensorflow"] = SimpleNamespace(Module=type("Module", (), {}))  # type: ignore[assignment]
    from heareval.embeddings.task_embeddings import (  # noqa: PLC0415 - imports tensorflow
        Embedding,
        task_embeddings,
    )

    parsed = parse_variant(variant)
    with quiet():
        stock_model = Embedding(REFERENCE_MODULE, str(weights), {"variant": variant})
    embedder = load_embedder(parsed.checkpoint, weights, parsed.features, stock_model.device)
    with tempfile.TemporaryDirectory() as temporary:
        stock_folder, manifest = Path(temporary, "stock"), Path(temporary, "embeddings.json")

        def stock() -> None:
            shutil.rmtree(stock_folder, ignore_errors=True)
            with quiet():
                task_embeddings(stock_model, given.layout, stock_folder)

        def ours() -> None:
            run_pass(given, embedder, Path(temporary))

        seconds = in_turn(stock, ours, repetitions)
        embedded = EmbeddedTask(given.task, [manifest], parsed.features)
        difference = largest_difference(embedded, parsed, stock_folder)
    if not difference <= (HALF_AGREEMENT if stock_model.device == "cuda" else AGREEMENT):
        raise DisagreementError(f"{name}: embeddings differ by {difference:.1e} relatively")
    return Comparison(name, *seconds, f"embeddings agree to {difference:.0e}", target)


def largest_difference(embedded: EmbeddedTask, variant: Variant, stock_folder: Path) -> float:
    """Return by how much a feature's values differ most, as a share of its largest value."""
    packed = pack(embedded)
    sizes = [checkpoint(variant.checkpoint).feature_sizes[name] for name in variant.features]
    differences = []
    for name, split in packed.splits.items():
        ours = packed.rows[split.start : split.stop]
        shape = tuple(json.loads((stock_folder / f"{name}.embedding-dimensions.json").read_text()))
        theirs = torch.from_numpy(
            np.fromfile(stock_folder / f"{name}.embeddings.npy", np.float32).reshape(shape)
        )
        if theirs.shape != ours.shape:
            raise DisagreementError(f"split {name}: {tuple(ours.shape)} for {shape}")
        differences += [
            float((a - b).abs().max() / b.abs().max())
            for a, b in zip(ours.split(sizes, 1), theirs.split(sizes, 1), strict=True)
        ]
    return float(torch.tensor(differences).max())  # NaN if one is


def added_variants(given: InputTask, checkpoint_name: str, weights: Path, repetitions: int) -> str:
    """Return a table of what variants 2, 3, ... of a checkpoint add to its pass.

    The variants are those of config/hear2021.yaml with the most variants, on another checkpoint of
    the same kind if `checkpoint_name` is another one.
    """
    by_checkpoint = study_variants_by_checkpoint()
    most = max(by_checkpoint.values(), key=len)
    variants = [parse_variant(f"{checkpoint_name}_{'_'.join(one.parts)}") for one in most]
    seconds: dict[int, list[float]] = {count: [] for count in range(1, len(variants) + 1)}
    with tempfile.TemporaryDirectory() as temporary:
        for _ in range(repetitions):
            for count, measured in seconds.items():
                features = dict.fromkeys(f for one in variants[:count] for f in one.features)
                embedder = load_embedder(checkpoint_name, weights, list(features), "cpu")
                measured.append(timed(partial(run_pass, given, embedder, Path(temporary))))
    first = seconds[1]
    rows = [["variants", "adds", "pass s", "this one adds", "all beyond the first add"]]
    for count, measured in seconds.items():
        # Passes of one round, so that a machine whose speed drifts is compared with itself.
        before = seconds[max(1, count - 1)]
        step = share_of(first, before, measured)
        added = share_of(first, first, measured)
        rows.append(
            [
                str(count),
                "_".join(variants[count - 1].parts),
                f"{statistics.median(measured):.2f}",
                f"{step:+.1%}",
                f"{added:+.1%}",
            ]
        )
    return as_table(rows)


def share_of(whole: Sequence[float], before: Sequence[float], after: Sequence[float]) -> float:
    """Return the median over rounds of what came on top, as a share of the round's whole."""
    rounds = zip(whole, before, after, strict=True)
    return statistics.median((later - earlier) / of for of, earlier, later in rounds)


def study_variants_by_checkpoint() -> dict[str, list[Variant]]:
    """Return the variants of the study by their checkpoint."""
    by_checkpoint: dict[str, list[Variant]] = {}
    for variant in study_variants():
        by_checkpoint.setdefault(variant.checkpoint, []).append(variant)
    return by_checkpoint


def study_variants() -> list[Variant]:
    """Return the variants of config/hear2021.yaml."""
    config: dict[str, Any] = yaml.safe_load((CONFIG / "hear2021.yaml").read_text())
    return [parse_variant(name) for name in config["variants"]]


def passes_a_task() -> int:
    """Return how many embedding passes all variants of the study need on one task."""
    variants = study_variants()
    files = {(v.checkpoint, *embedding_files(v, variants, [])) for v in variants}
    return len(files)


def multiply_adds(checkpoint_name: str, frames: int) -> int:
    """Return the multiply-adds of the network on one input of so many frames of log mels."""
    row = checkpoint(checkpoint_name)
    with torch.device("meta"):
        network = MobileNet(row.width, row.head, row.strides)
        log_mels = torch.empty(1, 1, row.n_mels, frames)
    counter = FlopCounterMode(display=False)
    with torch.inference_mode(), counter:
        network(log_mels, ("logits",))
    return counter.get_total_flops() // 2


def pass_multiply_adds(given: InputTask, checkpoint_name: str) -> int:
    """Return the network's multiply-adds in a pass over clips of at most 10 s, or over events."""
    row = checkpoint(checkpoint_name)
    if given.task.embedding_type == "scene":
        lengths = [clip.n_samples for clip in given.task.clips]
        counts = {n: multiply_adds(checkpoint_name, (n - 1) // row.hop + 1) for n in {*lengths}}
        return sum(counts[n] for n in lengths)
    windows = sum(clip.n_samples // (row.sample_rate // 20) + 1 for clip in given.task.clips)
    return windows * multiply_adds(checkpoint_name, row.sample_rate * 160 // 1000 // row.hop)


def limits(
    given: Sequence[tuple[str, InputTask]],
    checkpoint_name: str,
    weights: Path,
    product_rate: float,
    disk_rate: float,
    repetitions: int,
) -> str:
    """Return a table of the shares of the machine's limits that passes reach.

    Args:
        given: tasks by what they are called.
        checkpoint_name: the checkpoint.
        weights: its file.
        product_rate: multiply-adds a second of matrix products.
        disk_rate: bytes a second from disk.
        repetitions: of which the median counts.
    """
    features = ("logits", "e1")
    embedder = load_embedder(checkpoint_name, weights, features, "cpu")
    rows = [["pass over", "s", "G multiply-adds/s", "of products", "MB/s read", "of disk"]]
    for name, one in given:
        with tempfile.TemporaryDirectory() as temporary:
            seconds = statistics.median(
                timed(partial(run_pass, one, embedder, Path(temporary))) for _ in range(repetitions)
            )
        rate = pass_multiply_adds(one, checkpoint_name) / seconds
        read = 2 * sum(clip.n_samples for clip in one.task.clips) / seconds
        rows.append(
            [
                name,
                f"{seconds:.2f}",
                f"{rate / 1e9:.1f}",
                f"{rate / product_rate:.0%}",
                f"{read / 1e6:.1f}",
                f"{read / disk_rate:.1%}",
            ]
        )
    return as_table(rows)


def run_pass(given: InputTask, embedder: Any, folder: Path) -> dict[str, Any]:
    """Embed a task into `folder` as an embedding job does; return how it went.

    The job's setting of the C library's memory stays, so that from then on the stock side has it
    too.
    """
    keep_freed_memory()
    with quiet():
        return embed_task(
            given.task,
            embedder,
            folder / EMBEDDINGS,
            folder / "embeddings.json",
            {"task_sha256": given.task.sha256},
        )


@contextmanager
def quiet() -> Iterator[None]:
    """Leave out what a job writes on the console."""
    with (
        Path(os.devnull).open("w") as nowhere,
        redirect_stdout(nowhere),
        redirect_stderr(nowhere),
    ):
        yield
