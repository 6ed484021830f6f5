"""Two ways of doing the same, timed in turn."""

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Comparison:
    """Seconds of the stock path and of ours on the same input, by repetition.

    Attributes:
        name: what is compared.
        stock, ours: seconds.
        equality: how equal the two results were found to be.
        target: the ratio that is promised, if one is.
    """

    name: str
    stock: Sequence[float]
    ours: Sequence[float]
    equality: str
    target: float | None = None

    @property
    def ratio(self) -> float:
        """How many times as long the stock path takes, by medians."""
        return statistics.median(self.stock) / statistics.median(self.ours)

    @property
    def met(self) -> str:
        """Whether the target is reached, in a word."""
        if self.target is None:
            return ""
        return "met" if self.ratio >= self.target else "NOT MET"


def timed(function: Callable[[], object]) -> float:
    """Return the seconds that a call takes."""
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def in_turn(
    stock: Callable[[], object], ours: Callable[[], object], repetitions: int
) -> tuple[list[float], list[float]]:
    """Time both, one after the other, `repetitions` times, and say each time at once."""
    seconds: dict[str, list[float]] = {"ours": [], "stock": []}
    for _ in range(repetitions):
        for name, function in (("ours", ours), ("stock", stock)):
            seconds[name].append(timed(function))
            print(f"{name}: {seconds[name][-1]:.2f} s", file=sys.stderr, flush=True)
    return seconds["stock"], seconds["ours"]


def as_table(rows: Sequence[Sequence[str]]) -> str:
    """Return rows, the first one being the head, as Markdown with aligned columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


def comparisons_table(comparisons: Sequence[Comparison]) -> str:
    """Return comparisons as a table: medians with their range, ratio, target."""
    head = ["", "stock s", "ours s", "ratio", "target", "", "results"]
    rows = [
        [
            one.name,
            _median_and_range(one.stock),
            _median_and_range(one.ours),
            f"{one.ratio:.2f}",
            "" if one.target is None else f"{one.target:g}",
            one.met,
            one.equality,
        ]
        for one in comparisons
    ]
    return as_table([head, *rows])


def _median_and_range(seconds: Sequence[float]) -> str:
    middle = f"{statistics.median(seconds):.2f}"
    if len(seconds) == 1:
        return middle
    return f"{middle} ({min(seconds):.2f} to {max(seconds):.2f})"
