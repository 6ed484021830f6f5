"""What others published about HEAR 2021: scores, box plots, means and the systems themselves.

Tables under config/. Each number has its source and how far off it may be: the leaderboard's are
exact, those read off a figure are not. What follows from them (the challenge's maxima, normalised
scores, means) is computed here and stored nowhere.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from workflow_scripts.hear2021.run.config_tables import CONFIG, ConfigurationError, table_rows

CHALLENGE = "HEAR 2021"


@dataclass(frozen=True)
class PublishedBox:
    """A box of a published plot: the normalised scores of one model on one category's tasks."""

    model: str
    category: str
    tasks: int
    low_outlier: float | None
    low_whisker: float
    q1: float
    median: float
    q3: float
    high_whisker: float
    tolerance: float
    source: str

    @property
    def mean(self) -> float:
        """The mean of the scores behind the box, which its statistics determine.

        Quartiles interpolate linearly between sorted scores. Of 5 scores they are the second and
        the fourth; of 7 they are the means of the second and third and of the fifth and sixth.
        """
        lowest = self.low_whisker if self.low_outlier is None else self.low_outlier
        within = self.q1 + self.q3 if self.tasks == 5 else 2 * (self.q1 + self.q3)
        return (lowest + within + self.median + self.high_whisker) / self.tasks


@dataclass(frozen=True)
class PublishedMean:
    """The mean normalised score over all 19 tasks of a system known by nothing else."""

    model: str
    mean_percent: float
    tolerance: float
    source: str


@dataclass(frozen=True)
class PublishedSystem:
    """A system that published scores belong to."""

    model: str
    label: str
    group: str
    reference: str
    checkpoint: str
    parameters: int | None
    parameters_source: str
    url: str
    note: str


@dataclass(frozen=True)
class Published:
    """All that is known of published systems.

    Attributes:
        scores: one row a (model, leaderboard_column) with score, normalised, tolerance (of the
            normalised score), kind, submission_date, source and submission (the name in the
            source). `model` is the variant's name where the system is one of our variants.
        maxima: the challenge's maximum of each leaderboard column.
        boxes: by (model, category), for models that have no rows in `scores`.
        means: by model, for models that have neither.
        systems: by model, every one of the above.
    """

    scores: pd.DataFrame
    maxima: dict[str, float]
    boxes: dict[tuple[str, str], PublishedBox]
    means: dict[str, PublishedMean]
    systems: dict[str, PublishedSystem]

    @property
    def references(self) -> list[str]:
        """The systems that every model is compared with."""
        return [name for name, system in self.systems.items() if system.reference]


@cache
def read_published(folder: Path = CONFIG) -> Published:
    """Read the four published_*.csv in `folder`, once a process.

    Raises:
        ConfigurationError: for a cell that is not allowed, a row given twice, a system that has
            no row in published_systems.csv, or a column that no challenge submission has.
    """
    scores = pd.DataFrame(_rows(folder, "published_scores"))
    if scores.empty:
        raise ConfigurationError(
            f"{folder.name}/published_scores.csv has no rows, and so no maxima to normalise by"
        )
    maxima = challenge_maxima(scores)
    scores = _complete(scores, maxima)
    boxes = [PublishedBox(**row) for row in _rows(folder, "published_boxes", ("model", "category"))]
    means = [PublishedMean(**row) for row in _rows(folder, "published_means", "model")]
    systems = [PublishedSystem(**row) for row in _rows(folder, "published_systems", "model")]
    published = Published(
        scores=scores,
        maxima=maxima,
        boxes={(box.model, box.category): box for box in boxes},
        means={mean.model: mean for mean in means},
        systems={system.model: system for system in systems},
    )
    _refuse_inconsistencies(published, folder)
    return published


def challenge_maxima(scores: pd.DataFrame) -> dict[str, float]:
    """Return the highest score of each leaderboard column among the challenge's submissions.

    HEAR 2021 normalises by it: the published EfficientAT bars are scores over these maxima.
    """
    challenge = scores[scores["submission_date"] == CHALLENGE]
    highest = challenge.groupby("leaderboard_column")["score"].max()
    return {str(column): float(value) for column, value in highest.items()}


def _complete(scores: pd.DataFrame, maxima: dict[str, float]) -> pd.DataFrame:
    unknown = sorted(set(scores["leaderboard_column"]) - set(maxima))
    if unknown:
        raise ConfigurationError(
            f"published_scores.csv: no row dated {CHALLENGE!r} has a score in "
            f"{', '.join(unknown)}, so that the challenge had no such leaderboard column and there "
            f"is no maximum to normalise by. Leave the scores in it out"
        )
    maximum = scores["leaderboard_column"].map(maxima)
    return pd.DataFrame(
        {
            "model": scores["variant"].where(scores["variant"] != "", scores["model"]),
            "submission": scores["model"],
            "leaderboard_column": scores["leaderboard_column"],
            "score": scores["score"].fillna(scores["normalised"] * maximum),
            "normalised": scores["normalised"].fillna(scores["score"] / maximum),
            # Given in the unit of what is given: of a score, or of a normalised score.
            "tolerance": (scores["tolerance"] / maximum).where(
                scores["normalised"].isna(), scores["tolerance"]
            ),
            "kind": scores["kind"],
            "submission_date": scores["submission_date"],
            "source": scores["source"],
        }
    )


def _rows(folder: Path, table: str, *keys: str | tuple[str, ...]) -> list[dict[str, Any]]:
    return [row for _, row in table_rows(table, *keys, folder=folder)]


def _refuse_inconsistencies(published: Published, folder: Path) -> None:
    twice = published.scores[published.scores.duplicated(["model", "leaderboard_column"])]
    if len(twice):
        cell = twice.iloc[0]
        raise ConfigurationError(
            f"{folder.name}/published_scores.csv: {cell['model']} has two scores in "
            f"{cell['leaderboard_column']!r}"
        )
    named = {*published.scores["model"], *published.means, *(box for box, _ in published.boxes)}
    without_row = sorted(named - set(published.systems))
    if without_row:
        raise ConfigurationError(
            f"{folder.name}/published_systems.csv has no row for {', '.join(without_row)}, which "
            f"other tables of published results name (column model or variant)"
        )
