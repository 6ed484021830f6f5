"""Rule evaluate: heareval's protocol on one variant and task."""

import math
import os
import statistics
import time
from contextlib import nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch

from hear_mn.variants import parse_variant
from hear_mn.whole import write_json_whole
from workflow_scripts.command_line import command_line
from workflow_scripts.hear2021.embedding.embedded_task import EmbeddedTask
from workflow_scripts.hear2021.evaluation.kept_scores import keep_scores, kept_scores
from workflow_scripts.hear2021.evaluation.protocol import evaluate as evaluate_protocol
from workflow_scripts.hear2021.evaluation.results import test_score
from workflow_scripts.hear2021.run import versions
from workflow_scripts.hear2021.run.devices import (
    claimed_device,
    keep_freed_memory,
    memory_and_device,
)
from workflow_scripts.hear2021.run.only_writer import only_writer
from workflow_scripts.hear2021.tasks.task import Task

FIRST_SEED = 42
PACKAGES = ["heareval", "torch", "numpy", "scikit-learn", "sed-eval"]


def evaluate(
    variant: str,
    task: Path,
    manifests: list[Path],
    grid_points: int,
    seeds: int,
    device: Literal["cpu", "gpu"],
    threads: int,
    scores: Path,
) -> None:
    """Score one variant on one task.

    Args:
        variant: names the features to join.
        task: the task.json of the prepared task.
        manifests: the manifests of the embedding files that hold them.
        grid_points: how many of heareval's grid points are tried.
        seeds: how many seeds from 42 on; the scores of 42 are the result, the spread is beside it.
        device: `gpu` trains all grid points at once on a GPU, if this machine has one.
        threads: CPU threads; another number may take training another way in the last digits.
        scores: the file to write, in the schema of heareval's test.predicted-scores.json.

    Raises:
        RuntimeError: if another process is at it, whose scores would come after these.
    """
    keep_freed_memory()
    torch.set_num_threads(min(threads, len(os.sched_getaffinity(0))))
    embedded = EmbeddedTask(Task.load(task.parent), manifests, parse_variant(variant).features)
    request = {
        "variant": variant,
        "task": embedded.task.name,
        "embeddings": embedded.identity,
        "stage_version": versions.EVALUATE,
        "grid_points": grid_points,
        "seeds": seeds,
        "evaluation_device": device,
        "threads": torch.get_num_threads(),
    }
    with only_writer(scores, RuntimeError):
        kept = kept_scores(variant, manifests, request)
        if kept is not None:
            write_json_whole(scores, kept, indent=4)
            return
        with claimed_device() if device == "gpu" else nullcontext(torch.device("cpu")) as claimed:
            scored = _evaluate(embedded, request, claimed)
        write_json_whole(scores, scored, indent=4)
        try:
            keep_scores(variant, manifests, request, scored)
        except OSError as error:  # a full disk, say; the scores themselves are written
            print(f"no second copy of the scores is kept: {error}", flush=True)


def _evaluate(
    embedded: EmbeddedTask, request: dict[str, Any], device: torch.device
) -> dict[str, Any]:
    started = time.perf_counter()
    results = [
        evaluate_protocol(
            embedded,
            grid_points=request["grid_points"],
            seed=FIRST_SEED + repetition,
            device=device,
            progress=_tell,
        )
        for repetition in range(request["seeds"])
    ]
    scored: dict[str, Any] = results[0]
    if len(results) > 1:
        values = [test_score(result) for result in results]
        scored["seeds"] = {
            "test_scores": values,
            "mean": statistics.fmean(values),
            "std": statistics.stdev(values) if all(map(math.isfinite, values)) else math.nan,
        }
    scored["provenance"] = {
        **request,
        "seed": FIRST_SEED,
        "packages": {package: version(package) for package in PACKAGES},
        "seconds": time.perf_counter() - started,
        **memory_and_device(device),
    }
    return scored


def _tell(done: int, in_all: int) -> None:
    print(f"{done} of {in_all} classifiers trained", flush=True)


if __name__ == "__main__":
    command_line(evaluate)
