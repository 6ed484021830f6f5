"""config/figures.csv: which figures there are, of which models, and what their captions say.

Light on purpose, since the Snakefile reads it: no pandas, no matplotlib.
"""

import csv
from dataclasses import dataclass
from functools import cache
from typing import Any

from workflow_scripts.hear2021.configuration import CONFIG, ConfigurationError, check

OWN = "own"


@dataclass(frozen=True)
class FigureRow:
    """One row of config/figures.csv."""

    figure: str
    plot: str
    models: tuple[str, ...]
    scores: str
    title: str
    caption: str


@cache
def figure_table() -> dict[str, FigureRow]:
    """Return config/figures.csv by figure.

    Raises:
        ConfigurationError: naming the line, the column and what is allowed there.
    """
    rows: dict[str, dict[str, Any]] = {}
    with (CONFIG / "figures.csv").open(newline="") as table:
        for number, cells in enumerate(csv.DictReader(table), start=2):
            rows[f"line {number}"] = {**cells, "models": cells["models"].split(";")}
    check(rows, "figures", "config/figures.csv")
    figures: dict[str, FigureRow] = {}
    for line, row in rows.items():
        if row["figure"] in figures:
            raise ConfigurationError(f"config/figures.csv, {line}: {row['figure']} again")
        figures[row["figure"]] = FigureRow(**{**row, "models": tuple(row["models"])})
    return figures


def figures_of_run(leaderboard_tasks: bool) -> list[str]:
    """Return the figures of a run: with published systems only if its tasks are HEAR 2021's."""
    return [name for name, row in figure_table().items() if leaderboard_tasks or row.scores == OWN]


def published_figures() -> list[str]:
    """Return the figures that published scores alone can fill."""
    return [name for name, row in figure_table().items() if row.scores != OWN]
