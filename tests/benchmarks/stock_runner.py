"""heareval's prediction runner as it can be run today."""

# With the line of hear-eval-kit issue 432, without which it crashes on event tasks.
STOCK_RUNNER = """
import sys
from heareval.predictions import runner, task_predictions

test = task_predictions.task_predictions_test

def test_at_best_epoch(embedding_path, grid_point, *args, **kwargs):
    grid_point.trainer.fit_loop.epoch_progress.current.completed = grid_point.epoch
    return test(embedding_path, grid_point, *args, **kwargs)

task_predictions.task_predictions_test = test_at_best_epoch
runner.runner(sys.argv[1:])
"""
