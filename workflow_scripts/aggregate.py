"""Rule aggregate: the scores of a run, and the published ones of its tasks, as tables."""

from pathlib import Path

from workflow_scripts.command_line import command_line
from workflow_scripts.hear2021.report.comparison import Comparison
from workflow_scripts.hear2021.report.published import read_published
from workflow_scripts.hear2021.report.reported_tasks import reported_tasks
from workflow_scripts.hear2021.report.score_table import score_table
from workflow_scripts.hear2021.report.tables import (
    leaderboard_rows,
    means_table,
    missing_table,
    normalised_table,
    write_table,
)
from workflow_scripts.hear2021.run.configuration import task_table
from workflow_scripts.hear2021.run.unfinished import read_unfinished


def aggregate(
    variants: list[str],
    tasks: list[str],
    grid_points: int,
    seeds: int,
    score_folder: Path,
    scores: Path,
    normalised: Path,
    means: Path,
    leaderboard_row: Path,
    missing: Path,
    unfinished: Path | None = None,
) -> None:
    """Write the tables of a run.

    Args:
        variants: the models of the run; none for the published comparison.
        tasks: the task directories of the run.
        grid_points: how many grid points the run tries.
        seeds: how many seeds it has.
        score_folder: holds `<variant>/<task>.json`; a file that is not there is a missing score.
        scores: every model on every task, with what the score was normalised by and its source.
        normalised: one row a model, one column a task.
        means: one row a model, its means by category and overall, tasks counted and missing.
        leaderboard_row: the run's models in the columns of the HEAR leaderboard.
        missing: the pairs of the run without a score, and why.
        unfinished: of a run that did not finish, what `write_unfinished` says of it.
    """
    rows = [task_table()[name] for name in tasks]
    published = read_published()
    left = read_unfinished(unfinished) if unfinished else {}
    settings = {"grid_points": grid_points, "seeds": seeds}
    table, without_score = score_table(score_folder, variants, rows, published, left, settings)
    comparison = Comparison(table, reported_tasks(rows), published)
    write_table(table, scores)
    write_table(normalised_table(comparison), normalised)
    write_table(means_table(comparison), means)
    write_table(leaderboard_rows(comparison), leaderboard_row)
    write_table(missing_table(without_score), missing)


if __name__ == "__main__":
    command_line(aggregate)
