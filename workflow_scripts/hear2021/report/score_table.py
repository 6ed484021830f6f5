"""From score files and published scores to `scores.csv`.

It is the one table that everything else follows from: every model of the run and every published
system on every task of the run, with empty cells where there is no score.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pandas as pd

from workflow_scripts.hear2021.evaluation.results import test_score
from workflow_scripts.hear2021.report.published import Published
from workflow_scripts.hear2021.report.reported_tasks import reported_tasks
from workflow_scripts.hear2021.run.configuration import TaskRow, complete_columns

OWN = "own"
PUBLISHED = "published"
CHALLENGE_MAXIMUM = "challenge maximum"
BEST_POSSIBLE = "best possible value"
SCORE_COLUMNS = [
    "model",
    "task",
    "category",
    "metric",
    "score",
    "std",
    "folds",
    "normaliser",
    "normaliser_source",
    "normalised",
    "source",
    "tolerance",
    "origin",
    "seeds",
    "seeds_mean",
    "seeds_std",
]
_MEASURED = ("score", "std", "folds", "seeds", "seeds_mean", "seeds_std")


@dataclass(frozen=True)
class Missing:
    """A pair that was asked for and has no score."""

    model: str
    task: str
    reason: str


def score_table(
    scores: Path,
    variants: Sequence[str],
    tasks: Sequence[TaskRow],
    published: Published,
    unfinished: Mapping[tuple[str, str], str] = MappingProxyType({}),
    settings: Mapping[str, Any] = MappingProxyType({}),
) -> tuple[pd.DataFrame, list[Missing]]:
    """Collect the run's score files and the published scores of the same tasks.

    Args:
        scores: the folder with `<variant>/<task>.json` in heareval's schema. A file that is not
            there, or whose score is not a number, leaves an empty cell.
        variants: the models of the run, in the order of the tables.
        tasks: the task directories of the run, in the order of the tables.
        published: the published systems; those without a score on any of the tasks are left out.
        unfinished: why pairs (variant, task) that the run did not finish are missing, whatever
            score of an earlier run there is; nothing where that is not known.
        settings: what the provenance of a score must say, if it has one; the score of another
            setting is missing. (Snakemake makes such scores again, unless its records are lost.)

    Returns:
        A table of `SCORE_COLUMNS` and the pairs that have no score.
    """
    rows: list[dict[str, Any]] = []
    missing: list[Missing] = []
    complete = complete_columns(tasks)
    for variant in variants:
        for task in tasks:
            column = task.leaderboard_column
            maximum = published.maxima.get(column) if column in complete else None
            file = scores / variant / f"{task.task}.json"
            pair = (variant, task.task)
            measured, reason = (
                _without_score(file, unfinished[pair])
                if pair in unfinished
                else _read_score(file, settings)
            )
            source = file.as_posix()
            rows.append(
                _row(
                    variant,
                    task.task,
                    task,
                    maximum,
                    origin=OWN,
                    measured=measured,
                    source=source,
                )
            )
            if reason:
                missing.append(Missing(variant, task.task, reason))
    rows.extend(_published_rows(tasks, published))
    return pd.DataFrame(rows, columns=SCORE_COLUMNS), missing


def _without_score(file: Path, reason: str = "") -> tuple[dict[str, float], str]:
    if not reason and file.exists():
        reason = f"{file.as_posix()} is of other settings or data than this run's"
    return dict.fromkeys(_MEASURED, math.nan), reason or f"no score file {file.as_posix()}"


def _read_score(file: Path, settings: Mapping[str, Any]) -> tuple[dict[str, float], str]:
    """Return the `_MEASURED` columns of a score file, or why there are none."""
    measured = dict.fromkeys(_MEASURED, math.nan)
    if not file.exists():
        return _without_score(file)
    result = json.loads(file.read_text())
    made_with = result.get("provenance", {})
    for name, value in settings.items():
        if made_with.get(name, value) != value:
            return _without_score(
                file,
                f"{file.as_posix()} was made with {name} {made_with[name]}, and the run asks for "
                f"{value}; delete it and run again",
            )
    score = test_score(result)
    if not math.isfinite(score):
        return measured, (
            f"the score in {file.as_posix()} is not a number, which metrics are where no event is "
            f"found, or where the test clips have one label only or no events"
        )
    measured["score"] = score
    if "aggregated_scores" in result:
        measured["std"] = float(result["aggregated_scores"]["test_score_std"])
        measured["folds"] = sum(
            isinstance(part, dict) and "test_score" in part for part in result.values()
        )
    if "seeds" in result:
        measured["seeds"] = len(result["seeds"]["test_scores"])
        measured["seeds_mean"] = result["seeds"]["mean"]
        measured["seeds_std"] = result["seeds"]["std"]
    return measured, ""


def _row(
    model: str,
    key: str,
    task: TaskRow,
    maximum: float | None,
    *,
    origin: str,
    measured: Mapping[str, float],
    source: str,
) -> dict[str, Any]:
    normaliser = 1.0 if maximum is None else maximum
    return {
        "model": model,
        "task": key,
        "category": task.category,
        "metric": task.primary_metric,
        "normaliser": normaliser,
        "normaliser_source": BEST_POSSIBLE if maximum is None else CHALLENGE_MAXIMUM,
        "normalised": measured["score"] / normaliser,
        "source": source,
        "tolerance": 0.0,
        "origin": origin,
        **measured,
    }


def _published_rows(tasks: Sequence[TaskRow], published: Published) -> list[dict[str, Any]]:
    by_directory = {task.task: task for task in tasks}
    columns = [task for task in reported_tasks(tasks) if task.leaderboard_column]
    cells = {
        (cell["model"], cell["leaderboard_column"]): cell
        for cell in published.scores.to_dict("records")
    }
    rows = []
    for model, known in published.scores.groupby("model", sort=False):
        if not {task.leaderboard_column for task in columns} & {*known["leaderboard_column"]}:
            continue
        for task in columns:
            row = by_directory[task.directories[0]]
            numbers, source = {"score": math.nan}, known.iloc[0]["source"]
            if (model, task.leaderboard_column) in cells:
                cell = cells[model, task.leaderboard_column]
                numbers = {key: float(cell[key]) for key in ("score", "normalised", "tolerance")}
                source = f"{cell['source']}: {cell['submission']} ({cell['kind']})"
            rows.append(
                _row(
                    str(model),
                    task.key,
                    row,
                    published.maxima.get(task.leaderboard_column),
                    origin=PUBLISHED,
                    measured=numbers,
                    source=source,
                )
            )
    return rows


def read_score_table(path: Path) -> pd.DataFrame:
    """Read a scores.csv that `aggregate` wrote."""
    text = {"model", "task", "category", "metric", "normaliser_source", "source", "origin"}
    return pd.read_csv(path, dtype=dict.fromkeys(text, str))
