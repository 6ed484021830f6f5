"""Tasks as figures and the leaderboard count them."""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

from workflow_scripts.hear2021.run.configuration import TaskRow, complete_columns


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
