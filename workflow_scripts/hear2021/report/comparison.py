"""The models that figures, tables and sentences compare, and their means."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from workflow_scripts.hear2021.report.published import Published, PublishedBox
from workflow_scripts.hear2021.report.reported_tasks import ReportedTask
from workflow_scripts.hear2021.report.score_table import OWN, PUBLISHED

CATEGORIES = ("speech", "music", "general")


class UnknownModel(ValueError):  # noqa: N818
    """A model that has no scores in this run and was not published."""


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
