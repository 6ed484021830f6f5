"""What heareval's test.predicted-scores.json holds, computed and read without pandas."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np


def test_score(result: Mapping[str, Any]) -> float:
    """Return the leaderboard's number: the test score, or its mean over folds.

    Args:
        result: the content of a test.predicted-scores.json.
    """
    if "aggregated_scores" in result:
        return float(result["aggregated_scores"]["test_score_mean"])
    return float(result["test"]["test_score"])


def aggregate_test_results(results: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Return mean and standard deviation over folds, as heareval's function of this name.

    Args:
        results: the values of each fold by name, the same names in each. NaN is left out, as pandas
            does, which heareval uses and whose import takes as long as some evaluations.
    """
    aggregated = {}
    for name in next(iter(results.values())):
        values = np.array([result[name] for result in results.values()], dtype=np.float64)
        defined = ~np.isnan(values)
        count = int(defined.sum())
        # The others stay in the sums, as zeros: numpy's order of summing depends on the length.
        mean = np.where(defined, values, 0).sum() / count if count else math.nan
        squares = np.where(defined, (mean - values) ** 2, 0).sum()
        aggregated[f"{name}_mean"] = float(mean)
        aggregated[f"{name}_std"] = math.sqrt(squares / (count - 1)) if count > 1 else math.nan
    return aggregated
