"""heareval's prediction runner as it can be run today, and what of its results can be compared."""

import math
import re
from typing import Any

# With the line of hear-eval-kit issue 432, without which it crashes on event tasks, and without the
# name of the GPU, which NVIDIA's library gives as text today and heareval decodes from bytes.
STOCK_RUNNER = """
import sys
from heareval import gpu_max_mem
from heareval.predictions import runner, task_predictions

gpu_max_mem.device_name = lambda: "a GPU"

test = task_predictions.task_predictions_test

def test_at_best_epoch(embedding_path, grid_point, *args, **kwargs):
    grid_point.trainer.fit_loop.epoch_progress.current.completed = grid_point.epoch
    return test(embedding_path, grid_point, *args, **kwargs)

task_predictions.task_predictions_test = test_at_best_epoch
runner.runner(sys.argv[1:])
"""


def comparable(results: Any) -> Any:
    """Return results without what tells one run from another: times, paths, addresses."""
    if isinstance(results, dict):
        return {
            key: comparable(value)
            for key, value in results.items()
            if key not in ("embedding_path", "provenance") and "time_in_min" not in key
        }
    if isinstance(results, float) and math.isnan(results):
        return "NaN"
    return re.sub(r" at 0x[0-9a-f]+", "", results) if isinstance(results, str) else results
