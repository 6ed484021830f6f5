"""The x axis of tasks: where they stand, and the names of tasks and categories."""

import itertools
from collections.abc import Sequence
from typing import Literal

from matplotlib.axes import Axes

from workflow_scripts.hear2021.report.figures.style import DARK_GREY
from workflow_scripts.hear2021.report.reported_tasks import ReportedTask


def task_positions(tasks: Sequence[ReportedTask]) -> list[float]:
    """Return where the tasks stand: one apart, with a gap where the category changes."""
    position, positions = 0.0, []
    for before, task in itertools.pairwise([tasks[0], *tasks]):
        position += 1.5 if before.category != task.category else 1.0
        positions.append(position - 1)
    return positions


def name_columns(
    axes: Axes, positions: Sequence[float], names: Sequence[str], *, slant: float
) -> None:
    """Write names under the axes, at a slant in degrees, so that each ends at its position."""
    axes.set_xticks(positions, names, rotation=slant, ha="right", rotation_mode="anchor")


def name_categories(
    axes: Axes,
    tasks: Sequence[ReportedTask],
    *,
    y: float,
    va: Literal["top", "bottom"],
) -> None:
    """Write each category's name over the middle of its tasks, with its top or bottom at `y`."""
    placed = zip(task_positions(tasks), tasks, strict=True)
    for category, group in itertools.groupby(placed, key=lambda pair: pair[1].category):
        places = [position for position, _ in group]
        axes.text((places[0] + places[-1]) / 2, y, category, ha="center", va=va, color=DARK_GREY)
