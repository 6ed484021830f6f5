"""A figure's axes, and what stands around them: title, notice, legend and notes."""

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from workflow_scripts.hear2021.report.figures.style import BLACK, DARK_GREY, MODEL_COLOURS, YELLOW

WIDTH = 7.2
MODELS_A_PANEL = len(MODEL_COLOURS)  # at most


@dataclass(frozen=True)
class Drawing:
    """What a plot drew.

    Attributes:
        figure: its axes, without what `frame` puts around them.
        notes: what stands below the axes, each on a line of its own.
        handles: of the legend above the axes; without any there is none.
    """

    figure: Figure
    notes: Sequence[str]
    handles: Sequence[Artist] = ()


def new_figure(height: float) -> Figure:
    """Return a figure of `WIDTH` by `height` inches, without axes."""
    figure = Figure(figsize=(WIDTH, height), dpi=200)
    FigureCanvasAgg(figure)
    return figure


def panels(
    models: Sequence[str], at_most: int, *, height: float, gap: float
) -> tuple[Figure, list[tuple[Axes, Sequence[str]]], int]:
    """Return a figure with one axes above the other, each for a part of the models.

    Args:
        models: in the order of the panels.
        at_most: how many models a panel may have.
        height: of a panel, in inches.
        gap: between panels, in inches.

    Returns:
        The figure, the axes with their models from the top down, and how many models the fullest
        has.
    """
    rows = math.ceil(len(models) / at_most)
    total = rows * height + (rows - 1) * gap
    figure = new_figure(total)
    parts = []
    for row in range(rows):
        bottom = 1 - ((row + 1) * height + row * gap) / total
        start, end = (len(models) * index // rows for index in (row, row + 1))
        parts.append((figure.add_axes((0, bottom, 1, height / total)), models[start:end]))
    return figure, parts, max(len(shown) for _, shown in parts)


def beside(place: int, number: int, width: float) -> float:
    """Return how far right of their common centre one of `number` marks side by side stands.

    Args:
        place: of the mark among them, from 0.
        number: of the marks.
        width: of each, in the units of the result.
    """
    return (place - (number - 1) / 2) * width


def frame(drawing: Drawing, title: str, notice: str) -> None:
    """Put legend, notice and title above the axes and the notes below, each clear of the rest."""
    figure = drawing.figure
    content = fit_width(figure)
    inch = 1 / figure.get_figheight()
    left, width = content.x0, content.width
    top = content.y1 + 0.06 * inch

    def above(artist: Artist, gap: float) -> None:
        nonlocal top
        top += _extent(figure, artist).height + gap * inch

    if drawing.handles:
        above(legend(figure, drawing.handles, (left, top), width), 0.08)
    if notice:
        text = _text(figure, left, top, notice, width, size=8, va="bottom", color="black")
        text.set_bbox({"boxstyle": "square,pad=0.3", "facecolor": YELLOW, "edgecolor": BLACK})
        text.set_position((left + 0.04 / WIDTH, top + 0.04 * inch))
        above(text, 0.1)
    above(_text(figure, left, top, title, width, size=10, va="bottom", weight="bold"), 0)
    bottom = content.y0 - 0.06 * inch
    for note in drawing.notes:
        text = _text(figure, left, bottom, note, width, size=6.5, va="top", color=DARK_GREY)
        bottom -= _extent(figure, text).height + 0.03 * inch


def fit_width(figure: Figure) -> Bbox:
    """Narrow the axes until they are `WIDTH` wide with their labels.

    Returns:
        The box around axes and labels in fractions of the figure.
    """
    for _ in range(2):  # ticks may change with the width
        figure.draw_without_rendering()
        content = Bbox.union([box for axes in figure.axes if (box := axes.get_tightbbox())])
        content = content.transformed(figure.transFigure.inverted())
        for axes in figure.axes:
            place = axes.get_position()
            axes.set_position((place.x0, place.y0, place.width + 1 - content.width, place.height))
    return content


def legend(
    parent: Figure | Axes, handles: Sequence[Artist], corner: tuple[float, float], width: float
) -> Legend:
    """Put a legend at its lower left corner, with as many columns as `width` allows.

    Corner and width are in fractions of the parent.
    """
    inverse = (parent.transFigure if isinstance(parent, Figure) else parent.transAxes).inverted()
    for columns in range(len(handles), 0, -1):
        drawn = parent.legend(
            handles=list(handles),
            loc="lower left",
            bbox_to_anchor=corner,
            ncols=columns,
            frameon=False,
            borderaxespad=0,
            borderpad=0,
            handlelength=1.4,
            columnspacing=1.4,
        )
        if drawn.get_window_extent().transformed(inverse).width <= width or columns == 1:
            break
        drawn.remove()
    return drawn


def write_near(
    axes: Axes, text: str, place: tuple[float, float], up: float, *, size: float, **style: Any
) -> None:
    """Write centred text that begins `up` points above a place of the axes, or ends below it."""
    axes.annotate(
        text,
        place,
        xytext=(0, up),
        textcoords="offset points",
        ha="center",
        va="bottom" if up > 0 else "top",
        fontsize=size,
        **style,
    )


def _extent(figure: Figure, artist: Artist) -> Bbox:
    """Return the box around an artist in fractions of the figure."""
    return artist.get_window_extent().transformed(figure.transFigure.inverted())


def _text(
    figure: Figure, x: float, y: float, text: str, width: float, *, size: float, **style: str
) -> Text:
    """Write text that breaks lines so as to be no wider than `width` of the figure."""
    artist = figure.text(x, y, text, fontsize=size, ha="left", **style)  # type: ignore[arg-type]
    for characters in range(len(text), 10, -2):
        if _extent(figure, artist).width <= width:
            break
        artist.set_text(textwrap.fill(text, characters))
    return artist
