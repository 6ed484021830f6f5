"""The figures: scores by category, by task, against complexity, and as a map of tasks and models.

Colours are those of Okabe and Ito (https://jfly.uni-koeln.de/color), which stay apart for readers
with colour-blindness. Text is never smaller than 6 points on a page of 7.2 inches. The same
scores give the same bytes: no date, no random ids, no settings of the user, matplotlib's own font.
"""

import functools
import io
import itertools
import math
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any, Literal

import matplotlib as mpl
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter, NullFormatter
from matplotlib.transforms import Bbox

from hear_mn.whole import write_whole
from workflow_scripts.hear2021.report.figure_labels import place_labels
from workflow_scripts.hear2021.report.figure_table import EVERY_OWN_MODEL, FigureRow
from workflow_scripts.hear2021.report.tables import OWN, PUBLISHED, Comparison

BLACK, ORANGE, SKY_BLUE, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
YELLOW, BLUE, VERMILION, PURPLE = "#F0E442", "#0072B2", "#D55E00", "#CC79A7"
GREY = "#666666"

CATEGORY_COLOURS = {"speech": BLUE, "music": ORANGE, "general": GREEN}
MODEL_COLOURS = (BLUE, ORANGE, GREEN, PURPLE, SKY_BLUE, VERMILION)

WIDTH = 7.2
MODELS_A_PANEL = 6
NARROWEST_BAR = 0.065
POINT = 1 / 72

STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "axes.axisbelow": True,
    "axes.edgecolor": GREY,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.linewidth": 0.6,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "hatch.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "svg.fonttype": "path",
    "svg.hashsalt": "hear2021",
    "text.parse_math": False,  # a $ in a path or a name is a $
}


@dataclass(frozen=True)
class Complexity:
    """What a model's network costs; None where it is not known."""

    parameters: int | None
    macs: int | None


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
    with mpl.rc_context(_settings()):
        return _PLOTS[row.plot](row, models, comparison, complexities, notice)


def save(figure: Figure, png: Path, svg: Path) -> None:
    """Write a figure as PNG and SVG, each whole or not at all; equal figures give equal bytes."""
    formats: list[tuple[Path, str, dict[str, str | None]]] = [
        (png, "png", {"Software": None}),
        (svg, "svg", {"Date": None, "Creator": None}),
    ]
    for path, kind, metadata in formats:
        content = io.BytesIO()
        with mpl.rc_context(_settings()):
            figure.savefig(
                content, format=kind, metadata=metadata, bbox_inches="tight", pad_inches=0.08
            )
        write_whole(path, content.getvalue())


def _settings() -> Any:
    """Return matplotlib's defaults with ours, whatever the user's matplotlibrc says."""
    return {**mpl.rcParamsDefault, **STYLE}


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


def _figure(height: float) -> Figure:
    figure = Figure(figsize=(WIDTH, height), dpi=200)
    FigureCanvasAgg(figure)
    return figure


def _panels(
    models: Sequence[str], at_most: int, height: float, gap: float
) -> tuple[Figure, list[tuple[Axes, Sequence[str]]]]:
    """Return a figure with one axes above the other, and each one's share of the models."""
    rows = math.ceil(len(models) / at_most)
    total = rows * height + (rows - 1) * gap
    figure = _figure(total)
    panels = []
    for row in range(rows):
        bottom = 1 - ((row + 1) * height + row * gap) / total
        start, end = (len(models) * index // rows for index in (row, row + 1))
        panels.append((figure.add_axes((0, bottom, 1, height / total)), models[start:end]))
    return figure, panels


def _frame(
    figure: Figure,
    title: str,
    notice: str,
    handles: Sequence[Artist],
    notes: Sequence[str],
) -> Figure:
    """Put legend, notice and title above the axes and the notes below, each clear of the rest."""
    content = _fit_width(figure)
    inch = 1 / figure.get_figheight()
    left, width = content.x0, content.width
    top = content.y1 + 0.06 * inch

    def above(artist: Artist, gap: float) -> None:
        nonlocal top
        top += _extent(figure, artist).height + gap * inch

    if handles:
        above(_legend(figure, handles, (left, top), width), 0.08)
    if notice:
        text = _text(figure, left, top, notice, width, size=8, va="bottom", color="black")
        text.set_bbox({"boxstyle": "square,pad=0.3", "facecolor": YELLOW, "edgecolor": BLACK})
        text.set_position((left + 0.04 / WIDTH, top + 0.04 * inch))
        above(text, 0.1)
    above(_text(figure, left, top, title, width, size=10, va="bottom", weight="bold"), 0)
    bottom = content.y0 - 0.06 * inch
    for note in notes:
        text = _text(figure, left, bottom, note, width, size=6.5, va="top", color="#444444")
        bottom -= _extent(figure, text).height + 0.03 * inch
    return figure


def _extent(figure: Figure, artist: Artist) -> Bbox:
    """Return the box around an artist in fractions of the figure."""
    return artist.get_window_extent().transformed(figure.transFigure.inverted())


def _fit_width(figure: Figure) -> Bbox:
    """Narrow the axes until they are `WIDTH` wide with their labels; return the box around all."""
    for _ in range(2):  # ticks may change with the width
        figure.draw_without_rendering()
        content = Bbox.union([box for axes in figure.axes if (box := axes.get_tightbbox())])
        content = content.transformed(figure.transFigure.inverted())
        for axes in figure.axes:
            place = axes.get_position()
            axes.set_position((place.x0, place.y0, place.width + 1 - content.width, place.height))
    return content


def _legend(
    parent: Figure | Axes, handles: Sequence[Artist], corner: tuple[float, float], width: float
) -> Legend:
    """Put a legend at its lower left corner, with as many columns as `width` allows.

    Corner and width are in fractions of the parent.
    """
    inverse = (parent.transFigure if isinstance(parent, Figure) else parent.transAxes).inverted()
    for columns in range(len(handles), 0, -1):
        legend = parent.legend(
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
        if legend.get_window_extent().transformed(inverse).width <= width or columns == 1:
            break
        legend.remove()
    return legend


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


def _labels(models: Sequence[str], comparison: Comparison) -> dict[str, str]:
    """Return the models' labels; where own and published ones meet, the latter say what they are.

    A variant of the run goes without a mark, as does everything in a figure of published scores.
    """
    mixed = len({comparison.origin(model) for model in models}) > 1
    labels = {}
    for model in models:
        mark = mixed and comparison.origin(model) == PUBLISHED
        labels[model] = comparison.label(model) + (" (published)" if mark else "")
    return labels


def _break(label: str, width: int) -> str:
    """Break a label at underscores and blanks into few lines of at most `width` characters.

    Of the ways to break it into as few lines, the one whose longest line is shortest.
    """
    best = _fill(label, width)
    for narrower in range(width - 1, 3, -1):
        lines = _fill(label, narrower)
        if len(lines) > len(best):
            break
        best = lines
    return "\n".join(best)


def _fill(label: str, width: int) -> list[str]:
    lines = [""]
    for part in re.findall(r"[^_ .-]*[_ .-]?", label):
        if lines[-1] and len((lines[-1] + part).rstrip()) > width:
            lines.append("")
        lines[-1] += part
    return [piece for line in lines for piece in textwrap.wrap(line, width)]


def _score_axis(axes: Axes, highest: float, room: float = 0) -> None:
    """Set up the axis of normalised scores, with `room` above the highest, as a share of it."""
    top = max(1.05, highest + 0.03)
    axes.set_ylabel("Normalised test score")
    axes.axhline(1, color=GREY, linewidth=0.8, linestyle=(0, (4, 3)), zorder=1)
    axes.set_ylim(0, top * (1 + room))
    step = 0.2 if top < 1.6 else math.ceil(top) / 5
    axes.set_yticks([step * index for index in range(int(top / step) + 1)])


def _not_available(axes: Axes, x: float, width: float, size: float) -> None:
    """Mark a missing score: a hatched stub and the word, where a zero would be a bare line."""
    stub = 0.045 * axes.get_ylim()[1]
    axes.add_patch(
        Rectangle(
            (x - width / 2, 0), width, stub, facecolor="white", edgecolor=GREY, hatch="//////"
        )
    )
    axes.annotate(
        "n/a",
        (x, stub),
        xytext=(0, 2),
        textcoords="offset points",
        rotation=90,
        ha="center",
        va="bottom",
        fontsize=size,
        color="#333333",
    )


def _plot_categories(
    row: FigureRow,
    models: list[str],
    comparison: Comparison,
    complexities: Mapping[str, Complexity],
    notice: str,
) -> Figure:
    """Draw a box for each (model, category) with a dot for each task, as `seaborn` would."""
    figure, panels = _panels(models, MODELS_A_PANEL, height=2.5, gap=0.75)
    labels = _labels(models, comparison)
    categories = comparison.categories
    width = 0.8 / len(categories)
    published_boxes = incomplete = missing = False
    highest = max(
        [
            box.high_whisker
            for model in models
            for name in categories
            if (box := comparison.box(model, name))
        ]
        + [
            value
            for model in models
            for value in comparison.normalised(model)
            if not math.isnan(value)
        ],
        default=1.0,
    )
    most = max(len(shown) for _, shown in panels)
    characters = int((WIDTH - 0.5) / most / (8 * 0.64 * POINT)) - 1
    for axes, shown in panels:
        _score_axis(axes, highest)
        ticks = []
        for index, model in enumerate(shown):
            marked = False
            for place, category in enumerate(categories):
                x = index + (place - (len(categories) - 1) / 2) * width
                values = comparison.normalised(model, category)
                known = [value for value in values if not math.isnan(value)]
                box = comparison.box(model, category)
                if box is not None:
                    marked = True
                    _draw_box(
                        axes,
                        x,
                        width,
                        category,
                        {
                            "whislo": box.low_whisker,
                            "q1": box.q1,
                            "med": box.median,
                            "q3": box.q3,
                            "whishi": box.high_whisker,
                            "fliers": [] if box.low_outlier is None else [box.low_outlier],
                        },
                    )
                elif known:
                    _draw_box(axes, x, width, category, _box_statistics(known))
                    axes.scatter(
                        [
                            x + (rank / (len(known) + 1) - 0.5) * width * 0.6
                            for rank in range(1, len(known) + 1)
                        ],
                        known,
                        s=7,
                        color="white",
                        edgecolors="black",
                        linewidths=0.5,
                        zorder=4,
                        clip_on=False,
                    )
                    if len(known) < len(values):
                        incomplete = True
                        axes.annotate(
                            f"{len(known)}/{len(values)}",
                            (x, 0),
                            xytext=(0, -4),
                            textcoords="offset points",
                            ha="center",
                            va="top",
                            fontsize=6,
                        )
                else:
                    missing = True
                    _not_available(axes, x, width * 0.8, 6.5)
            published_boxes |= marked
            ticks.append(_break(labels[model], characters) + ("\u2020" if marked else ""))
        axes.set_xlim(-0.6, most - 0.4)
        axes.set_xticks(range(len(shown)), ticks)
        axes.tick_params(axis="x", length=0, pad=12 if incomplete else 4)
    notes = ["A dot is a task; whiskers reach the last task within 1.5 times the box's height."]
    if published_boxes:
        notes.append(
            "\u2020 drawn from the statistics of a published box plot; the scores behind it were "
            "not published; its only dots are outliers."
        )
    if incomplete:
        notes.append("Under a box: how many of the category's tasks have a score, if not all.")
    if missing:
        notes.append("n/a: there is no score.")
    handles = [
        Patch(facecolor=CATEGORY_COLOURS[name], edgecolor="black", linewidth=0.6, label=name)
        for name in categories
    ]
    return _frame(figure, row.title, notice, handles, [*notes, *_axis_note(comparison)])


def _axis_note(comparison: Comparison) -> list[str]:
    if all(task.leaderboard_column for task in comparison.tasks):
        return ["1 is the best score of the HEAR 2021 challenge on a task."]
    if any(task.leaderboard_column for task in comparison.tasks):
        return [
            "1 is the best score of the HEAR 2021 challenge on a task, or the best possible one "
            "on a task that the challenge does not have."
        ]
    return ["1 is the best possible score."]


def _box_statistics(values: Sequence[float]) -> dict[str, object]:
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
        "fliers": [],
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


def _plot_tasks(
    row: FigureRow,
    models: list[str],
    comparison: Comparison,
    complexities: Mapping[str, Complexity],
    notice: str,
) -> Figure:
    """Draw a bar for each (task, model), with its deviation over folds where there is one."""
    positions = _task_positions(comparison)
    space = (WIDTH - 0.6) / (positions[-1] + 1.2)  # of a task, in inches
    at_most = max(1, min(MODELS_A_PANEL, int(0.84 * space / NARROWEST_BAR)))
    figure, panels = _panels(models, at_most, height=2.6, gap=0.6)
    labels = _labels(models, comparison)
    zero = missing = folds = False
    values = itertools.chain.from_iterable(map(comparison.normalised, models))
    highest = max((value for value in values if not math.isnan(value)), default=1.0)
    width = 0.84 / max(len(shown) for _, shown in panels)
    for axes, shown in panels:
        _score_axis(axes, highest, room=0.1)
        handles = []
        for index, (model, colour) in enumerate(zip(shown, MODEL_COLOURS, strict=False)):
            handles.append(
                Patch(facecolor=colour, edgecolor="black", linewidth=0.5, label=labels[model])
            )
            for centre, task in zip(positions, comparison.tasks, strict=True):
                x = centre + (index - (len(shown) - 1) / 2) * width
                cell = comparison.cell(model, task)
                if math.isnan(cell["normalised"]):
                    missing = True
                    _not_available(axes, x, width, 6)
                    continue
                axes.bar(
                    x,
                    cell["normalised"],
                    width,
                    color=colour,
                    edgecolor="black",
                    linewidth=0.4,
                    zorder=3,
                )
                if not math.isnan(cell["std"]):
                    folds = True
                    axes.errorbar(
                        x, cell["normalised"], cell["std"], color="black", linewidth=0.7, zorder=4
                    )
                if cell["normalised"] == 0:
                    zero = True
                    axes.annotate(
                        "0",
                        (x, 0),
                        xytext=(0, 1),
                        textcoords="offset points",
                        ha="center",
                        va="bottom",
                        fontsize=6,
                    )
        axes.set_xlim(positions[0] - 0.6, positions[-1] + 0.6)
        axes.set_xticks(positions, ["" for _ in positions])
        axes.tick_params(axis="x", length=0)
        _name_categories(axes, comparison, positions, y=axes.get_ylim()[1], va="top")
        _legend(axes, handles, (0, 1.03), 1)
    panels[-1][0].set_xticklabels(
        [task.name for task in comparison.tasks],
        rotation=40,
        ha="right",
        rotation_mode="anchor",
    )
    notes = list(_axis_note(comparison))
    if folds:
        notes.append("Lines on bars: standard deviation over the task's folds.")
    if missing:
        notes.append("n/a: there is no score.")
    if zero:
        notes.append("0: the score is zero.")
    return _frame(figure, row.title, notice, [], [" ".join(notes)])


def _task_positions(comparison: Comparison) -> list[float]:
    """Return where the tasks stand: one apart, with a gap where the category changes."""
    position, positions = 0.0, []
    for before, task in itertools.pairwise([comparison.tasks[0], *comparison.tasks]):
        position += 1.5 if before.category != task.category else 1.0
        positions.append(position - 1)
    return positions


def _name_categories(
    axes: Axes,
    comparison: Comparison,
    positions: Sequence[float],
    *,
    y: float,
    va: Literal["top", "bottom"],
) -> None:
    tasks = list(zip(positions, comparison.tasks, strict=True))
    for category, group in itertools.groupby(tasks, key=lambda pair: pair[1].category):
        places = [position for position, _ in group]
        axes.text((places[0] + places[-1]) / 2, y, category, ha="center", va=va, color="#444444")


def _plot_heat_map(
    row: FigureRow,
    models: list[str],
    comparison: Comparison,
    complexities: Mapping[str, Complexity],
    notice: str,
) -> Figure:
    """Draw a cell for each (model, task) with its normalised score in percent, and the means."""
    figure = _figure(0.2 * len(models))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.grid(visible=False)
    for spine in axes.spines.values():
        spine.set_visible(False)
    labels = _labels(models, comparison)
    positions = _task_positions(comparison)
    mean_position = positions[-1] + 1.6
    above = missing = incomplete = False
    for line, model in enumerate(models):
        for x, task in zip(positions, comparison.tasks, strict=True):
            cell = comparison.cell(model, task)
            value = cell["normalised"]
            better = value > 1 + cell["tolerance"]
            above |= better
            missing |= math.isnan(value)
            _draw_cell(axes, x, line, value, framed=better)
        mean = comparison.mean(model)
        partial = 0 < mean.tasks < mean.of
        incomplete |= partial
        _draw_cell(
            axes, mean_position, line, mean.mean, text=f"{100 * mean.mean:.1f}" + "*" * partial
        )
    axes.set_xlim(-0.5, mean_position + 0.8)
    axes.set_ylim(len(models) - 0.5, -0.5)
    axes.set_yticks(range(len(models)), [labels[model] for model in models])
    axes.set_xticks(
        [*positions, mean_position],
        [*(task.name for task in comparison.tasks), "mean"],
        rotation=45,
        ha="right",
        rotation_mode="anchor",
    )
    axes.tick_params(length=0)
    _name_categories(axes, comparison, positions, y=-0.6, va="bottom")
    notes = [*_axis_note(comparison)]
    notes[0] = notes[0].replace("1 is", "100 is")
    if above:
        notes.append("Framed: better than that.")
    if missing:
        notes.append("n/a: there is no score.")
    if incomplete:
        notes.append("*: mean over the tasks that have a score.")
    return _frame(figure, row.title, notice, [], [" ".join(notes)])


def _draw_cell(
    axes: Axes, x: float, line: int, value: float, *, text: str = "", framed: bool = False
) -> None:
    half = 0.5 if not text else 0.75
    corner = (x - half, line - 0.5)
    if math.isnan(value):
        axes.add_patch(
            Rectangle(
                corner,
                2 * half,
                1,
                facecolor="white",
                edgecolor="#aaaaaa",
                hatch="//////",
                linewidth=0.4,
            )
        )
        axes.text(
            x,
            line,
            "n/a",
            ha="center",
            va="center",
            fontsize=6,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6},
        )
        return
    colour = mpl.colormaps["Blues"](0.9 * min(max(value, 0), 1))
    axes.add_patch(
        Rectangle(corner, 2 * half, 1, facecolor=colour, edgecolor="white", linewidth=0.4)
    )
    if framed:
        axes.add_patch(
            Rectangle(
                (corner[0] + 0.06, corner[1] + 0.08),
                2 * half - 0.12,
                0.84,
                fill=False,
                edgecolor=ORANGE,
                linewidth=1.2,
                zorder=3,
            )
        )
    red, green, blue = to_rgb(colour)
    dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.55
    axes.text(
        x,
        line,
        text or f"{100 * value:.0f}",
        ha="center",
        va="center",
        fontsize=6.5,
        color="white" if dark else "black",
    )


@dataclass(frozen=True)
class _Point:
    label: str
    series: str
    x: float
    y: float
    complete: bool


@dataclass(frozen=True)
class _Series:
    marker: str
    colour: str
    line: Literal["", "-"] = ""


_SERIES = {
    "this run": _Series("D", VERMILION),
    "published variants": _Series("o", BLUE),
    "widths, blocks and mels (EUSIPCO 2023)": _Series("o", GREEN, "-"),
    "other systems": _Series("s", ORANGE),
}
_GROUPS = dict(zip(("variant", "width", "system"), list(_SERIES)[1:], strict=True))


@dataclass(frozen=True)
class _Quantity:
    """What a network is made of or takes, as an axis; `value` reads it."""

    name: str
    title: str
    unit: float
    suffix: str
    value: Callable[[Complexity], int | None]


_PARAMETERS = _Quantity("parameters", "Parameters", 1e6, " M", attrgetter("parameters"))
_MACS = _Quantity("multiply-adds", "Multiply-adds for 10 s of audio", 1e9, " G", attrgetter("macs"))


def _plot_complexity(
    row: FigureRow,
    models: list[str],
    comparison: Comparison,
    complexities: Mapping[str, Complexity],
    notice: str,
    *,
    quantity: _Quantity,
) -> Figure:
    """Draw a point for each model: its mean normalised score over a quantity of its network."""
    points, unknown, partial = [], [], []
    for model in models:
        mean = comparison.mean(model)
        value = quantity.value(complexities[model]) if model in complexities else None
        label = comparison.label(model)
        if not mean.tasks or value is None:
            unknown.append(label)
            continue
        own = comparison.origin(model) == OWN
        series = "this run" if own else _GROUPS[comparison.published.systems[model].group]
        if mean.tasks < mean.of:
            partial.append(f"{label} ({mean.tasks} of {mean.of})")
        points.append(
            _Point(label, series, value / quantity.unit, 100 * mean.mean, mean.tasks == mean.of)
        )
    names = [(_break(point.label, 40), point.x, point.y) for point in points]
    for height in (3.6, 4.8, 6.4, 8.5, 11.3):  # taller until every name has its place
        figure, axes = _scatter(points, height, f"{quantity.title} (log scale)", quantity.suffix)
        _fit_width(figure)
        without_place = place_labels(figure, axes, names, size=7, colour=GREY)
        if not without_place:
            break
    handles = [
        Line2D(
            [],
            [],
            marker=style.marker,
            markersize=5,
            color=style.colour,
            linestyle=style.line,
            label=name,
        )
        for name, style in _SERIES.items()
        if any(point.series == name for point in points)
    ]
    notes = []
    if without_place:
        listed = (
            f"{points[i].label} ({points[i].x:.3g}{quantity.suffix}, {points[i].y:.1f})"
            for i in without_place
        )
        notes.append(f"Without room for a name at the point: {', '.join(listed)}.")
    if partial:
        notes.append(f"Hollow: mean over fewer tasks: {', '.join(partial)}.")
    if unknown:
        notes.append(f"Not shown, {quantity.name} or mean not known: {', '.join(unknown)}.")
    return _frame(figure, row.title, notice, handles, notes)


def _scatter(
    points: Sequence[_Point], height: float, x_label: str, suffix: str
) -> tuple[Figure, Axes]:
    figure = _figure(height)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.grid(visible=True, axis="both")
    axes.set_xscale("log")
    for name, style in _SERIES.items():
        shown = sorted((p for p in points if p.series == name), key=lambda point: point.x)
        if not shown:
            continue
        if style.line:
            xs, ys = [point.x for point in shown], [point.y for point in shown]
            axes.plot(xs, ys, color=style.colour, linewidth=1, linestyle=style.line)
        for point in shown:
            axes.plot(
                point.x,
                point.y,
                marker=style.marker,
                markersize=5,
                linestyle="",
                color=style.colour,
                markeredgecolor=style.colour,
                zorder=4,
                markerfacecolor=style.colour if point.complete else "white",
            )
    # A run without any score is drawn, too: what it has not is in the notes.
    xs, ys = [point.x for point in points] or [1.0], [point.y for point in points] or [50.0]
    axes.set_xlim(min(xs) / 2, max(xs) * 4)  # room for names on both sides
    span = max(max(ys) - min(ys), 5)
    axes.set_ylim(min(ys) - 0.12 * span, max(ys) + 0.12 * span)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}{suffix}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(x_label)
    axes.set_ylabel("Mean normalised score (%)")
    return figure, axes


_Plot = Callable[
    [FigureRow, list[str], Comparison, Mapping[str, Complexity], str],
    Figure,
]
_PLOTS: dict[str, _Plot] = {
    "categories": _plot_categories,
    "tasks": _plot_tasks,
    "heat_map": _plot_heat_map,
    "parameters": functools.partial(_plot_complexity, quantity=_PARAMETERS),
    "macs": functools.partial(_plot_complexity, quantity=_MACS),
}
