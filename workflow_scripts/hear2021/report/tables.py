"""From score files and published scores to tables, and from the tables to what figures compare.

`scores.csv` is the one table that everything else follows from: every model of the run and every
published system on every task of the run, with empty cells where there is no score.
"""

import itertools
import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pandas as pd

from hear_mn.whole import write_whole
from workflow_scripts.hear2021.evaluation.results import test_score
from workflow_scripts.hear2021.report.published import Published, PublishedBox
from workflow_scripts.hear2021.run.configuration import TaskRow, complete_columns

OWN = "own"
PUBLISHED = "published"

CATEGORIES = ("speech", "music", "general")

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


class UnknownModel(ValueError):  # noqa: N818
    """A model that has no scores in this run and was not published."""


@dataclass(frozen=True)
class ReportedTask:
    """A task as figures and the leaderboard count it: Beehive is one task of two directories."""

    name: str
    category: str
    metric: str
    leaderboard_column: str
    directories: tuple[str, ...]

    @property
    def key(self) -> str:
        """The task in scores.csv where one number stands for all its directories."""
        return ";".join(self.directories)


@dataclass(frozen=True)
class Missing:
    """A pair that was asked for and has no score."""

    model: str
    task: str
    reason: str


def reported_tasks(rows: Iterable[TaskRow]) -> list[ReportedTask]:
    """Join the task directories that share a leaderboard column, in the order of `rows`.

    They are called by the words that their names begin with, or by the column if there are none or
    another task is called so. Only a complete column is the leaderboard's
    (`configuration.complete_columns`).
    """
    rows = list(rows)
    complete = complete_columns(rows)
    groups: dict[str, list[TaskRow]] = {}
    for row in rows:
        groups.setdefault(row.leaderboard_column or row.task, []).append(row)
    names = [_common_name([row.display_name for row in group]) for group in groups.values()]
    named = [
        name
        if len(group) == 1 or (name and names.count(name) == 1)
        else group[0].leaderboard_column
        for name, group in zip(names, groups.values(), strict=True)
    ]
    return [
        ReportedTask(
            name=name,
            category=group[0].category,
            metric=group[0].primary_metric,
            leaderboard_column=group[0].leaderboard_column
            if group[0].leaderboard_column in complete
            else "",
            directories=tuple(row.task for row in group),
        )
        for name, group in zip(named, groups.values(), strict=True)
    ]


def _common_name(names: list[str]) -> str:
    """Return the words that all names begin with."""
    words = itertools.takewhile(
        lambda column: len({*column}) == 1, zip(*(name.split() for name in names), strict=False)
    )
    return " ".join(column[0] for column in words)


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
        return measured, f"the score in {file.as_posix()} is not a number"
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


@dataclass(frozen=True)
class Mean:
    """The mean normalised score of a model over the tasks of one category, or over all.

    Attributes:
        mean: over the tasks that have a score; NaN if none has.
        tasks: how many have one.
        of: how many there are.
        basis: the scores, or what was published in their stead.
    """

    mean: float
    tasks: int
    of: int
    basis: str


class Comparison:
    """The models that a figure or a sentence compares, looked up by name.

    A model of the run goes before a published one of the same name, and a model's numbers are
    all from one of the two.
    """

    def __init__(
        self, scores: pd.DataFrame, tasks: Sequence[ReportedTask], published: Published
    ) -> None:
        """Take the rows of a scores.csv, the tasks to report and the published systems."""
        self.tasks = list(tasks)
        self.published = published
        self._cells = {
            (str(origin), str(model)): {row["task"]: row for row in rows.to_dict("records")}
            for (origin, model), rows in scores.groupby(["origin", "model"], sort=False)
        }
        self.all_published_tasks = {*published.maxima} <= {
            task.leaderboard_column for task in self.tasks
        }

    @property
    def own(self) -> list[str]:
        """The models of the run, in the order of scores.csv."""
        return [model for origin, model in self._cells if origin == OWN]

    @property
    def published_scores(self) -> list[str]:
        """The published systems with scores on these tasks, in the order of their table."""
        return [model for origin, model in self._cells if origin == PUBLISHED]

    @property
    def categories(self) -> list[str]:
        """The categories that the tasks belong to, in the order of the figures."""
        return [name for name in CATEGORIES if any(task.category == name for task in self.tasks)]

    def tasks_of(self, category: str | None) -> list[ReportedTask]:
        """Return the tasks of a category, or all of them."""
        return [task for task in self.tasks if category in {None, task.category}]

    def origin(self, model: str) -> str:
        """Say whether a model's numbers are this run's or published.

        Raises:
            UnknownModel: if they are neither.
        """
        if (OWN, model) in self._cells:
            return OWN
        if model in self.published.systems:
            return PUBLISHED
        raise UnknownModel(
            f"{model!r} is neither a model of this run ({', '.join(self.own) or 'there is none'}) "
            f"nor a row of config/published_systems.csv"
        )

    def label(self, model: str) -> str:
        """Return what figures and tables call a model."""
        if self.origin(model) == OWN:
            return model
        return self.published.systems[model].label

    def cell(self, model: str, task: ReportedTask, origin: str | None = None) -> dict[str, Any]:
        """Return score, normalised, tolerance and std on a task; NaN where there is no score.

        The numbers of a task of several directories are means, and missing if one is. `std` is
        that of the normalised score over the task's folds.
        """
        rows = self._cells.get((origin or self.origin(model), model), {})
        found = [rows[key] for key in (task.key,) if key in rows]
        if not found:
            found = [rows[directory] for directory in task.directories if directory in rows]
            if len(found) < len(task.directories):
                found = []
        numbers = ("score", "normalised", "tolerance")
        if not found:
            return {**dict.fromkeys(numbers, math.nan), "std": math.nan}
        return {
            **{key: statistics.fmean(float(row[key]) for row in found) for key in numbers},
            "std": statistics.fmean(float(row["std"]) / float(row["normaliser"]) for row in found),
        }

    def normalised(self, model: str, category: str | None = None) -> list[float]:
        """Return a model's normalised scores on the tasks of a category; NaN where missing."""
        return [self.cell(model, task)["normalised"] for task in self.tasks_of(category)]

    def box(self, model: str, category: str) -> PublishedBox | None:
        """Return the published box of a model that has no scores, if it shows these tasks."""
        box = self.published.boxes.get((model, category))
        if box is None or (OWN, model) in self._cells:
            return None
        return box if box.tasks == len(self._leaderboard_tasks(category)) else None

    def _leaderboard_tasks(self, category: str) -> list[ReportedTask]:
        return [task for task in self.tasks_of(category) if task.leaderboard_column]

    def mean(self, model: str, category: str | None = None, origin: str | None = None) -> Mean:
        """Return a model's mean over a category or over all tasks, and what it rests on."""
        origin = origin or self.origin(model)
        tasks = self.tasks_of(category)
        if (origin, model) in self._cells:
            values = [self.cell(model, task, origin)["normalised"] for task in tasks]
            known = [value for value in values if not math.isnan(value)]
            mean = statistics.fmean(known) if known else math.nan
            return Mean(mean, len(known), len(tasks), "scores")
        boxes = [self.box(model, name) for name in self.categories if category in {None, name}]
        shown = [box for box in boxes if box is not None]
        if shown and len(shown) == len(boxes):
            counted = sum(box.tasks for box in shown)
            mean = sum(box.mean * box.tasks for box in shown) / counted
            return Mean(mean, counted, len(tasks), "box plots")
        if category is None and model in self.published.means and self.all_published_tasks:
            mean = self.published.means[model].mean_percent / 100
            return Mean(mean, len(tasks), len(tasks), "published mean")
        return Mean(math.nan, 0, len(tasks), "nothing")

    def models_and_origins(self) -> list[tuple[str, str]]:
        """Return (model, origin) of all that has scores, boxes or a mean on these tasks."""
        known = [(model, origin) for origin, model in self._cells]
        for model in self.published.systems:
            scored = (model, PUBLISHED) in known or (OWN, model) in self._cells
            if not scored and self.mean(model).tasks:
                known.append((model, PUBLISHED))
        return known


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
