"""What is computed here instead of by heareval, scikit-learn and pandas has their numbers."""

import math
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from heareval.score import SoundEventScore, available_scores
from hypothesis import given
from hypothesis import strategies as st
from sklearn.model_selection import ParameterGrid

from workflow_scripts.hear2021.evaluation.heareval_definitions import (
    EVENT_POSTPROCESSING_GRID,
    EVENT_SCORES,
    MODULE,
    PARAM_GRID,
    definitions,
    parameter_grid,
)
from workflow_scripts.hear2021.evaluation.results import aggregate_test_results
from workflow_scripts.hear2021.evaluation.scoring import ACCURACIES, mean_average_precision


@pytest.mark.parametrize("name", ACCURACIES)
@given(seed=st.integers(0, 10_000), n_rows=st.integers(1, 40), n_labels=st.integers(1, 30))
def test_accuracies_equal_hearevals(name, seed, n_rows, n_labels):
    random = np.random.default_rng(seed)
    predictions = random.integers(5, size=(n_rows, n_labels)) / 4  # ties
    targets = np.eye(n_labels)[random.integers(n_labels, size=n_rows)]
    function = available_scores[name](label_to_idx={})
    found = ACCURACIES[name](torch.from_numpy(predictions), torch.from_numpy(targets))
    assert found == function(predictions, targets)
    assert str(ACCURACIES[name]) == str(function)
    assert ACCURACIES[name].maximize == function.maximize


@given(seed=st.integers(0, 10_000), n_rows=st.integers(1, 40), n_labels=st.integers(2, 30))
def test_the_map_of_validations_on_a_gpu_is_hearevals(seed, n_rows, n_labels):
    random = np.random.default_rng(seed)
    predictions = random.integers(9, size=(n_rows, n_labels)) / 8  # ties
    targets = (random.random((n_rows, n_labels)) < 0.2).astype(np.float32)  # some labels nowhere
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = available_scores["mAP"](label_to_idx={})(predictions, targets)
    found = mean_average_precision(torch.from_numpy(predictions), torch.from_numpy(targets))
    assert found == pytest.approx(expected, rel=1e-12)


def test_the_map_of_nan_is_nan():
    nan = torch.full((3, 2), torch.nan)
    assert math.isnan(mean_average_precision(nan, torch.ones(3, 2)))


def test_grid_points_are_scikit_learns_in_its_order():
    for grid in (PARAM_GRID, EVENT_POSTPROCESSING_GRID, {"b": [2, 1], "a": ["y", "x", "z"]}):
        assert parameter_grid(grid) == list(ParameterGrid(grid))


scores = st.floats(-1e3, 1e3) | st.just(math.nan) | st.integers(0, 500)


@given(values=st.lists(st.tuples(scores, scores), min_size=1, max_size=12))
def test_means_and_deviations_over_folds_equal_hearevals(values):
    results = {f"fold{i:02}": {"test_score": a, "epoch": b} for i, (a, b) in enumerate(values)}
    function = definitions(MODULE, ["aggregate_test_results"], {"pd": pd})
    np.testing.assert_equal(
        aggregate_test_results(results), function["aggregate_test_results"](results)
    )


def test_the_scores_of_events_are_hearevals():
    there = {
        name: score
        for name, score in available_scores.items()
        if isinstance(score(label_to_idx={}), SoundEventScore)
    }
    assert list(EVENT_SCORES) == list(there)
    for name, score in EVENT_SCORES.items():
        ours, hearevals = score(label_to_idx={}), there[name](label_to_idx={})
        assert vars(ours) == vars(hearevals)
        assert type(ours).__name__ == type(hearevals).__name__
