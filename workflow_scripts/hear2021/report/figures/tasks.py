"""The plot of scores by task: bars, a colour for each model."""

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.patches import Patch

from workflow_scripts.hear2021.report.comparison import Comparison
from workflow_scripts.hear2021.report.figures.layout import (
    MODELS_A_PANEL,
    WIDTH,
    Drawing,
    beside,
    legend,
    panels,
    write_near,
)
from workflow_scripts.hear2021.report.figures.model_labels import model_labels
from workflow_scripts.hear2021.report.figures.normalised_scores import (
    NOT_AVAILABLE_NOTE,
    mark_not_available,
    scale_note,
    score_axis,
)
from workflow_scripts.hear2021.report.figures.style import MODEL_COLOURS
from workflow_scripts.hear2021.report.figures.task_axis import (
    name_categories,
    name_columns,
    task_positions,
)

BARS = 0.84  # the share of a task's place that its bars fill
NARROWEST_BAR = 0.065  # in inches

FOLDS = "Lines on bars: standard deviation over the task's folds."
ZERO = "0: the score is zero."
NOTES = (FOLDS, NOT_AVAILABLE_NOTE, ZERO)


def plot_tasks(models: Sequence[str], comparison: Comparison) -> Drawing:
    """Draw a bar for each (task, model), with its deviation over folds where there is one."""
    positions = task_positions(comparison.tasks)
    space = (WIDTH - 0.6) / (positions[-1] + 1.2)  # of a task, in inches
    at_most = max(1, min(MODELS_A_PANEL, int(BARS * space / NARROWEST_BAR)))
    figure, parts, most = panels(models, at_most, height=2.6, gap=0.6)
    labels = model_labels(models, comparison)
    scores = [value for model in models for value in comparison.normalised(model)]
    notes: set[str] = set()
    for axes, shown in parts:
        colours = dict(zip(shown, MODEL_COLOURS[: len(shown)], strict=True))
        score_axis(axes, scores, room=0.1)
        notes |= _draw_bars(axes, colours, comparison, BARS / most)
        axes.set_xlim(positions[0] - 0.6, positions[-1] + 0.6)
        axes.set_xticks(positions, ["" for _ in positions])
        axes.tick_params(axis="x", length=0)
        name_categories(axes, comparison.tasks, y=axes.get_ylim()[1], va="top")
        handles = [
            Patch(facecolor=colour, edgecolor="black", linewidth=0.5, label=labels[model])
            for model, colour in colours.items()
        ]
        legend(axes, handles, (0, 1.03), 1)
    name_columns(parts[-1][0], positions, [task.name for task in comparison.tasks], slant=40)
    return Drawing(figure, [" ".join([scale_note(comparison), *sorted(notes, key=NOTES.index)])])


def _draw_bars(
    axes: Axes, colours: dict[str, str], comparison: Comparison, width: float
) -> set[str]:
    """Draw the bars of the models that have a colour; return the notes that they need."""
    notes: set[str] = set()
    positions = task_positions(comparison.tasks)
    for place, (model, colour) in enumerate(colours.items()):
        for position, task in zip(positions, comparison.tasks, strict=True):
            x = position + beside(place, len(colours), width)
            cell = comparison.cell(model, task)
            notes |= _draw_bar(axes, x, width, colour, cell["normalised"], cell["std"])
    return notes


def _draw_bar(
    axes: Axes, x: float, width: float, colour: str, score: float, deviation: float
) -> set[str]:
    """Draw a score, or that there is none; return the notes that it needs."""
    if math.isnan(score):
        return mark_not_available(axes, x, width, 6)
    notes = set()
    axes.bar(x, score, width, color=colour, edgecolor="black", linewidth=0.4, zorder=3)
    if not math.isnan(deviation):
        axes.errorbar(x, score, deviation, color="black", linewidth=0.7, zorder=4)
        notes.add(FOLDS)
    if score == 0:
        write_near(axes, "0", (x, 0), 1, size=6)
        notes.add(ZERO)
    return notes
