"""Rule synthesise_task: the archive of a mini task."""

from pathlib import Path

from workflow_scripts.command_line import command_line
from workflow_scripts.hear2021.tasks.synthesis.mini_tasks import synthesise_task as synthesise


def synthesise_task(task: str, archive: Path) -> None:
    """Make a task of the mini benchmark.

    Args:
        task: its name, say mini_vowels.
        archive: the .tar.gz to write.
    """
    synthesise(task, archive)


if __name__ == "__main__":
    command_line(synthesise_task)
