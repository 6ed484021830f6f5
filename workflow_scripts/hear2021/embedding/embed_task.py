"""A pass: the embeddings of a task, computed over its clips once and kept as one matrix.

Two files, which `embedded_task` reads. `<parts>.npy` holds float32 rows, `<parts>.json` says what
they are. Rows follow the clips ordered by length (equal lengths make full batches) and then by
their order in the task, so the layout follows from the task and no per-clip index is stored.
"""

import hashlib
import itertools
import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from tqdm import tqdm

from hear_mn.embedding import Embedder
from hear_mn.variants import MODULE_PART
from hear_mn.whole import write_json_whole
from workflow_scripts.hear2021.embedding.device_pipeline import embedded_batches
from workflow_scripts.hear2021.embedding.embedded_task import EmbeddingError, clips_by_length
from workflow_scripts.hear2021.embedding.planning import files_before
from workflow_scripts.hear2021.embedding.row_file import (
    RowWriter,
    has_rows,
    open_rows,
    write_header,
)
from workflow_scripts.hear2021.run.only_writer import only_writer
from workflow_scripts.hear2021.tasks.task import Clip, Task

SECONDS_BETWEEN_SAVES = 30.0
SAMPLED_ROWS = 1024


@dataclass
class Progress:
    """How far a pass has come, saved beside its rows so that a killed job goes on from there."""

    identity: dict[str, Any]
    clips: int = 0
    rows: int = 0
    times_ms: dict[str, list[float]] = field(default_factory=dict)


def embed_task(
    task: Task,
    embedder: Embedder,
    embeddings: Path,
    manifest: Path,
    identity: dict[str, Any],
) -> dict[str, Any]:
    """Embed every clip of `task` and write the matrix and its manifest, whole or not at all.

    A pass that was killed goes on where its rows were last saved, if `identity` is the same.

    Args:
        task: the task at the embedder's sample rate.
        embedder: gives all features in one pass.
        embeddings: the .npy file to write, float32 (n_rows, sum of the feature sizes).
        manifest: the .json file to write; equal for equal `identity` and rows, but for which others
            were there before it (`planning.files_before`).
        identity: what the numbers depend on (weights, front end, task data, versions).

    Returns:
        How it went: seconds, clips a second, seconds of audio a second.

    Raises:
        EmbeddingError: for a wrong sample rate, a second writer, or NaN or Inf, naming the clip.
    """
    if task.sample_rate != embedder.sample_rate:
        raise EmbeddingError(
            f"{task.name} is at {task.sample_rate} Hz, the model wants {embedder.sample_rate} Hz"
        )
    part = embeddings.with_name(f".{embeddings.name}.part")
    with only_writer(embeddings, EmbeddingError):
        progress, performance = _embed(task, embedder, part, identity)
        part.replace(embeddings)
        write_json_whole(
            manifest,
            {
                "identity": identity,
                "features": _columns(_sizes(task, embedder)),
                "rows": progress.rows,
                "sample_sha256": _sample_sha256(embeddings),
                "times_ms": progress.times_ms or None,
                "made_after": files_before(manifest.stem, manifest.parent),
            },
        )
        _progress_file(part).unlink()
    return performance


def _embed(
    task: Task, embedder: Embedder, part: Path, identity: dict[str, Any]
) -> tuple[Progress, dict[str, Any]]:
    """Embed what is not yet embedded; return how far the pass is, whole, and how it went."""
    clips = clips_by_length(task)
    sizes = _sizes(task, embedder)
    width = sum(sizes.values())
    progress = _read_progress(part, identity)
    if not (progress.rows and has_rows(part, progress.rows, width)):
        # Gone before the rows are: a pass that is killed before its first save would leave it
        # beside rows that it does not describe.
        _progress_file(part).unlink(missing_ok=True)
        progress = Progress(identity)
    started, resumed = time.perf_counter(), progress.clips
    with (
        open_rows(part, progress.rows, width) as rows,
        RowWriter(rows) as writer,
        tqdm(total=len(clips), initial=resumed, unit="clip", desc=task.name, mininterval=1) as bar,
    ):
        saved = time.perf_counter()
        batches = embedded_batches(task, clips[resumed:], embedder, progress.times_ms)
        for batch, matrix, finite in batches:
            if not finite:
                _refuse_non_finite(matrix, batch, task, sizes)
            writer.write(matrix.numpy())
            progress.clips += len(batch)
            progress.rows += matrix.numel() // width
            bar.update(len(batch))
            if time.perf_counter() - saved > SECONDS_BETWEEN_SAVES:
                writer.finish()
                _save(part, rows, progress)
                saved = time.perf_counter()
        writer.finish()
        write_header(rows, progress.rows, width)
        _save(part, rows, progress)
    seconds = time.perf_counter() - started
    embedded = clips[resumed:]
    return progress, {
        "seconds": seconds,
        "clips": len(embedded),
        "clips_per_second": len(embedded) / seconds,
        "audio_seconds_per_second": sum(clip.n_samples for clip in embedded)
        / task.sample_rate
        / seconds,
        "resumed_at_clip": resumed,
    }


def _sample_sha256(embeddings: Path) -> str:
    """Return a hash of some rows, for Snakemake compares the manifest and not the matrix.

    What `identity` does not know, such as what a module imports, changes all rows.
    """
    matrix = np.load(embeddings, mmap_mode="r")
    every = -(-len(matrix) // SAMPLED_ROWS)
    return hashlib.sha256(np.ascontiguousarray(matrix[::every]).data).hexdigest()


def _sizes(task: Task, embedder: Embedder) -> dict[str, int]:
    events = task.embedding_type == "event"
    return embedder.timestamp_feature_sizes if events else embedder.feature_sizes


def _refuse_non_finite(
    matrix: torch.Tensor, batch: Sequence[Clip], task: Task, feature_sizes: dict[str, int]
) -> None:
    """Raise EmbeddingError that names the clip and the feature with NaN or Inf."""
    for clip, values in zip(batch, matrix, strict=True):
        finite = torch.isfinite(values).reshape(-1, values.shape[-1]).all(dim=0)
        for name, (start, stop) in _columns(feature_sizes).items():
            if not finite[start:stop].all():
                remedy = "; a MobileNet in half precision may need `precision: float32`"
                raise EmbeddingError(
                    f"{task.name}: the feature {name} of clip {clip.split}/{clip.name} has NaN or "
                    f"Inf. Listen to the clip, and try the model on it"
                    f"{'' if name == MODULE_PART else remedy}"
                )


def _columns(feature_sizes: dict[str, int]) -> dict[str, list[int]]:
    stops = list(itertools.accumulate(feature_sizes.values()))
    starts = [0, *stops]
    return {
        name: [start, stop]
        for name, start, stop in zip(feature_sizes, starts[:-1], stops, strict=True)
    }


def _progress_file(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _save(part: Path, rows: BinaryIO, progress: Progress) -> None:
    rows.flush()
    os.fsync(rows.fileno())
    write_json_whole(_progress_file(part), vars(progress))


def _read_progress(part: Path, identity: dict[str, Any]) -> Progress:
    saved = _progress_file(part)
    if part.exists() and saved.exists():
        try:
            progress = Progress(**json.loads(saved.read_text()))
        except (ValueError, TypeError):  # of a node that crashed while it wrote
            return Progress(identity)
        if progress.identity == identity:
            return progress
    return Progress(identity)
