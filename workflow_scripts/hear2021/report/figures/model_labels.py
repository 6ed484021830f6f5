"""What figures call the models, in lines as short as their places."""

import re
import textwrap
from collections.abc import Sequence

from workflow_scripts.hear2021.report.comparison import Comparison
from workflow_scripts.hear2021.report.score_table import PUBLISHED


def model_labels(models: Sequence[str], comparison: Comparison) -> dict[str, str]:
    """Return the models' labels; where own and published ones meet, the latter say what they are.

    A variant of the run goes without a mark, as does everything in a figure of published scores.
    """
    mixed = len({comparison.origin(model) for model in models}) > 1
    labels = {}
    for model in models:
        mark = mixed and comparison.origin(model) == PUBLISHED
        labels[model] = comparison.label(model) + (" (published)" if mark else "")
    return labels


def break_label(label: str, width: int) -> str:
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
