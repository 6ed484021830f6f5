"""Rule export: a pair in heareval's own directory layout."""

from pathlib import Path

from hear_mn.variants import parse_variant
from workflow_scripts.command_line import command_line
from workflow_scripts.hear2021.embedding.embedded_task import EmbeddedTask
from workflow_scripts.hear2021.evaluation.export import export as export_pair
from workflow_scripts.hear2021.tasks.task import Task


def export(variant: str, task: Path, manifests: list[Path], directory: Path) -> None:
    """Write the embeddings of a variant on a task as `heareval.embeddings.runner` would.

    Args:
        variant: names the features to join.
        task: the task.json of the prepared task.
        manifests: the manifests of the embedding files that hold them.
        directory: the directory to write, which heareval's prediction runner then takes.
    """
    embedded = EmbeddedTask(Task.load(task.parent), manifests, parse_variant(variant).features)
    export_pair(embedded, directory)


if __name__ == "__main__":
    command_line(export)
