"""Memory and time of each job, from the tables: generous at first, more at each attempt.

The functions are what Snakemake calls for a rule's `mem_mb` and `runtime`, so their arguments are
Snakemake's: the wildcards and how often the job has been tried.
"""

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hear_mn.checkpoints import checkpoint
from hear_mn.variants import parse_variant
from hear_mn.windows import (
    SCENE_STEP_S,
    SCENE_WINDOW_S,
    TIMESTAMP_STEP_MS,
    TIMESTAMP_WINDOW_MS,
)
from workflow_scripts.hear2021.run.configuration import Run, TaskRow, task_table

# Lower bounds of what a GPU and a CPU core do, so that the times that follow are upper bounds.
GPU_MULTIPLY_ADDS_PER_SECOND = 0.5e12
EVALUATION_MULTIPLY_ADDS_PER_SECOND = 20e9
GPU_EVALUATION_MULTIPLY_ADDS_PER_SECOND = 1e12
CLIPS_PER_SECOND = 50
START_UP_MINUTES = 10

BASE_MEMORY_MB = 4000  # Python, torch, CUDA's host side, batches read ahead
UNKNOWN_HOURS = 5.0
UNKNOWN_CLIPS = 10_000
UNKNOWN_SIZE = 2048
UNKNOWN_MULTIPLY_ADDS = 20e9

FRAMES_PER_SECOND = 100

# A training of heareval's MLP: some hundred epochs of three products.
EPOCHS = 200
HIDDEN = 1024

Minutes = Callable[[Any, int], int]  # of a job's wildcards and attempt


def gpus_here() -> int:
    """Return how many NVIDIA GPUs this process may use, without importing torch."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([device for device in visible.split(",") if device.strip() not in {"", "-1"}])
    return len(list(Path("/dev").glob("nvidia[0-9]*")))


def embedding_rows(task: TaskRow) -> int:
    """Return about how many embeddings a task has: one a clip, or one every 50 ms."""
    if task.embedding_type == "event":
        return int((task.hours or UNKNOWN_HOURS) * 3600 * 1000 / TIMESTAMP_STEP_MS)
    return task.clips or UNKNOWN_CLIPS


def network_frames(task: TaskRow) -> float:
    """Return how many spectrogram frames the network sees for a task."""
    seconds = (task.hours or UNKNOWN_HOURS) * 3600
    if task.embedding_type == "event":
        return seconds * FRAMES_PER_SECOND * TIMESTAMP_WINDOW_MS / TIMESTAMP_STEP_MS
    overlap = SCENE_WINDOW_S / SCENE_STEP_S if (task.sample_duration or 0) > SCENE_WINDOW_S else 1
    return seconds * FRAMES_PER_SECOND * overlap


def embedding_size(variant: str) -> int:
    """Return the number of values of a variant's embedding; a guess for a module not ours."""
    parsed = parse_variant(variant)
    return UNKNOWN_SIZE if checkpoint(parsed.checkpoint).module else parsed.size


def embed_seconds(task: TaskRow, checkpoint_name: str) -> float:
    """Return how long a GPU takes at most to embed a task."""
    macs_10s = checkpoint(checkpoint_name).macs_10s or UNKNOWN_MULTIPLY_ADDS
    network = network_frames(task) / (10 * FRAMES_PER_SECOND) * macs_10s
    reading = (task.clips or UNKNOWN_CLIPS) / CLIPS_PER_SECOND
    return network / GPU_MULTIPLY_ADDS_PER_SECOND + reading


def embed_minutes(wildcards: Any, attempt: int) -> int:
    """Return the time limit of an embedding job in minutes."""
    seconds = embed_seconds(task_table()[wildcards.task], wildcards.checkpoint)
    return math.ceil((START_UP_MINUTES + seconds / 60) * attempt)


def embed_memory(wildcards: Any, attempt: int) -> int:
    """Return the memory of an embedding job in MB; the matrix goes to disk as it grows."""
    return BASE_MEMORY_MB * (1 + attempt)


def trainings(task: TaskRow, grid_points: int, seeds: int) -> int:
    """Return how many classifiers an evaluation trains: the grid, then the best on each fold."""
    return seeds * (grid_points + (task.folds or 1) - 1)


def evaluation_multiply_adds(variant: str, task: TaskRow, grid_points: int, seeds: int) -> float:
    """Return about how many multiply-adds the trainings of one variant on one task take."""
    one = 3 * embedding_rows(task) * (embedding_size(variant) + HIDDEN) * HIDDEN * EPOCHS
    return one * trainings(task, grid_points, seeds)


def evaluate_minutes(run: Run) -> Minutes:
    """Return the time limit of a run's evaluations on one CPU core."""
    return _evaluation_minutes(run, EVALUATION_MULTIPLY_ADDS_PER_SECOND)


def evaluate_on_gpu_minutes(run: Run) -> Minutes:
    """Return the time limit of a run's evaluations on a GPU."""
    return _evaluation_minutes(run, GPU_EVALUATION_MULTIPLY_ADDS_PER_SECOND)


def _evaluation_minutes(run: Run, multiply_adds_per_second: float) -> Minutes:
    def minutes(wildcards: Any, attempt: int) -> int:
        task = task_table()[wildcards.task]
        multiply_adds = evaluation_multiply_adds(
            wildcards.variant, task, run.grid_points, run.seeds
        )
        seconds = multiply_adds / multiply_adds_per_second
        return math.ceil((START_UP_MINUTES + seconds / 60) * attempt)

    return minutes


def evaluate_memory(wildcards: Any, attempt: int) -> int:
    """Return the memory of an evaluation in MB: the embeddings twice, split by split and joined."""
    task = task_table()[wildcards.task]
    size = embedding_size(wildcards.variant)
    matrix = embedding_rows(task) * size * 4 / 1e6
    return math.ceil((BASE_MEMORY_MB + 2 * matrix) * attempt)


def prepare_minutes(wildcards: Any, attempt: int) -> int:
    """Return the time limit of preparing a task in minutes: unpacking and resampling its hours."""
    hours = task_table()[wildcards.task].hours or UNKNOWN_HOURS
    return math.ceil((START_UP_MINUTES + hours) * attempt)
