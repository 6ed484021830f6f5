"""The plots of mean scores against what a network is made of or takes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullFormatter

from workflow_scripts.hear2021.report.comparison import Comparison
from workflow_scripts.hear2021.report.figures.layout import Drawing, fit_width, new_figure
from workflow_scripts.hear2021.report.figures.model_labels import break_label
from workflow_scripts.hear2021.report.figures.place_labels import place_labels
from workflow_scripts.hear2021.report.figures.style import BLUE, GREEN, GREY, ORANGE, VERMILION
from workflow_scripts.hear2021.report.score_table import OWN

HEIGHTS = (3.6, 4.8, 6.4, 8.5, 11.3)  # in inches


@dataclass(frozen=True)
class Complexity:
    """What a model's network costs; None where it is not known."""

    parameters: int | None
    macs: int | None


@dataclass(frozen=True)
class Quantity:
    """What a network is made of or takes, as an axis; `value` reads it."""

    name: str
    title: str
    unit: float
    suffix: str
    value: Callable[[Complexity], int | None]


PARAMETERS = Quantity("parameters", "Parameters", 1e6, " M", attrgetter("parameters"))
MACS = Quantity("multiply-adds", "Multiply-adds for 10 s of audio", 1e9, " G", attrgetter("macs"))


@dataclass(frozen=True)
class _Series:
    name: str
    marker: str
    colour: str
    line: Literal["", "-"] = ""


_THIS_RUN = _Series("this run", "D", VERMILION)
_SERIES_OF_GROUP = {
    "variant": _Series("published variants", "o", BLUE),
    "width": _Series("widths, blocks and mels (EUSIPCO 2023)", "o", GREEN, "-"),
    "system": _Series("other systems", "s", ORANGE),
}
_SERIES = (_THIS_RUN, *_SERIES_OF_GROUP.values())


@dataclass(frozen=True)
class _Point:
    """A model: x in the quantity's unit, y the mean in percent over `tasks` of the `of` tasks."""

    label: str
    series: _Series
    x: float
    y: float
    tasks: int
    of: int

    @property
    def complete(self) -> bool:
        return self.tasks == self.of


def plot_complexity(
    models: Sequence[str],
    comparison: Comparison,
    complexities: Mapping[str, Complexity],
    quantity: Quantity,
) -> Drawing:
    """Draw a point for each model: its mean normalised score over a quantity of its network."""
    points, not_shown = [], []
    for model in models:
        point = _point(model, comparison, complexities.get(model), quantity)
        if point is None:
            not_shown.append(comparison.label(model))
        else:
            points.append(point)
    names = [(break_label(point.label, 40), point.x, point.y) for point in points]
    for height in HEIGHTS:  # until every name has its place
        figure, axes = _scatter(points, height, quantity)
        fit_width(figure)
        nameless = place_labels(figure, axes, names, size=7, colour=GREY)
        if not nameless:
            break
    notes = _notes(points, [points[number] for number in nameless], not_shown, quantity)
    return Drawing(figure, notes, _handles(points))


def _point(
    model: str, comparison: Comparison, complexity: Complexity | None, quantity: Quantity
) -> _Point | None:
    """Return a model's point, or None if its mean or the quantity is not known."""
    mean = comparison.mean(model)
    value = None if complexity is None else quantity.value(complexity)
    if not mean.tasks or value is None:
        return None
    if comparison.origin(model) == OWN:
        series = _THIS_RUN
    else:
        series = _SERIES_OF_GROUP[comparison.published.systems[model].group]
    x, y = value / quantity.unit, 100 * mean.mean
    return _Point(comparison.label(model), series, x, y, mean.tasks, mean.of)


def _scatter(points: Sequence[_Point], height: float, quantity: Quantity) -> tuple[Figure, Axes]:
    """Draw the points and curves, without names, in a figure of a height in inches."""
    figure = new_figure(height)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.grid(visible=True, axis="both")
    axes.set_xscale("log")
    for series in _SERIES:
        _draw_series(axes, series, [point for point in points if point.series == series])
    # A run without any score is drawn, too: what it has not is in the notes.
    xs, ys = [point.x for point in points] or [1.0], [point.y for point in points] or [50.0]
    axes.set_xlim(min(xs) / 2, max(xs) * 4)  # room for names on both sides
    span = max(max(ys) - min(ys), 5)
    axes.set_ylim(min(ys) - 0.12 * span, max(ys) + 0.12 * span)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}{quantity.suffix}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(f"{quantity.title} (log scale)")
    axes.set_ylabel("Mean normalised score (%)")
    return figure, axes


def _draw_series(axes: Axes, series: _Series, points: Sequence[_Point]) -> None:
    points = sorted(points, key=lambda point: point.x)
    if points and series.line:
        xs, ys = [point.x for point in points], [point.y for point in points]
        axes.plot(xs, ys, color=series.colour, linewidth=1, linestyle=series.line)
    for point in points:
        axes.plot(
            point.x,
            point.y,
            marker=series.marker,
            markersize=5,
            linestyle="",
            color=series.colour,
            markeredgecolor=series.colour,
            zorder=4,
            markerfacecolor=series.colour if point.complete else "white",
        )


def _handles(points: Sequence[_Point]) -> list[Line2D]:
    """Return the legend of the series that have points."""
    return [
        Line2D(
            [],
            [],
            marker=series.marker,
            markersize=5,
            color=series.colour,
            linestyle=series.line,
            label=series.name,
        )
        for series in _SERIES
        if any(point.series == series for point in points)
    ]


def _notes(
    points: Sequence[_Point],
    nameless: Sequence[_Point],
    not_shown: Sequence[str],
    quantity: Quantity,
) -> list[str]:
    """Return the notes on names without room, means over fewer tasks and models not shown."""
    unnamed = [
        f"{point.label} ({point.x:.3g}{quantity.suffix}, {point.y:.1f})" for point in nameless
    ]
    hollow = [
        f"{point.label} ({point.tasks} of {point.of})" for point in points if not point.complete
    ]
    notes = {
        "Without room for a name at the point": unnamed,
        "Hollow: mean over fewer tasks": hollow,
        f"Not shown, {quantity.name} or mean not known": not_shown,
    }
    return [f"{text}: {', '.join(listed)}." for text, listed in notes.items() if listed]
