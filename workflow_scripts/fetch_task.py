"""Rule fetch_task: a task's archive, found or fetched."""

from pathlib import Path

from hear_mn.checkpoints import cache_directory
from hear_mn.whole import write_json_whole
from workflow_scripts.command_line import command_line
from workflow_scripts.hear2021.run.configuration import task_table
from workflow_scripts.hear2021.tasks.sources import local_source, published_source


def fetch_task(task: str, local: str, synthetic: list[Path], source: Path) -> None:
    """Find a task's archive or folder, or fetch the archive into the cache (HEAR_MN_CACHE).

    Args:
        task: a row of config/tasks.csv.
        local: one's own archive or folder to take; empty for none.
        synthetic: the archive of a mini task; empty for the published archive.
        source: the .json to write: path, kind, and md5 and size or a fingerprint.
    """
    if local or synthetic:
        found = local_source(Path(local) if local else synthetic[0])
    else:
        found = published_source(task_table()[task], cache_directory() / "tasks")
    write_json_whole(source, {"task": task, **found})


if __name__ == "__main__":
    command_line(fetch_task)
