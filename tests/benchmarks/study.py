"""What the whole study would cost on 1, 8 and 64 GPUs, from measured and assumed rates."""

import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import yaml

from hear_mn.variants import Variant
from tests.benchmarks.comparison import as_table, timed
from tests.benchmarks.embedding import quiet, study_variants
from tests.benchmarks.evaluation import run_python
from tests.benchmarks.inputs import scene_task
from tests.benchmarks.machine import apart
from tests.benchmarks.scaling import training_rate
from tests.benchmarks.simulation import CORE, GPU, Rates, Schedule, schedule, study_jobs
from workflow_scripts.hear2021.run.config_tables import CONFIG
from workflow_scripts.hear2021.run.configuration import TaskRow, task_table
from workflow_scripts.hear2021.run.estimate import estimate_run
from workflow_scripts.hear2021.tasks.prepare import prepare_task

GPUS = (1, 8, 64)
CORES_A_GPU = 8
OTHER_RATE = 44100  # so that preparing has to resample
PREPARED_CLIPS, PREPARED_SECONDS = 60, 10.0
TRAINED_CLIPS, TRAINED_EPOCHS = 2400, 12


@dataclass(frozen=True)
class Known:
    """A rate and where it comes from."""

    value: float
    source: str


# What this machine cannot tell: rates of a GPU, measured once on an H200 with 16 slow cores
# (docs/benchmarks.md), and how trainings end. Set them with --rate NAME=VALUE.
GIVEN = {
    "gpu_multiply_adds": Known(
        2.3e12, "an H200's: a pass of mn04 over 10 s clips; mn40's do ten times as much"
    ),
    "gpu_clips": Known(28_000, "an H200's: a pass of mn40 over 1 s clips, bound by its rows"),
    "gpu_training": Known(4.3e12, "an H200's: eight grid points on 8 event clips of 2 min"),
    "gpu_training_step": Known(0.0025, "an H200's: eight grid points on the spoken digits"),
    "best_epoch": Known(60, "ASSUMED: as long again as the patience of 20 validations"),
}


def measured_rates() -> dict[str, Known]:
    """Return the rates that this machine can tell."""
    with tempfile.TemporaryDirectory() as temporary, quiet():
        folder = Path(temporary)
        task = scene_task(folder, PREPARED_CLIPS, PREPARED_SECONDS)
        preparing = timed(
            lambda: prepare_task(task.layout, task.task.name, OTHER_RATE, folder / "again", 1)
        )
    rate, _ = apart(training_rate, TRAINED_CLIPS, 911, 10, TRAINED_EPOCHS, 1)
    start_up = statistics.median(
        timed(lambda: run_python(["-m", "workflow_scripts.evaluate", "--help"])) for _ in range(3)
    )
    return {
        "start_up_seconds": Known(start_up, "measured: an evaluation job's imports"),
        "prepared_audio": Known(
            PREPARED_CLIPS * PREPARED_SECONDS / preparing, "measured: one core, resampling"
        ),
        "core_training": Known(rate, f"measured: one thread, {TRAINED_CLIPS} x 911"),
    }


def report(known: dict[str, Known], gpus: Sequence[int] = GPUS) -> str:
    """Return the tables: the rates, and what the study costs."""
    rates = Rates(**{name: known[name].value for name in rate_names()})
    variants, tasks = study_variants(), study_tasks()
    rate_rows = [["rate", "value", "source"]]
    rate_rows += [[name, f"{one.value:.4g}", one.source] for name, one in known.items()]
    rows = [
        ["evaluations on", "GPUs", "cores", "wall h", "GPU h", "GPUs busy", "core h", "path h"],
    ]
    paths = []
    for place in (CORE, GPU):
        jobs = study_jobs(variants, tasks, rates, evaluate_on=place)
        for count in gpus:
            made = schedule(jobs, {GPU: count, CORE: CORES_A_GPU * count})
            rows.append([place, *_cells(made)])
        steps = "\n".join(f"    {j.seconds / 3600:8.2f} h  {j.name}" for j in made.longest_path)
        paths.append(f"Longest path with evaluations on a {place}:\n{steps}")
    return "\n\n".join([as_table(rate_rows), as_table(rows), *paths, disk(variants, tasks)])


def rate_names() -> list[str]:
    """Return the names of the rates that the simulation takes."""
    return [field.name for field in fields(Rates)]


def _cells(made: Schedule) -> list[str]:
    hours = made.seconds / 3600
    return [
        str(made.capacity[GPU]),
        str(made.capacity[CORE]),
        f"{hours:.1f}",
        f"{made.busy[GPU] / 3600:.1f}",
        f"{made.busy[GPU] / made.capacity[GPU] / made.seconds:.0%}",
        f"{made.busy[CORE] / 3600:.1f}",
        f"{made.longest_path_seconds / 3600:.1f}",
    ]


def study_tasks() -> list[TaskRow]:
    """Return the task directories of config/hear2021.yaml."""
    config = yaml.safe_load((CONFIG / "hear2021.yaml").read_text())
    return [task_table()[name] for name in config["tasks"]]


def disk(variants: Sequence[Variant], tasks: Sequence[TaskRow]) -> str:
    """Return a sentence on the disk that the study takes."""
    rows = estimate_run(variants, tasks, grid_points=8, seeds=1, evaluation_device="gpu")
    download, audio, embeddings = (
        sum(getattr(row, column) for row in rows) / 1e9
        for column in ("download", "audio", "embeddings")
    )
    return (
        f"Disk: {download + audio + embeddings:.0f} GB if nothing is deleted "
        f"({download:.0f} download, {audio:.0f} audio, {embeddings:.0f} embeddings)."
    )
