"""What is kept of a finished evaluation until the run is over."""

from workflow_scripts.hear2021.evaluation.kept_scores import (
    forget_kept_scores,
    forget_scores_of,
    keep_scores,
    kept_scores,
)


def test_kept_scores_go_when_their_embeddings_are_made_anew(tmp_path):
    manifests = [tmp_path / "e1.json"]
    keep_scores("mn04_as_e1", manifests, {"grid_points": 8}, {"test": 0.5})
    forget_scores_of(manifests[0])
    assert kept_scores("mn04_as_e1", manifests, {"grid_points": 8}) is None


def test_kept_scores_serve_the_same_request_only_and_until_the_run_is_over(tmp_path):
    manifests = [tmp_path / "scratch/embeddings/mn04_as/esc50/e1.json"]
    manifests[0].parent.mkdir(parents=True)
    keep_scores("mn04_as_e1", manifests, {"grid_points": 8}, {"test": 0.5})
    assert kept_scores("mn04_as_e1", manifests, {"grid_points": 8}) == {"test": 0.5}
    assert kept_scores("mn04_as_e1", manifests, {"grid_points": 4}) is None
    assert kept_scores("mn04_as_l", manifests, {"grid_points": 8}) is None
    forget_kept_scores(tmp_path / "scratch", tmp_path / "results")
    assert kept_scores("mn04_as_e1", manifests, {"grid_points": 8}) is not None
    score = tmp_path / "results/scores/mn04_as_e1/esc50.json"
    score.parent.mkdir(parents=True)
    score.write_text("{}")
    forget_kept_scores(tmp_path / "scratch", tmp_path / "results")
    assert kept_scores("mn04_as_e1", manifests, {"grid_points": 8}) is None
