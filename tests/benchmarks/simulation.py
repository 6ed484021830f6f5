"""How long a study would take on so many GPUs: its job graph, played through by list scheduling.

Durations come from the task and checkpoint tables and a few rates. Nothing is run.
"""

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from hear_mn.checkpoints import checkpoint
from hear_mn.variants import Variant
from workflow_scripts.hear2021.embedding.planning import embedding_files
from workflow_scripts.hear2021.run import resources
from workflow_scripts.hear2021.run.configuration import TaskRow

GPU, CORE = "GPU", "core"

# heareval's protocol. A training goes on for 20 validations after its best
# epoch, so for 60 epochs where every third one validates; DCASE 2016 validates every tenth epoch,
# MAESTRO stops at 50 epochs.
PATIENCE_VALIDATIONS = 20
VALIDATE_EVERY = {"dcase2016_task2-hear2021-full": 10}
MAX_EPOCHS = {"maestro-v3.0.0-5h": 50}
USUAL_VALIDATE_EVERY = 3
UNKNOWN_LABELS = 88
SINGLE_SPLIT_TRAINING = 0.8
PREPARE_THREADS = 2


@dataclass(frozen=True)
class Rates:
    """What machines do a second; see docs/benchmarks.md for which are measured.

    Attributes:
        start_up_seconds: of a job: Python, torch, the weights.
        prepared_audio: seconds of audio that a core decodes and resamples a second.
        gpu_multiply_adds: of the network on a GPU.
        gpu_clips: clips a second at most, however short.
        core_training: multiply-adds a second of an evaluation on one core.
        gpu_training: the same on a GPU, all grid points side by side.
        gpu_training_step: seconds of a training step at least, however small.
        best_epoch: when the best epoch comes, on average.
    """

    start_up_seconds: float
    prepared_audio: float
    gpu_multiply_adds: float
    gpu_clips: float
    core_training: float
    gpu_training: float
    gpu_training_step: float
    best_epoch: float


@dataclass(frozen=True)
class Job:
    """A job of the graph: what it is, what it holds while it runs, and what it waits for."""

    name: str
    resource: str
    units: int
    seconds: float
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Schedule:
    """What became of a job graph on a machine.

    Attributes:
        seconds: from the first start to the last end.
        busy: unit-seconds held, by resource.
        capacity: units there are, by resource.
        longest_path: the jobs of the path that would take longest on an unlimited machine.
    """

    seconds: float
    busy: Mapping[str, float]
    capacity: Mapping[str, int]
    longest_path: tuple[Job, ...]

    @property
    def longest_path_seconds(self) -> float:
        """What no number of GPUs goes below."""
        return sum(job.seconds for job in self.longest_path)


def study_jobs(
    variants: Sequence[Variant],
    tasks: Iterable[TaskRow],
    rates: Rates,
    *,
    grid_points: int = 8,
    evaluate_on: str = CORE,
) -> list[Job]:
    """Return the jobs of a study: prepare a task, embed it once a checkpoint, evaluate.

    Args:
        variants: of our own checkpoints.
        tasks: the tasks.
        rates: what machines do.
        grid_points: of an evaluation.
        evaluate_on: CORE, one core an evaluation, or GPU.
    """
    jobs = []
    passes = {(v.checkpoint, *embedding_files(v, variants, [])) for v in variants}
    for task in tasks:
        prepare = f"prepare {task.task}"
        audio = (task.hours or resources.UNKNOWN_HOURS) * 3600
        preparing = rates.start_up_seconds + audio / (PREPARE_THREADS * rates.prepared_audio)
        jobs.append(Job(prepare, CORE, PREPARE_THREADS, preparing))
        for name, parts in sorted(passes):
            seconds = rates.start_up_seconds + embedding_seconds(task, name, rates)
            jobs.append(Job(f"embed {task.task} {name} {parts}", GPU, 1, seconds, (prepare,)))
        for variant in variants:
            embeds = tuple(
                f"embed {task.task} {variant.checkpoint} {parts}"
                for parts in embedding_files(variant, variants, [])
            )
            seconds = rates.start_up_seconds + evaluation_seconds(
                task, variant.size, rates, grid_points, evaluate_on
            )
            name = f"evaluate {task.task} {variant.name}"
            jobs.append(Job(name, evaluate_on, 1, seconds, embeds))
    return jobs


def embedding_seconds(task: TaskRow, checkpoint_name: str, rates: Rates) -> float:
    """Return how long a GPU embeds a task: the network or the reading, whichever is longer."""
    row = checkpoint(checkpoint_name)
    clips = resources.network_frames(task) / (10 * resources.FRAMES_PER_SECOND)
    network = clips * (row.macs_10s or 0) / rates.gpu_multiply_adds
    return max(network, (task.clips or resources.UNKNOWN_CLIPS) / rates.gpu_clips)


def evaluation_seconds(
    task: TaskRow, size: int, rates: Rates, grid_points: int, evaluate_on: str
) -> float:
    """Return how long heareval's protocol takes on a task with embeddings of `size` values."""
    rows = resources.embedding_rows(task)
    folds = task.folds or 1
    in_training = (folds - 2) / folds if folds > 2 else SINGLE_SPLIT_TRAINING
    every = VALIDATE_EVERY.get(task.task, USUAL_VALIDATE_EVERY)
    epochs = rates.best_epoch + PATIENCE_VALIDATIONS * every
    epochs = min(epochs, MAX_EPOCHS.get(task.task, epochs))
    hidden, labels = resources.HIDDEN, task.labels or UNKNOWN_LABELS
    # Half of the grid points have a second hidden layer. The input needs no gradient.
    inner = hidden * hidden / 2 + hidden * labels
    row = 2 * size * hidden + 3 * inner
    trainings = grid_points + folds - 1
    multiply_adds = trainings * epochs * rows * in_training * row
    if evaluate_on == CORE:
        return multiply_adds / rates.core_training
    steps = 2 * epochs * max(1.0, rows * in_training / 1024)  # the grid points, then the folds
    return max(multiply_adds / rates.gpu_training, steps * rates.gpu_training_step)


def schedule(jobs: Sequence[Job], capacity: Mapping[str, int]) -> Schedule:
    """Play a job graph through: whenever units are free, the ready job with most to come starts.

    "Most to come" is the longest path from the job to the end of the graph.

    Raises:
        ValueError: for a job that needs an unknown job or more than there is.
    """
    by_name = {job.name: job for job in jobs}
    for job in jobs:
        if job.units > capacity.get(job.resource, 0):
            raise ValueError(f"{job.name} needs {job.units} of {job.resource}: {dict(capacity)}")
        if unknown := set(job.needs) - set(by_name):
            raise ValueError(f"{job.name} needs {', '.join(unknown)}, which is no job")
    remaining = _remaining_paths(jobs)
    waiting = {job.name: len(job.needs) for job in jobs}
    users: dict[str, list[str]] = {job.name: [] for job in jobs}
    for job in jobs:
        for need in job.needs:
            users[need].append(job.name)
    free = dict(capacity)
    busy = dict.fromkeys(capacity, 0.0)
    ready = {
        kind: [(-remaining[j.name], j.name) for j in jobs if j.resource == kind and not j.needs]
        for kind in capacity
    }
    for queue in ready.values():
        heapq.heapify(queue)
    running: list[tuple[float, str]] = []
    now, done = 0.0, 0
    while done < len(jobs):
        for kind, queue in ready.items():
            while queue and by_name[queue[0][1]].units <= free[kind]:
                job = by_name[heapq.heappop(queue)[1]]
                free[kind] -= job.units
                busy[kind] += job.units * job.seconds
                heapq.heappush(running, (now + job.seconds, job.name))
        if not running:
            raise ValueError("the jobs wait for each other in a circle")
        now, name = heapq.heappop(running)
        done += 1
        free[by_name[name].resource] += by_name[name].units
        for user in users[name]:
            waiting[user] -= 1
            if not waiting[user]:
                heapq.heappush(ready[by_name[user].resource], (-remaining[user], user))
    return Schedule(now, busy, dict(capacity), _longest_path(jobs, remaining))


def _remaining_paths(jobs: Sequence[Job]) -> dict[str, float]:
    """Return the seconds of the longest path from each job's start to the end of the graph.

    A job stands behind those it needs.
    """
    longest_after = {job.name: 0.0 for job in jobs}
    remaining = {}
    for job in reversed(jobs):
        remaining[job.name] = job.seconds + longest_after[job.name]
        for need in job.needs:
            longest_after[need] = max(longest_after[need], remaining[job.name])
    return remaining


def _longest_path(jobs: Sequence[Job], remaining: Mapping[str, float]) -> tuple[Job, ...]:
    path: list[Job] = []
    candidates = [job for job in jobs if not job.needs]
    while candidates:
        path.append(max(candidates, key=lambda job: remaining[job.name]))
        candidates = [job for job in jobs if path[-1].name in job.needs]
    return tuple(path)
