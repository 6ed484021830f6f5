"""Score files become tables: nothing missing is filled in, and equal scores give equal bytes."""

import csv
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from tests.conftest import needs_shared
from workflow_scripts.aggregate import aggregate
from workflow_scripts.hear2021.report.comparison import Comparison, UnknownModel
from workflow_scripts.hear2021.report.published import read_published
from workflow_scripts.hear2021.report.reported_tasks import reported_tasks
from workflow_scripts.hear2021.report.score_table import OWN, read_score_table, score_table
from workflow_scripts.hear2021.report.tables import write_table
from workflow_scripts.hear2021.run.configuration import task_table
from workflow_scripts.hear2021.run.unfinished import write_unfinished

HEAR = [row.task for row in task_table().values() if row.benchmark == "hear2021"]
BEEHIVE = ["beehive_states_fold0-v2-full", "beehive_states_fold1-v2-full"]
MINI = [row.task for row in task_table().values() if row.benchmark == "mini"]
MODEL = "mn04_seeded_e1"


def write_score(folder: Path, model: str, task: str, score: float, folds: int = 0) -> None:
    result = {"test": {"test_score": score}}
    if folds:
        result = {f"fold{fold:02d}": {"test_score": score} for fold in range(folds)}
        result["aggregated_scores"] = {"test_score_mean": score, "test_score_std": 0.02}
    path = folder / model / f"{task}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result | {"provenance": {"seed": 42}}))


def run(
    folder: Path,
    variants: list[str],
    tasks: list[str],
    out: str = "tables",
    unfinished: Path | None = None,
) -> Path:
    tables = folder / out
    names = ["scores", "normalised", "means", "leaderboard_row", "missing"]
    files = {name: tables / f"{name}.csv" for name in names}
    scores = folder / "scores"
    aggregate(
        variants=variants,
        tasks=tasks,
        grid_points=8,
        seeds=1,
        score_folder=scores,
        unfinished=unfinished,
        **files,
    )
    return tables


def test_a_score_of_other_settings_is_missing_though_snakemake_may_not_know_it(tmp_path):
    write_score(tmp_path / "scores", MODEL, MINI[0], 0.5)
    file = tmp_path / "scores" / MODEL / f"{MINI[0]}.json"
    scored = json.loads(file.read_text())
    file.write_text(json.dumps(scored | {"provenance": {"grid_points": 1, "seeds": 1}}))
    tables = run(tmp_path, [MODEL], MINI[:1])
    (missing,) = rows(tables / "missing.csv")
    assert "was made with grid_points 1, and the run asks for 8; delete it" in missing["reason"]


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as table:
        return list(csv.DictReader(table))


def row(path: Path, **cells: str) -> dict[str, str]:
    [found] = [row for row in rows(path) if cells.items() <= row.items()]
    return found


def test_a_score_is_the_test_score_or_its_mean_over_folds(tmp_path):
    write_score(tmp_path / "scores", MODEL, "fsd50k-v1.0-full", 0.5)
    write_score(tmp_path / "scores", MODEL, "esc50-v2.0.0-full", 0.9, folds=5)
    tables = run(tmp_path, [MODEL], ["fsd50k-v1.0-full", "esc50-v2.0.0-full"])
    single = row(tables / "scores.csv", model=MODEL, task="fsd50k-v1.0-full")
    folds = row(tables / "scores.csv", model=MODEL, task="esc50-v2.0.0-full")
    assert (single["score"], single["std"], single["folds"]) == ("0.5", "", "")
    assert (folds["score"], folds["std"], folds["folds"]) == ("0.9", "0.02", "5")


def test_a_score_is_normalised_by_the_challenge_maximum_or_by_the_best_possible_value(tmp_path):
    for task in ("esc50-v2.0.0-full", MINI[0]):
        write_score(tmp_path / "scores", MODEL, task, 0.9)
    tables = run(tmp_path, [MODEL], ["esc50-v2.0.0-full", MINI[0]])
    challenge = row(tables / "scores.csv", model=MODEL, task="esc50-v2.0.0-full")
    mini = row(tables / "scores.csv", model=MODEL, task=MINI[0])
    assert challenge["normaliser_source"] == "challenge maximum"
    assert float(challenge["normalised"]) == pytest.approx(0.9 / 0.947499991)
    assert (mini["normaliser"], mini["normaliser_source"]) == ("1", "best possible value")
    assert mini["normalised"] == "0.9"


def test_a_pair_that_a_run_did_not_finish_is_missing_even_with_a_score_of_an_earlier_run(tmp_path):
    for task in MINI[:2]:
        write_score(tmp_path / "scores", MODEL, task, 0.9)
    write_unfinished(
        {(MODEL, MINI[0]): "", (MODEL, MINI[2]): "", (MODEL, MINI[3]): "evaluate failed: no room"},
        tmp_path / "unfinished.json",
    )
    tables = run(tmp_path, [MODEL], MINI[:4], unfinished=tmp_path / "unfinished.json")
    assert row(tables / "scores.csv", model=MODEL, task=MINI[0])["score"] == ""
    assert row(tables / "scores.csv", model=MODEL, task=MINI[1])["score"] == "0.9"
    outdated, absent, failed = rows(tables / "missing.csv")
    assert "other settings" in outdated["reason"]
    assert "no score file" in absent["reason"]
    assert failed["reason"] == "evaluate failed: no room"


def test_beehive_is_one_task_and_the_mean_of_its_two_directories(tmp_path):
    write_score(tmp_path / "scores", MODEL, BEEHIVE[0], 0.4)
    write_score(tmp_path / "scores", MODEL, BEEHIVE[1], 0.6)
    tables = run(tmp_path, [MODEL], BEEHIVE)
    assert float(row(tables / "leaderboard_row.csv")["Beehive"]) == pytest.approx(0.5)
    [name] = [column for column in rows(tables / "normalised.csv")[0] if "Beehive" in column]
    assert name == "Beehive States"
    normalised = row(tables / "normalised.csv", model=MODEL)[name]
    assert float(normalised) == pytest.approx(0.5 / 0.877965838)


def test_a_run_with_one_fold_of_beehive_is_not_compared_with_the_leaderboards(tmp_path):
    write_score(tmp_path / "scores", MODEL, BEEHIVE[0], 0.5)
    tables = run(tmp_path, [MODEL], BEEHIVE[:1])
    assert row(tables / "leaderboard_row.csv")["Beehive"] == ""
    [alone] = rows(tables / "scores.csv")
    assert (alone["normaliser"], alone["normalised"]) == ("1", "0.5")


def test_half_of_beehive_is_no_beehive(tmp_path):
    write_score(tmp_path / "scores", MODEL, BEEHIVE[0], 0.4)
    tables = run(tmp_path, [MODEL], BEEHIVE)
    assert row(tables / "leaderboard_row.csv")["Beehive"] == ""
    assert row(tables / "means.csv", model=MODEL)["tasks_missing"] == "1"


def test_a_missing_score_stays_missing_and_is_counted_and_listed(tmp_path):
    write_score(tmp_path / "scores", MODEL, MINI[0], 0.5)
    write_score(tmp_path / "scores", MODEL, MINI[1], math.nan)
    tables = run(tmp_path, [MODEL], MINI[:3])
    assert row(tables / "scores.csv", task=MINI[2])["score"] == ""
    means = row(tables / "means.csv", model=MODEL)
    assert (means["all_percent"], means["all_tasks"], means["tasks_missing"]) == ("50.00", "1", "2")
    reasons = {row["task"]: row["reason"] for row in rows(tables / "missing.csv")}
    assert set(reasons) == {MINI[1], MINI[2]}
    assert "not a number, which metrics are where no event is found" in reasons[MINI[1]]
    assert "no score file" in reasons[MINI[2]]


def test_means_are_by_category_and_over_all_tasks(tmp_path):
    for number, task in enumerate(MINI):
        write_score(tmp_path / "scores", MODEL, task, number / 10)
    tables = run(tmp_path, [MODEL], MINI)
    means = row(tables / "means.csv", model=MODEL)
    speech = [n / 10 for n, task in enumerate(MINI) if task_table()[task].category == "speech"]
    assert float(means["speech_percent"]) == pytest.approx(100 * sum(speech) / len(speech))
    assert int(means["speech_tasks"]) == len(speech)
    assert float(means["all_percent"]) == pytest.approx(10 * (len(MINI) - 1) / 2)


def test_the_tables_of_published_scores_need_no_model(tmp_path):
    tables = run(tmp_path, [], HEAR)
    assert row(tables / "means.csv", model="mn40_as_ext_e1_l_all_se")["all_percent"] == "80.29"
    assert rows(tables / "missing.csv") == []


@needs_shared
def test_the_published_leaderboard_rows_come_back_as_they_are_on_the_leaderboard(tmp_path, shared):
    tables = run(tmp_path, [], HEAR)
    leaderboard = rows(shared / "facts/leaderboard.csv")
    ours = rows(tables / "leaderboard_row.csv")
    assert ours == [row for row in leaderboard if row["Model"].startswith("CP-JKU mn")]


def test_mini_tasks_bring_no_published_rows(tmp_path):
    write_score(tmp_path / "scores", MODEL, MINI[0], 0.5)
    tables = run(tmp_path, [MODEL], MINI)
    assert {row["origin"] for row in rows(tables / "scores.csv")} == {OWN}
    assert {row["model"] for row in rows(tables / "means.csv")} == {MODEL}


def test_equal_scores_give_equal_bytes_and_no_file_is_left_aside(tmp_path):
    for task in HEAR:
        write_score(tmp_path / "scores", MODEL, task, 1 / 3, folds=5)
    first, second = run(tmp_path, [MODEL], HEAR, "first"), run(tmp_path, [MODEL], HEAR, "second")
    names = sorted(path.name for path in first.iterdir())
    assert names == sorted(
        ["scores.csv", "normalised.csv", "means.csv", "leaderboard_row.csv", "missing.csv"]
    )
    for name in names:
        assert (first / name).read_bytes() == (second / name).read_bytes()


def test_repeated_seeds_are_reported_beside_the_score(tmp_path):
    write_score(tmp_path / "scores", MODEL, MINI[0], 0.5)
    path = tmp_path / "scores" / MODEL / f"{MINI[0]}.json"
    seeds = {"test_scores": [0.5, 0.6], "mean": 0.55, "std": 0.07}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"seeds": seeds}))
    scores = row(run(tmp_path, [MODEL], MINI[:1]) / "scores.csv", model=MODEL)
    assert (scores["score"], scores["seeds"]) == ("0.5", "2")
    assert (scores["seeds_mean"], scores["seeds_std"]) == ("0.55", "0.07")


ESC50 = task_table()["esc50-v2.0.0-full"]


def test_own_tasks_of_one_column_have_its_name_where_theirs_share_no_word():
    day, night, esc = (
        replace(ESC50, task=name, display_name=name, **changes)
        for name, changes in (
            ("day", {"leaderboard_column": "Calls", "benchmark": "extra"}),
            ("night", {"leaderboard_column": "Calls", "benchmark": "extra"}),
            ("esc50-v2.0.0-full", {}),
        )
    )
    assert [task.name for task in reported_tasks([day, night, esc])] == ["Calls", esc.display_name]


def test_two_columns_of_own_tasks_whose_names_begin_alike_are_two_tasks():
    own = [
        replace(ESC50, task=name, display_name=name, leaderboard_column=column, benchmark="extra")
        for name, column in (
            *(("Bird day", "Calls"), ("Bird night", "Calls")),
            *(("Bird eggs", "Nests"), ("Bird nests", "Nests"), ("Bird", "")),
        )
    ]
    assert [task.name for task in reported_tasks(own)] == ["Calls", "Nests", "Bird"]


def test_a_run_goes_before_the_published_scores_of_the_same_variant_as_a_whole(tmp_path):
    variant = "mn04_as_e1_l"
    write_score(tmp_path, variant, "esc50-v2.0.0-full", 0.5)
    tasks = [task_table()[name] for name in HEAR]
    published = read_published()
    scores, _ = score_table(tmp_path, [variant], tasks, published)
    comparison = Comparison(scores, reported_tasks(tasks), published)
    values = comparison.normalised(variant)
    assert values[0] == pytest.approx(0.5 / 0.947499991)
    assert all(math.isnan(value) for value in values[1:])


def test_box_statistics_stand_for_all_tasks_of_a_category_or_for_none(tmp_path):
    published = read_published()
    tasks = [task_table()[name] for name in HEAR]
    some = [row for row in tasks if row.task != "fsd50k-v1.0-full"]
    with_ones_own = [*tasks, *(task_table()[name] for name in MINI)]
    for rows_, mean in ((tasks, 85.82), (some, None), (with_ones_own, 85.82)):
        scores, _ = score_table(tmp_path, [], rows_, published)
        comparison = Comparison(scores, reported_tasks(rows_), published)
        known = comparison.mean("mn40_as_ext_e1", "general")
        assert (100 * known.mean == pytest.approx(mean, abs=0.3)) if mean else not known.tasks
        assert bool(comparison.mean("mn40_as_ext_e1").tasks) == bool(mean)


def test_a_run_is_not_shown_with_the_published_box_of_the_same_variant(tmp_path):
    variant = "mn40_as_ext_e1"
    write_score(tmp_path, variant, "esc50-v2.0.0-full", 0.5)
    tasks = [task_table()[name] for name in HEAR]
    published = read_published()
    for variants, shown in (([], True), ([variant], False)):
        scores, _ = score_table(tmp_path, variants, tasks, published)
        comparison = Comparison(scores, reported_tasks(tasks), published)
        assert (comparison.box(variant, "general") is not None) == shown


def test_a_published_system_without_a_score_on_any_of_the_tasks_is_left_out(tmp_path):
    models = {row["model"] for row in rows(run(tmp_path, [], ["fsd50k-v1.0-full"]) / "scores.csv")}
    assert "mn40_as_ext_e1_l_all_se" in models
    assert "CVSSP PANNS" not in models


def test_a_task_that_is_named_by_a_number_keeps_its_scores(tmp_path):
    task = replace(task_table()[MINI[0]], task="2024")
    write_score(tmp_path, MODEL, "2024", 0.5)
    published = read_published()
    write_table(score_table(tmp_path, [MODEL], [task], published)[0], tmp_path / "scores.csv")
    scores = read_score_table(tmp_path / "scores.csv")
    assert Comparison(scores, reported_tasks([task]), published).normalised(MODEL) == [0.5]


def test_an_unknown_model_is_refused_by_name(tmp_path):
    published = read_published()
    with pytest.raises(UnknownModel, match="'mn41' is neither a model of this run"):
        Comparison(score_table(tmp_path, [], [], published)[0], [], published).label("mn41")
