"""Colours and matplotlib's settings.

The colours are those of Okabe and Ito (https://jfly.uni-koeln.de/color), which stay apart for
readers with colour-blindness.
"""

from typing import Any

import matplotlib as mpl

BLACK, ORANGE, SKY_BLUE, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
YELLOW, BLUE, VERMILION, PURPLE = "#F0E442", "#0072B2", "#D55E00", "#CC79A7"
GREY, DARK_GREY = "#666666", "#444444"

CATEGORY_COLOURS = {"speech": BLUE, "music": ORANGE, "general": GREEN}
MODEL_COLOURS = (BLUE, ORANGE, GREEN, PURPLE, SKY_BLUE, VERMILION)

HATCH = "//////"  # where a score is missing

_STYLE: dict[str, Any] = {
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


def settings() -> Any:
    """Return matplotlib's defaults with ours, whatever the user's matplotlibrc says."""
    return {**mpl.rcParamsDefault, **_STYLE}
