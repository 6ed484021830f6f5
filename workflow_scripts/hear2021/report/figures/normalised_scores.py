"""Normalised scores: their axis, what its 1 is, and the mark of a missing one."""

import math
from collections.abc import Iterable

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from workflow_scripts.hear2021.report.comparison import Comparison
from workflow_scripts.hear2021.report.figures.layout import write_near
from workflow_scripts.hear2021.report.figures.style import GREY, HATCH

NOT_AVAILABLE = "n/a"
NOT_AVAILABLE_NOTE = f"{NOT_AVAILABLE}: there is no score."


def score_axis(axes: Axes, shown: Iterable[float], room: float = 0) -> None:
    """Set up the y axis of normalised scores.

    Args:
        axes: to set up.
        shown: what it must reach; NaN, of a missing score, is skipped.
        room: left above, as a share of the axis.
    """
    highest = max((value for value in shown if not math.isnan(value)), default=1.0)
    top = max(1.05, highest + 0.03)
    axes.set_ylabel("Normalised test score")
    axes.axhline(1, color=GREY, linewidth=0.8, linestyle=(0, (4, 3)), zorder=1)
    axes.set_ylim(0, top * (1 + room))
    step = 0.2 if top < 1.6 else math.ceil(top) / 5
    axes.set_yticks([step * index for index in range(int(top / step) + 1)])


def mark_not_available(axes: Axes, x: float, width: float, size: float) -> set[str]:
    """Mark a missing score: a hatched stub and the word, where a zero would be a bare line.

    Args:
        axes: set up by `score_axis`.
        x: where the mark stands.
        width: of the stub, in the units of x.
        size: of the font, in points.

    Returns:
        The note that says what the mark means.
    """
    stub = 0.045 * axes.get_ylim()[1]
    axes.add_patch(
        Rectangle((x - width / 2, 0), width, stub, facecolor="white", edgecolor=GREY, hatch=HATCH)
    )
    write_near(axes, NOT_AVAILABLE, (x, stub), 2, size=size, rotation=90, color="#333333")
    return {NOT_AVAILABLE_NOTE}


def scale_note(comparison: Comparison, one: str = "1") -> str:
    """Return the note that says what a normalised score of 1 is, which the figure writes `one`."""
    if all(task.leaderboard_column for task in comparison.tasks):
        return f"{one} is the best score of the HEAR 2021 challenge on a task."
    if any(task.leaderboard_column for task in comparison.tasks):
        return (
            f"{one} is the best score of the HEAR 2021 challenge on a task, or the best possible "
            "one on a task that the challenge does not have."
        )
    return f"{one} is the best possible score."
