"""The map of tasks and models: a coloured cell for each pair."""

import math
from collections.abc import Sequence

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.patches import Rectangle

from workflow_scripts.hear2021.report.comparison import Comparison
from workflow_scripts.hear2021.report.figures.layout import Drawing, new_figure
from workflow_scripts.hear2021.report.figures.model_labels import model_labels
from workflow_scripts.hear2021.report.figures.normalised_scores import (
    NOT_AVAILABLE,
    NOT_AVAILABLE_NOTE,
    scale_note,
)
from workflow_scripts.hear2021.report.figures.style import HATCH, ORANGE
from workflow_scripts.hear2021.report.figures.task_axis import (
    name_categories,
    name_columns,
    task_positions,
)

ROW_HEIGHT = 0.2  # in inches

BETTER = "Framed: better than that."
INCOMPLETE = "*: mean over the tasks that have a score."
NOTES = (BETTER, NOT_AVAILABLE_NOTE, INCOMPLETE)


def plot_heat_map(models: Sequence[str], comparison: Comparison) -> Drawing:
    """Draw a cell for each (model, task) with its normalised score in percent, and the means."""
    figure = new_figure(ROW_HEIGHT * len(models))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.grid(visible=False)
    for spine in axes.spines.values():
        spine.set_visible(False)
    labels = model_labels(models, comparison)
    positions = task_positions(comparison.tasks)
    mean_position = positions[-1] + 1.6
    notes: set[str] = set()
    for line, model in enumerate(models):
        notes |= _draw_scores(axes, line, model, comparison)
        notes |= _draw_mean(axes, mean_position, line, model, comparison)
    axes.set_xlim(-0.5, mean_position + 0.8)
    axes.set_ylim(len(models) - 0.5, -0.5)
    axes.set_yticks(range(len(models)), [labels[model] for model in models])
    names = [*(task.name for task in comparison.tasks), "mean"]
    name_columns(axes, [*positions, mean_position], names, slant=45)
    axes.tick_params(length=0)
    name_categories(axes, comparison.tasks, y=-0.6, va="bottom")
    scale = scale_note(comparison, one="100")
    return Drawing(figure, [" ".join([scale, *sorted(notes, key=NOTES.index)])])


def _draw_scores(axes: Axes, line: int, model: str, comparison: Comparison) -> set[str]:
    """Draw a model's cells, one a task; return the notes that they need."""
    notes: set[str] = set()
    for x, task in zip(task_positions(comparison.tasks), comparison.tasks, strict=True):
        cell = comparison.cell(model, task)
        score = cell["normalised"]
        if score > 1 + cell["tolerance"]:
            _draw_frame(axes, x, line)  # first, so that the number stands on it
            notes.add(BETTER)
        notes |= _draw_cell(axes, x, line, score, f"{100 * score:.0f}")
    return notes


def _draw_mean(axes: Axes, x: float, line: int, model: str, comparison: Comparison) -> set[str]:
    """Draw the cell of a model's mean; return the notes that it needs."""
    mean = comparison.mean(model)
    incomplete = 0 < mean.tasks < mean.of
    text = f"{100 * mean.mean:.1f}" + ("*" if incomplete else "")
    notes = _draw_cell(axes, x, line, mean.mean, text, width=1.5)
    return notes | ({INCOMPLETE} if incomplete else set())


def _draw_cell(
    axes: Axes, x: float, line: int, score: float, text: str, *, width: float = 1
) -> set[str]:
    """Draw a cell with its text, or that there is no score; return the notes that it needs."""
    corner = (x - width / 2, line - 0.5)
    if math.isnan(score):
        axes.add_patch(
            Rectangle(
                corner,
                width,
                1,
                facecolor="white",
                edgecolor="#aaaaaa",
                hatch=HATCH,
                linewidth=0.4,
            )
        )
        axes.text(
            x,
            line,
            NOT_AVAILABLE,
            ha="center",
            va="center",
            fontsize=6,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6},
        )
        return {NOT_AVAILABLE_NOTE}
    colour = mpl.colormaps["Blues"](0.9 * min(max(score, 0), 1))
    axes.add_patch(Rectangle(corner, width, 1, facecolor=colour, edgecolor="white", linewidth=0.4))
    red, green, blue = to_rgb(colour)
    dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.55
    axes.text(
        x,
        line,
        text,
        ha="center",
        va="center",
        fontsize=6.5,
        color="white" if dark else "black",
    )
    return set()


def _draw_frame(axes: Axes, x: float, line: int) -> None:
    axes.add_patch(
        Rectangle(
            (x - 0.44, line - 0.42),
            0.88,
            0.84,
            fill=False,
            edgecolor=ORANGE,
            linewidth=1.2,
            zorder=3,
        )
    )
