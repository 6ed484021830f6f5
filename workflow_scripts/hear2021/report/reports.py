"""What the reports of a run are of: its own, and that of the published scores alone."""

from dataclasses import dataclass

from hear_mn.checkpoints import checkpoint
from workflow_scripts.hear2021.report.figure_table import (
    figures_of_run,
    published_figures,
    published_systems,
)
from workflow_scripts.hear2021.run.config_tables import ConfigurationError
from workflow_scripts.hear2021.run.configuration import Run, complete_columns, task_table


@dataclass(frozen=True)
class Report:
    """What the tables, figures and claims in results/<benchmark>/ are of.

    Attributes:
        scores: the files of the scores that they are made of.
        variants: the models that were scored.
        tasks: the task directories, in the order of config/tasks.csv.
        notice: what each figure says on its face.
        figures: the rows of config/figures.csv that are drawn.
    """

    scores: list[str]
    variants: list[str]
    tasks: list[str]
    notice: str
    figures: list[str]


def reports(run: Run) -> dict[str, Report]:
    """Return the reports by benchmark: the run's own, and `published`, which needs no model.

    Raises:
        ConfigurationError: for a mistake in config/figures.csv, with its line; for a module that
            has the name of a published system, with which it would be one in tables and figures.
    """
    for variant in run.variants:
        if checkpoint(variant.checkpoint).module and variant.name in published_systems():
            raise ConfigurationError(
                f"variants: {variant.name} is a system of config/published_systems.csv; give your "
                f"module another name in config/checkpoints.csv"
            )
    variants = [variant.name for variant in run.variants]
    requested = {row.task for row in run.tasks}
    table = task_table()
    own = Report(
        scores=[f"results/scores/{name}/{row.task}.json" for name in variants for row in run.tasks],
        variants=variants,
        tasks=[task for task in table if task in requested],
        notice=run.notice,
        figures=figures_of_run(variants, bool(complete_columns(run.tasks))),
    )
    published = Report(
        scores=[],
        variants=[],
        tasks=[row.task for row in table.values() if row.benchmark == "hear2021"],
        notice="",
        figures=published_figures(),
    )
    return {run.benchmark: own, "published": published}
