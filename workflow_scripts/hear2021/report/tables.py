"""The tables beside `scores.csv`: what a comparison says, for people and for the leaderboard."""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from hear_mn.whole import write_whole
from workflow_scripts.hear2021.report.comparison import Comparison
from workflow_scripts.hear2021.report.score_table import OWN, Missing


def normalised_table(comparison: Comparison) -> pd.DataFrame:
    """Return one row a model and one column a task: normalised scores, empty where missing."""
    rows = []
    for model, origin in comparison.models_and_origins():
        cells = {
            task.name: comparison.cell(model, task, origin)["normalised"]
            for task in comparison.tasks
        }
        if any(not math.isnan(value) for value in cells.values()) or origin == OWN:
            rows.append({"model": model, "origin": origin, **cells})
    names = [task.name for task in comparison.tasks]
    return pd.DataFrame(rows, columns=["model", "origin", *names])


def means_table(comparison: Comparison) -> pd.DataFrame:
    """Return one row a model: mean in percent and tasks counted, by category and overall.

    A missing task is left out of the mean and counted in `tasks_missing`. `basis` says what a
    mean rests on where a system's scores were not published.
    """
    rows = []
    for model, origin in comparison.models_and_origins():
        row: dict[str, Any] = {"model": model, "origin": origin}
        overall = comparison.mean(model, None, origin)
        row["basis"] = overall.basis
        for category in comparison.categories:
            mean = comparison.mean(model, category, origin)
            row[f"{category}_percent"] = 100 * mean.mean
            row[f"{category}_tasks"] = mean.tasks
        row["all_percent"] = 100 * overall.mean
        row["all_tasks"] = overall.tasks
        row["tasks_missing"] = overall.of - overall.tasks
        rows.append(row)
    columns = [
        column
        for category in comparison.categories
        for column in (f"{category}_percent", f"{category}_tasks")
    ]
    totals = ["all_percent", "all_tasks", "tasks_missing"]
    return pd.DataFrame(rows, columns=["model", "origin", "basis", *columns, *totals])


def leaderboard_rows(comparison: Comparison) -> pd.DataFrame:
    """Return the run's models in the columns of the leaderboard, empty where a score is missing.

    Without models of one's own, the published rows of the variants: the leaderboard's own lines.
    """
    published = comparison.published
    exact = published.scores[published.scores["kind"] == "exact"]
    variants = [
        model
        for model in comparison.published_scores
        if published.systems[model].group == "variant" and model in {*exact["model"]}
    ]
    by_column = {task.leaderboard_column: task for task in comparison.tasks}
    columns = sorted(published.maxima)
    rows = []
    for model in comparison.own or variants:
        row = {"Model": model, "URL": "", "Submission Date": ""}
        if not comparison.own:
            lines = exact[exact["model"] == model]
            row["Model"] = lines.iloc[0]["submission"]
            row["URL"] = published.systems[model].url
            row["Submission Date"] = lines.iloc[0]["submission_date"]
        scores = {
            column: comparison.cell(model, by_column[column])["score"]
            if column in by_column
            else math.nan
            for column in columns
        }
        rows.append({**row, **scores})
    return pd.DataFrame(rows, columns=["Model", "URL", "Submission Date", *columns])


def missing_table(missing: Iterable[Missing]) -> pd.DataFrame:
    """Return one row a pair that was asked for and has no score."""
    rows = [{"model": pair.model, "task": pair.task, "reason": pair.reason} for pair in missing]
    return pd.DataFrame(rows, columns=["model", "task", "reason"])


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write a table as CSV, whole or not at all; equal tables give equal bytes.

    Percentages have 2 decimals, other fractions 9 significant digits (float32, as heareval logs
    them, needs no more); a missing number is an empty cell.
    """
    text = table.copy()
    for column in table.select_dtypes("float").columns:
        digits = "{:.2f}" if str(column).endswith("_percent") else "{:.9g}"
        text[column] = [
            "" if math.isnan(value) else digits.format(value) for value in table[column]
        ]
    write_whole(path, text.to_csv(index=False, lineterminator="\n").encode())
