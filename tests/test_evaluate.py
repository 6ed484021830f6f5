"""What rule evaluate writes beside heareval's scores."""

import json
import statistics

import pytest
import torch
from filelock import FileLock

from tests.benchmarks.evaluation import SIZE, made_files
from tests.benchmarks.inputs import scene_embeddings
from workflow_scripts.evaluate import evaluate
from workflow_scripts.hear2021.evaluation.protocol import evaluate as evaluate_protocol
from workflow_scripts.hear2021.evaluation.results import test_score as score_of

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Made embeddings of a small task, to be learned in few epochs."""
    made = scene_embeddings({f"fold0{i}": 20 for i in range(3)}, SIZE, 4, max_epochs=[6])
    return made_files(made, tmp_path_factory.mktemp("embedded") / "pair")


def test_repeated_seeds_are_42_and_those_after_it_and_the_result_is_that_of_42(pair, tmp_path):
    scores = tmp_path / "scores.json"
    evaluate(pair.variant, pair.task_json, [pair.manifest], 1, 3, "cpu", 1, scores)
    result = json.loads(scores.read_text())
    expected = [
        score_of(evaluate_protocol(pair.embedded, grid_points=1, seed=seed))
        for seed in (42, 43, 44)
    ]
    assert len({*expected}) > 1
    assert score_of(result) == expected[0]
    assert result["seeds"]["test_scores"] == expected
    assert result["seeds"]["mean"] == pytest.approx(statistics.fmean(expected))
    assert result["seeds"]["std"] == pytest.approx(statistics.stdev(expected))


def test_an_evaluation_says_its_threads_and_keeps_to_them(pair, tmp_path):
    torch.set_num_threads(2)
    scores = tmp_path / "scores.json"
    evaluate(pair.variant, pair.task_json, [pair.manifest], 1, 1, "cpu", 1, scores)
    assert torch.get_num_threads() == 1
    assert json.loads(scores.read_text())["provenance"]["threads"] == 1


def test_two_writers_of_one_score_are_refused(pair, tmp_path):
    scores = tmp_path / "scores.json"
    arguments = pair.variant, pair.task_json, [pair.manifest], 1, 1, "cpu", 1, scores
    with (
        FileLock(tmp_path / ".scores.json.lock"),
        pytest.raises(RuntimeError, match=r"another process is writing .*scancel"),
    ):
        evaluate(*arguments)
    evaluate(*arguments)
    assert list(tmp_path.iterdir()) == [scores]
