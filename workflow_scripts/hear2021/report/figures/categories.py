"""The plot of scores by category: boxes over the tasks of each."""

import math
from collections.abc import Iterator, Sequence

from matplotlib.axes import Axes
from matplotlib.patches import Patch

from workflow_scripts.hear2021.report.comparison import Comparison
from workflow_scripts.hear2021.report.figures.layout import (
    MODELS_A_PANEL,
    WIDTH,
    Drawing,
    beside,
    panels,
    write_near,
)
from workflow_scripts.hear2021.report.figures.model_labels import break_label, model_labels
from workflow_scripts.hear2021.report.figures.normalised_scores import (
    NOT_AVAILABLE_NOTE,
    mark_not_available,
    scale_note,
    score_axis,
)
from workflow_scripts.hear2021.report.figures.style import CATEGORY_COLOURS
from workflow_scripts.hear2021.report.published import PublishedBox

TICK_CHARACTER = 8 * 0.64 / 72  # the width of one, in inches

BOXES = "A dot is a task; whiskers reach the last task within 1.5 times the box's height."
DAGGER = "\u2020"
PUBLISHED_BOXES = (
    f"{DAGGER} drawn from the statistics of a published box plot; the scores behind it were "
    "not published; its only dots are outliers."
)
INCOMPLETE = "Under a box: how many of the category's tasks have a score, if not all."
NOTES = (BOXES, PUBLISHED_BOXES, INCOMPLETE, NOT_AVAILABLE_NOTE)


def plot_categories(models: Sequence[str], comparison: Comparison) -> Drawing:
    """Draw a box for each (model, category) with a dot for each task, as `seaborn` would."""
    figure, parts, most = panels(models, MODELS_A_PANEL, height=2.5, gap=0.75)
    labels = model_labels(models, comparison)
    characters = int((WIDTH - 0.5) / most / TICK_CHARACTER) - 1
    shown_scores = list(_shown_scores(models, comparison))
    notes = {BOXES}
    for axes, shown in parts:
        score_axis(axes, shown_scores)
        ticks = []
        for place, model in enumerate(shown):
            needed = _draw_model(axes, place, model, comparison)
            mark = DAGGER if PUBLISHED_BOXES in needed else ""
            ticks.append(break_label(labels[model], characters) + mark)
            notes |= needed
        axes.set_xlim(-0.6, most - 0.4)
        axes.set_xticks(range(len(shown)), ticks)
        room = 12 if INCOMPLETE in notes else 4  # points, for the counts under the boxes
        axes.tick_params(axis="x", length=0, pad=room)
    handles = [
        Patch(facecolor=CATEGORY_COLOURS[name], edgecolor="black", linewidth=0.6, label=name)
        for name in comparison.categories
    ]
    return Drawing(figure, [*sorted(notes, key=NOTES.index), scale_note(comparison)], handles)


def _shown_scores(models: Sequence[str], comparison: Comparison) -> Iterator[float]:
    """Yield the scores and upper whiskers of all panels, which have one scale; NaN if missing."""
    for model in models:
        yield from comparison.normalised(model)
        for category in comparison.categories:
            box = comparison.box(model, category)
            if box is not None:
                yield box.high_whisker


def _draw_model(axes: Axes, centre: float, model: str, comparison: Comparison) -> set[str]:
    """Draw a model's boxes, one a category; return the notes that they need."""
    categories = comparison.categories
    width = 0.8 / len(categories)
    notes: set[str] = set()
    for place, category in enumerate(categories):
        x = centre + beside(place, len(categories), width)
        box = comparison.box(model, category)
        if box is not None:
            _draw_box(axes, x, width, category, _published_statistics(box))
            notes.add(PUBLISHED_BOXES)
        else:
            values = comparison.normalised(model, category)
            notes |= _draw_scores(axes, x, width, category, values)
    return notes


def _draw_scores(
    axes: Axes, x: float, width: float, category: str, values: Sequence[float]
) -> set[str]:
    """Draw the box and dots of the scores that are known; return the notes that they need."""
    known = [value for value in values if not math.isnan(value)]
    if not known:
        return mark_not_available(axes, x, width * 0.8, 6.5)
    _draw_box(axes, x, width, category, _statistics(known))
    axes.scatter(
        [x + (rank / (len(known) + 1) - 0.5) * width * 0.6 for rank in range(1, len(known) + 1)],
        known,
        s=7,
        color="white",
        edgecolors="black",
        linewidths=0.5,
        zorder=4,
        clip_on=False,
    )
    if len(known) == len(values):
        return set()
    write_near(axes, f"{len(known)}/{len(values)}", (x, 0), -4, size=6)
    return {INCOMPLETE}


def _published_statistics(box: PublishedBox) -> dict[str, object]:
    return {
        "whislo": box.low_whisker,
        "q1": box.q1,
        "med": box.median,
        "q3": box.q3,
        "whishi": box.high_whisker,
        "fliers": [] if box.low_outlier is None else [box.low_outlier],
    }


def _statistics(values: Sequence[float]) -> dict[str, object]:
    """Return quartiles by linear interpolation and whiskers within 1.5 interquartile ranges."""
    ordered = sorted(values)

    def quantile(share: float) -> float:
        position = share * (len(ordered) - 1)
        low = math.floor(position)
        high = min(low + 1, len(ordered) - 1)
        return ordered[low] + (position - low) * (ordered[high] - ordered[low])

    q1, median, q3 = (quantile(share) for share in (0.25, 0.5, 0.75))
    reach = 1.5 * (q3 - q1)
    return {
        "whislo": min(value for value in ordered if value >= q1 - reach),
        "q1": q1,
        "med": median,
        "q3": q3,
        "whishi": max(value for value in ordered if value <= q3 + reach),
        "fliers": [],  # the dots are drawn of all scores
    }


def _draw_box(
    axes: Axes, x: float, width: float, category: str, statistics: dict[str, object]
) -> None:
    line = {"color": "black", "linewidth": 0.8}
    axes.bxp(
        [statistics],
        positions=[x],
        widths=width * 0.9,
        patch_artist=True,
        manage_ticks=False,
        boxprops={"facecolor": CATEGORY_COLOURS[category], "edgecolor": "black", "linewidth": 0.8},
        medianprops={"color": "black", "linewidth": 1.6},
        whiskerprops=line,
        capprops=line,
        flierprops={
            "marker": "o",
            "markersize": 2.7,
            "markerfacecolor": "white",
            "markeredgecolor": "black",
            "markeredgewidth": 0.5,
        },
        zorder=3,
    )
