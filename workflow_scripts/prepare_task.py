"""Rule prepare_task: a task at one sample rate, checked and packed."""

import json
from pathlib import Path

from workflow_scripts.command_line import command_line
from workflow_scripts.hear2021.run.configuration import task_table
from workflow_scripts.hear2021.run.fetched import not_here
from workflow_scripts.hear2021.tasks.prepare import prepare_task as prepare
from workflow_scripts.hear2021.tasks.task import TaskError


def prepare_task(task: str, source: Path, sample_rate: int, threads: int, prepared: Path) -> None:
    """Check a task, resample it and pack it.

    Args:
        task: a row of config/tasks.csv.
        source: what rule fetch_task says of its archive or folder.
        sample_rate: in Hz.
        threads: how many clips are resampled side by side.
        prepared: the task.json to write; clips.json and audio.npy come beside it.
    """
    path = Path(json.loads(source.read_text())["path"])
    if not path.exists():
        raise TaskError(f"{task}: {not_here(path, source)}")
    prepare(path, task, sample_rate, prepared.parent, threads, task_table()[task])


if __name__ == "__main__":
    command_line(prepare_task)
