"""The figures: scores by category, by task, against complexity, and as a map of tasks and models.

Text is never smaller than 6 points on a page of 7.2 inches. The same scores give the same bytes:
no date, no random ids, no settings of the user, matplotlib's own font.
"""

import io
from collections.abc import Callable, Mapping
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from hear_mn.whole import write_whole
from workflow_scripts.hear2021.report.comparison import Comparison
from workflow_scripts.hear2021.report.figure_table import EVERY_OWN_MODEL, FigureRow
from workflow_scripts.hear2021.report.figures.categories import plot_categories
from workflow_scripts.hear2021.report.figures.complexity import (
    MACS,
    PARAMETERS,
    Complexity,
    Quantity,
    plot_complexity,
)
from workflow_scripts.hear2021.report.figures.heat_map import plot_heat_map
from workflow_scripts.hear2021.report.figures.layout import Drawing, frame
from workflow_scripts.hear2021.report.figures.style import settings
from workflow_scripts.hear2021.report.figures.tasks import plot_tasks

_PLOTS: dict[str, Callable[[list[str], Comparison], Drawing]] = {
    "categories": plot_categories,
    "tasks": plot_tasks,
    "heat_map": plot_heat_map,
}
_PLOTS_AGAINST: dict[str, Quantity] = {"parameters": PARAMETERS, "macs": MACS}


class FigureError(ValueError):
    """A figure that cannot be drawn, with why."""


def draw(
    row: FigureRow,
    comparison: Comparison,
    complexities: Mapping[str, Complexity],
    notice: str = "",
) -> Figure:
    """Draw a figure of config/figures.csv.

    Args:
        row: what to draw.
        comparison: the scores, of the run and published.
        complexities: by model, for the plots against complexity.
        notice: a line that the figure carries under its title.

    Raises:
        FigureError: if it names no model.
        UnknownModel: if it names a model that is neither of the run nor published.
    """
    models = _models(row, comparison)
    with mpl.rc_context(settings()):
        if row.plot in _PLOTS_AGAINST:
            quantity = _PLOTS_AGAINST[row.plot]
            drawing = plot_complexity(models, comparison, complexities, quantity)
        else:
            drawing = _PLOTS[row.plot](models, comparison)
        frame(drawing, row.title, notice)
    return drawing.figure


def save(figure: Figure, png: Path, svg: Path) -> None:
    """Write a figure as PNG and SVG, each whole or not at all; equal figures give equal bytes."""
    formats: list[tuple[Path, str, dict[str, str | None]]] = [
        (png, "png", {"Software": None}),
        (svg, "svg", {"Date": None, "Creator": None}),
    ]
    for path, kind, metadata in formats:
        content = io.BytesIO()
        with mpl.rc_context(settings()):
            figure.savefig(
                content, format=kind, metadata=metadata, bbox_inches="tight", pad_inches=0.08
            )
        write_whole(path, content.getvalue())


def _models(row: FigureRow, comparison: Comparison) -> list[str]:
    names = [
        name
        for entry in row.models
        for name in (comparison.own if entry == EVERY_OWN_MODEL else [entry])
    ]
    models = list(dict.fromkeys(names))
    if not models:
        raise FigureError(f"figure {row.figure}: the run has no models")
    return models
