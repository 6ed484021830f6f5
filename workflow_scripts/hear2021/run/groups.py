"""Which evaluations go to SLURM several to a job: short ones, as a Snakemake group.

A group has the evaluations of one checkpoint's variants on one task, one after the other. What one
has finished is not lost with it: `evaluation.kept_scores`.
"""

from collections.abc import Iterable

from hear_mn.variants import Variant, parse_variant
from workflow_scripts.hear2021.run.configuration import TaskRow

# Evaluations of tasks with fewer clips take seconds, as long as a job's start or less. Clips of
# event tasks count by their length.
SHORT_CLIPS = 600
CLIP_SECONDS = 10.0


def is_short(task: TaskRow) -> bool:
    """Return whether evaluating a variant on this task takes about as long as a job's start."""
    if task.clips is None:
        return False
    if task.embedding_type == "scene":
        return task.clips < SHORT_CLIPS
    if task.sample_duration is not None:
        seconds = task.clips * task.sample_duration
    elif task.hours is not None:
        seconds = task.hours * 3600
    else:
        return False
    return max(task.clips, seconds / CLIP_SECONDS) < SHORT_CLIPS


def trains_on_gpu(task: TaskRow, evaluation_device: str) -> bool:
    """Return whether predictors for a task are trained on a GPU: where it is worth a job's start.

    `evaluation_device`: the run's, "cpu" or "gpu".
    """
    return evaluation_device == "gpu" and not is_short(task)


def members_at_most(variant: str, task: TaskRow, variants: Iterable[Variant], limit: int) -> int:
    """Return how many of the run's evaluations share a job: `limit` or the variants there are."""
    if not is_short(task):
        return 1
    checkpoint = parse_variant(variant).checkpoint
    return max(1, min(limit, sum(sibling.checkpoint == checkpoint for sibling in variants)))


def group_of(variant: str, task: TaskRow) -> str | None:
    """Return the group of an evaluation, or None if it is long enough to be a job of its own."""
    if not is_short(task):
        return None
    return f"evaluate_{parse_variant(variant).checkpoint}_{task.task}"
