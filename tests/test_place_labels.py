"""Names beside the points of a plot: each is told by its point and covers nothing."""

import itertools
import math
import random

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.path import Path
from matplotlib.transforms import Bbox

from workflow_scripts.hear2021.report.figures.place_labels import MARKER_RADIUS, place_labels

Point = tuple[float, float]


def crowded(seed: int) -> dict[str, Point]:
    """Points of which some are so close together that their names must stand further off."""
    numbers = random.Random(seed)
    centres = [(numbers.uniform(0.1, 0.9), numbers.uniform(0.1, 0.9)) for _ in range(5)]
    places = [(numbers.gauss(x, 0.03), numbers.gauss(y, 0.03)) for x, y in centres * 4]
    corners = [(x, y) for x in (0.01, 0.99) for y in (0.01, 0.99)]
    return {f"mn{number:02d}_as_e1_l": place for number, place in enumerate([*places, *corners])}


def plot_of(points: dict[str, Point]) -> tuple[Axes, list[str]]:
    """Draw a curve and name the points; return the axes and the names that had no room."""
    figure = Figure(figsize=(7.2, 3.6), dpi=200)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.1, 0.1, 0.8, 0.8))
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.plot([0, 0.4, 1], [0.2, 0.6, 0.5])
    named = [(name, x, y) for name, (x, y) in points.items()]
    without_place = place_labels(figure, axes, named, size=7, colour="#666666")
    return axes, [named[number][0] for number in without_place]


def distance(point: Point, box: Bbox) -> float:
    x, y = point
    return math.dist(point, (min(max(x, box.x0), box.x1), min(max(y, box.y0), box.y1)))


@pytest.mark.parametrize("seed", range(6))
def test_a_name_covers_no_point_no_line_and_no_other_name(seed):
    points = crowded(seed)
    axes, without_place = plot_of(points)
    names = {text.get_text(): text.get_window_extent() for text in axes.texts}
    assert {*names, *without_place} == {*points}
    assert len(names) + len(without_place) == len(points)
    assert len(names) >= 15
    radius = MARKER_RADIUS * 200 / 72
    places = axes.transData.transform(list(points.values()))
    lines = [Path(axes.transData.transform(line.get_xydata())) for line in axes.lines]
    for name, box in names.items():
        assert axes.bbox.x0 <= box.x0 < box.x1 <= axes.bbox.x1, name
        assert axes.bbox.y0 <= box.y0 < box.y1 <= axes.bbox.y1, name
        assert min(distance(place, box) for place in places) > radius, name
        assert not any(line.intersects_bbox(box, filled=False) for line in lines), name
    for one, other in itertools.combinations(names.values(), 2):
        assert not one.overlaps(other)


@pytest.mark.parametrize("seed", range(6))
def test_a_name_stands_at_its_point_or_at_the_end_of_a_line_to_it(seed):
    points = crowded(seed)
    axes, _ = plot_of(points)
    radius = MARKER_RADIUS * 200 / 72
    _, *leaders = (axes.transData.transform(line.get_xydata()) for line in axes.lines)
    assert leaders
    for text in axes.texts:
        place = axes.transData.transform(points[text.get_text()])
        box = text.get_window_extent()
        its_own = [
            (start, end)
            for start, end in leaders
            if math.dist(start, place) <= radius
            and distance(end, box) <= radius
            and distance(start, box) <= distance(place, box)
        ]
        assert its_own or distance(place, box) <= 3 * radius, text.get_text()


@pytest.mark.parametrize("seed", range(6))
def test_a_line_to_a_name_crosses_no_other_line_and_no_point_but_those_around_its_own(seed):
    axes, _ = plot_of(points := crowded(seed))
    radius = MARKER_RADIUS * 200 / 72
    lines = [Path(axes.transData.transform(line.get_xydata())) for line in axes.lines]
    for one, other in itertools.combinations(lines, 2):
        assert not one.intersects_path(other, filled=False)
    for leader in lines[1:]:
        for place in axes.transData.transform(list(points.values())):
            apart = np.abs(place - leader.vertices[0]).max() > 3 * radius
            marker = Bbox([place - radius, place + radius])
            assert not (apart and leader.intersects_bbox(marker, filled=False))
