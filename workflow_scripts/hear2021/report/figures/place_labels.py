"""Names beside the points of a plot, clear of each other, of all points and of all lines."""

import itertools
import math
from collections.abc import Iterator, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

DISTANCES = (6, 12, 20, 30, 42, 56, 72, 90, 110, 130, 150)
ANGLES = (0, 180, 90, 270, *(angle for angle in range(15, 360, 15) if angle % 90))
MARKER_RADIUS = 4

_Point = tuple[float, float]
_Segment = tuple[_Point, _Point]


def place_labels(
    figure: Figure,
    axes: Axes,
    points: Sequence[tuple[str, float, float]],
    *,
    size: float,
    colour: str,
) -> list[int]:
    """Name the points that have room for it within the axes; return which have none.

    A name stands beside its point if there is room, otherwise further off with a line to it.

    Args:
        figure: that the axes belong to.
        axes: with the points and curves drawn and its limits set.
        points: name, x and y of each, in the units of the axes.
        size: of the font, in points.
        colour: of the lines.
    """
    figure.draw_without_rendering()
    frame = axes.get_window_extent()
    pixel = figure.dpi / 72
    places: list[_Point] = [tuple(axes.transData.transform((x, y))) for _, x, y in points]
    radius = MARKER_RADIUS * pixel
    taken = [Bbox.from_extents(x - radius, y - radius, x + radius, y + radius) for x, y in places]
    lines = _curves(axes)
    without_place = []
    for number in sorted(range(len(points)), key=lambda number: -places[number][1]):
        (name, *point), place = points[number], places[number]
        text = axes.annotate(
            name,
            (point[0], point[1]),
            xytext=(0, 0),
            textcoords="offset points",
            fontsize=size,
            ha="center",
            va="center",
            zorder=5,
        )
        extent = text.get_window_extent()
        own = Bbox.from_extents(*(c - radius for c in place), *(c + radius for c in place))
        others = [box for box in taken if not box.overlaps(own)]  # a line may leave a cluster
        for dx, dy in _offsets(extent.width / pixel, extent.height / pixel):
            box = Bbox.from_bounds(
                place[0] + dx * pixel - extent.width / 2 - pixel,
                place[1] + dy * pixel - extent.height / 2 - pixel,
                extent.width + 2 * pixel,
                extent.height + 2 * pixel,
            )
            leader = _leader(place, box, 0.9 * radius)
            if (
                _inside(box, frame)
                and not any(box.overlaps(other) for other in taken)
                and not any(_crosses(line, box) for line in lines)
                and not any(_crosses(leader, other) for other in others)
                and not any(_segments_cross(leader, line) for line in lines)
            ):
                break
        else:
            text.remove()
            without_place.append(number)
            continue
        text.set_position((dx, dy))
        taken.append(box)
        if math.dist(*leader) > radius:
            lines.append(leader)
            ends = axes.transData.inverted().transform(leader)
            axes.plot(ends[:, 0], ends[:, 1], color=colour, linewidth=0.5, zorder=3)
    return without_place


def _inside(box: Bbox, frame: Bbox) -> bool:
    return frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1


def _curves(axes: Axes) -> list[_Segment]:
    """Return the pieces of the drawn curves in pixels."""
    segments: list[_Segment] = []
    for line in axes.lines:
        corners = [(float(x), float(y)) for x, y in axes.transData.transform(line.get_xydata())]
        segments.extend(itertools.pairwise(corners))
    return segments


def _offsets(width: float, height: float) -> Iterator[tuple[float, float]]:
    """Yield where a name's centre may stand, in points from its point, the nearest first."""
    for distance in DISTANCES:
        for angle in ANGLES:
            right, up = math.cos(math.radians(angle)), math.sin(math.radians(angle))
            yield (
                right * distance + math.copysign(width / 2, right) * (abs(right) > 0.1),
                up * distance + math.copysign(height / 2, up) * (abs(up) > 0.1),
            )


def _leader(place: _Point, box: Bbox, radius: float) -> _Segment:
    """Return the line from a marker's edge to the nearest place of its name's box."""
    x, y = place
    end = (min(max(x, box.x0), box.x1), min(max(y, box.y0), box.y1))
    share = min(1, radius / max(math.dist(place, end), 1e-9))
    return (x + (end[0] - x) * share, y + (end[1] - y) * share), end


def _crosses(segment: _Segment, box: Bbox) -> bool:
    (x0, y0), (x1, y1) = segment
    if box.contains(x0, y0) or box.contains(x1, y1):
        return True
    corners = [(box.x0, box.y0), (box.x1, box.y0), (box.x1, box.y1), (box.x0, box.y1)]
    edges = itertools.pairwise([*corners, corners[0]])
    return any(_segments_cross(segment, edge) for edge in edges)


def _segments_cross(one: _Segment, other: _Segment) -> bool:
    def side(line: _Segment, point: _Point) -> float:
        (x0, y0), (x1, y1) = line
        return (x1 - x0) * (point[1] - y0) - (y1 - y0) * (point[0] - x0)

    return (
        side(one, other[0]) * side(one, other[1]) < 0
        and side(other, one[0]) * side(other, one[1]) < 0
    )
