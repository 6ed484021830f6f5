"""The reference's own sentences come out of the numbers, and so do one's own."""

import json
import math

import pytest

from workflow_scripts.hear2021.report.claims import duel, new_bests, write_claims
from workflow_scripts.hear2021.report.comparison import Comparison
from workflow_scripts.hear2021.report.published import read_published
from workflow_scripts.hear2021.report.reported_tasks import reported_tasks
from workflow_scripts.hear2021.report.score_table import PUBLISHED, Missing, score_table
from workflow_scripts.hear2021.run.configuration import task_table

BEST = "mn40_as_ext_e1_l_all_se"


def compare(folder, variants=(), benchmark="hear2021") -> Comparison:
    rows = [row for row in task_table().values() if row.benchmark == benchmark]
    published = read_published()
    scores, _ = score_table(folder, list(variants), rows, published)
    return Comparison(scores, reported_tasks(rows), published)


@pytest.fixture
def published_only(tmp_path):
    return compare(tmp_path)


def test_the_best_variant_is_a_new_best_on_exactly_two_tasks(published_only):
    assert new_bests(published_only, BEST) == ["ESC-50", "GTZAN Genre"]


def test_the_best_variant_beats_panns_on_15_of_16_comparable_tasks(published_only):
    result = duel(published_only, BEST, "CVSSP PANNS")
    assert (len(result.wins), result.comparable) == (15, 16)
    assert result.losses == ["GTZAN Music Speech"]
    assert result.not_comparable == {
        "FSD50K": "PANNs has no score",
        "DCASE 2016 Task 2": "PANNs scored 0",
        "MAESTRO 5h": "PANNs scored 0",
    }


def test_the_best_variant_beats_the_published_passt_bars_on_17_of_19_tasks(published_only):
    result = duel(published_only, BEST, "PaSST")
    assert (len(result.wins), result.comparable) == (17, 19)
    assert result.losses == ["Beehive States", "FSD50K"]


def test_the_sentences_carry_these_numbers(published_only):
    text = write_claims(published_only, ["CVSSP PANNS", "PaSST"], [], "")
    section = text.split(f"## {BEST}\n")[1].split("\n## ")[0]
    assert "Above the best of the challenge on 2 tasks: ESC-50, GTZAN Genre." in section
    assert "Better than PANNs on 15 of 16 tasks that can be compared." in section
    assert "Better than PaSST on 17 of 19 tasks that can be compared." in section
    assert "| mn40_as_ext_e1_l_all_se | 77.56 | 72.22 | 90.32 | 80.29 |" in text
    assert "62.47 (18 of 19)" in text
    assert "mn40_as_ext_e1: only box plots published, no score of a task." in text


def test_a_difference_within_the_tolerance_is_neither_won_nor_lost(published_only):
    """On GTZAN Genre mn10_as_e1_l and PaSST are 0.0014 apart, each known to 0.0015."""
    assert duel(published_only, "mn10_as_e1_l", "PaSST").draws == ["GTZAN Genre"]


def test_a_zero_of_ones_own_is_a_loss(tmp_path):
    path = tmp_path / "mn04_as_e1/esc50-v2.0.0-full.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"test": {"test_score": 0.0}}))
    result = duel(compare(tmp_path, ["mn04_as_e1"]), "mn04_as_e1", "CVSSP PANNS")
    assert (result.losses, result.comparable) == (["ESC-50"], 1)
    assert result.not_comparable["Beehive States"] == "mn04_as_e1 has no score"


def test_a_run_of_a_published_variant_is_compared_with_it(tmp_path):
    for task, score in (("esc50-v2.0.0-full", 0.947499991), ("tfds_crema_d-1.0.0-full", 0.2)):
        path = tmp_path / f"mn04_as_e1_l/{task}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"test": {"test_score": score}}))
    comparison = compare(tmp_path, ["mn04_as_e1_l"])
    text = write_claims(comparison, [], [], "")
    esc50, crema = (
        100 * (ours - comparison.cell("mn04_as_e1_l", task, PUBLISHED)["normalised"])
        for task in comparison.tasks
        if not math.isnan(ours := comparison.cell("mn04_as_e1_l", task)["normalised"])
    )
    assert f"{esc50:.2f}" == "3.11"
    assert crema < -20
    assert (
        f"Against the published run of the same variant: {(esc50 + crema) / 2:+.2f} points of "
        f"normalised score on average over 2 tasks, at most {crema:+.2f} (CREMA-D)."
    ) in text


def test_synthetic_runs_say_so_and_claim_nothing_against_published_systems(tmp_path):
    missing = [
        Missing("mn04_seeded_e1", "mini_vowels", "no score file x."),
        Missing("mn04_seeded_e1", "mini_hum", "no y"),
    ]
    comparison = compare(tmp_path, ["mn04_seeded_e1"], benchmark="mini")
    text = write_claims(comparison, ["PaSST", "OpenL3"], missing, "synthetic audio")
    assert "**synthetic audio**" in text
    assert "Better than" not in text
    assert "| mn04_seeded_e1 | n/a | n/a | n/a | n/a |" in text
    assert text.endswith(
        "## What was not compared, and remarks\n\n"
        "- mn04_seeded_e1 on mini_vowels: no score file x.\n"
        "- mn04_seeded_e1 on mini_hum: no y.\n"
        "- PaSST, OpenL3: no published score on any of these tasks.\n"
    )
