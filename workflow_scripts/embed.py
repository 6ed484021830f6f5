"""Rule embed: one pass of a checkpoint over a task."""

import json
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from hear_mn.checkpoints import Checkpoint, CheckpointError
from hear_mn.checkpoints import checkpoint as checkpoint_row
from hear_mn.embedding import load_embedder
from hear_mn.mobilenet_embedder import Precision
from hear_mn.whole import write_json_whole
from workflow_scripts.command_line import command_line
from workflow_scripts.hear2021.embedding.embed_task import embed_task
from workflow_scripts.hear2021.embedding.planning import features_of
from workflow_scripts.hear2021.evaluation.kept_scores import forget_scores_of
from workflow_scripts.hear2021.run import versions
from workflow_scripts.hear2021.run.devices import (
    claimed_device,
    keep_freed_memory,
    memory_and_device,
)
from workflow_scripts.hear2021.run.fetched import not_here
from workflow_scripts.hear2021.tasks.task import Task


def embed(
    checkpoint: str,
    weights: Path,
    task: Path,
    parts: str,
    precision: Precision,
    threads: int,
    embeddings: Path,
    manifest: Path,
    performance: Path,
    node_local: str = "",
) -> None:
    """Embed a prepared task.

    Args:
        checkpoint: a row of config/checkpoints.csv.
        weights: what rule fetch_checkpoint says of the weights.
        task: the task.json of the prepared task, at the checkpoint's sample rate.
        parts: what to keep of each clip, say `e1-l`.
        precision: half or float32, on CUDA. A CPU computes in float32.
        threads: CPU threads.
        embeddings: the matrix to write.
        manifest: what the matrix is, to write.
        performance: how the job went, to write.
        node_local: a folder on this machine's own disk to read the audio from, after one copy.
    """
    keep_freed_memory()
    torch.set_num_threads(min(threads, len(os.sched_getaffinity(0))))
    row = checkpoint_row(checkpoint)
    # Whole paths, for a module may change the folder that it and this work in.
    task, embeddings, manifest, performance = (
        path.absolute() for path in (task, embeddings, manifest, performance)
    )
    found = json.loads(weights.read_text())
    if found["path"] and not Path(found["path"]).exists():
        raise CheckpointError(f"{checkpoint}: {not_here(found['path'], weights)}")
    with near_audio(task.parent, node_local) as folder, claimed_device() as device:
        loaded = Task.load(folder)
        embedder = load_embedder(
            checkpoint,
            Path(found["path"]).absolute() if found["path"] else None,
            features_of(parts),
            device=device,
            precision=precision,
        )
        identity = {
            "stage_version": versions.EMBED,
            "checkpoint": checkpoint,
            "weights_sha256": found["sha256"],
            "module": row.module,
            "module_version": found.get("version"),
            "module_code": found.get("code"),
            "front_end": row.front_end,
            "network": row.network,
            "precision": _computed_in(precision, row, device),
            "parts": parts,
            "task": loaded.name,
            "task_sha256": loaded.sha256,
        }
        measured = embed_task(loaded, embedder, embeddings, manifest, identity)
        forget_scores_of(manifest)
        measured |= memory_and_device(device)
    write_json_whole(performance, measured)


def _computed_in(precision: Precision, row: Checkpoint, device: torch.device) -> str | None:
    """Return what the network computes in; of a module that is not ours, nothing is known."""
    if row.module:
        return None
    return precision if device.type == "cuda" else "float32"


@contextmanager
def near_audio(prepared: Path, node_local: str) -> Iterator[Path]:
    """Give a prepared task's folder: itself, or a copy in `node_local` for as long as needed."""
    if not node_local:
        yield prepared
        return
    if not Path(node_local).is_dir():
        raise FileNotFoundError(
            f"{socket.gethostname()} has no folder {node_local}; correct node_local in "
            "slurm/site.yaml"
        )
    with tempfile.TemporaryDirectory(dir=node_local, prefix="hear-mn-") as copy:
        shutil.copytree(prepared, copy, dirs_exist_ok=True)
        yield Path(copy)


if __name__ == "__main__":
    command_line(embed)
