"""The configuration files and tables: what they must say, and what a mistake in them is told."""

import csv
import dataclasses
import shutil

import pytest
import yaml

from workflow_scripts.hear2021.run import config_tables
from workflow_scripts.hear2021.run.config_tables import CONFIG, ConfigurationError
from workflow_scripts.hear2021.run.configuration import complete_columns, read_run, task_table


def config(name: str = "config.yaml", **changes) -> dict:
    """A run file with changes."""
    return yaml.safe_load((CONFIG / name).read_text()) | changes


def test_the_benchmark_is_14_variants_over_5_checkpoints_on_the_20_task_directories_of_hear():
    run = read_run(config("hear2021.yaml"))
    assert len(run.variants) == 14
    assert len({variant.checkpoint for variant in run.variants}) == 5
    assert [row.task for row in run.tasks] == [
        row.task for row in task_table().values() if row.benchmark == "hear2021"
    ]
    assert len(run.tasks) == 20


def test_the_mini_benchmark_has_each_kind_of_task_and_every_category_twice():
    tasks = read_run(config()).tasks
    assert {row.benchmark for row in tasks} == {"mini"}
    for category in ("speech", "music", "general"):
        assert sum(row.category == category for row in tasks) >= 2
    assert {(row.embedding_type, row.prediction_type) for row in tasks} == {
        ("scene", "multiclass"),
        ("scene", "multilabel"),
        ("event", "multilabel"),
    }
    assert {row.split_mode for row in tasks} >= {"trainvaltest", "new_split_kfold"}


def test_what_a_run_leaves_out_is_hearevals_protocol_on_a_cpu():
    keys = ("benchmark", "variants", "tasks")
    run = read_run({key: config()[key] for key in keys})
    assert (run.grid_points, run.seeds, run.precision) == (8, 1, "half")
    assert (run.evaluation_device, run.task_sources, run.weights) == ("cpu", {}, {})


def test_a_key_that_is_missing_is_named():
    run = config()
    del run["tasks"]
    with pytest.raises(ConfigurationError, match="top level: 'tasks' is a required property"):
        read_run(run)


def test_a_variant_that_comes_again_in_another_order_is_refused():
    said = "mn04_seeded_l_e1 is mn04_seeded_e1_l, which is there already"
    with pytest.raises(ConfigurationError, match=said):
        read_run(config(variants=["mn04_seeded_e1_l", "mn04_seeded_l_e1"]))


def test_a_benchmark_with_the_name_of_another_folder_is_told_which_are_taken():
    with pytest.raises(ConfigurationError, match="benchmark: Another name than scores, scratch,"):
        read_run(config(benchmark="published"))


def test_a_task_that_is_nowhere_to_be_had_is_refused_before_any_job():
    with pytest.raises(
        ConfigurationError, match=r"tasks: spoken_digit-1\.0\.9-small .*task_sources"
    ):
        read_run(config(tasks=["spoken_digit-1.0.9-small"]))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({}, "synthetic audio, untrained weights: "),
        ({"tasks": ["esc50-v2.0.0-full", "mini_hum"], "variants": ["mn04_as_e1"]}, "synthetic "),
        ({"tasks": ["esc50-v2.0.0-full"]}, "untrained weights: "),
        ({"notice": "a draft"}, "a draft"),
    ],
)
def test_figures_say_what_is_made_up_in_a_run(changes, says):
    assert read_run(config(**changes)).notice.startswith(says)


def test_a_run_of_ones_own_with_real_tasks_and_weights_says_nothing_of_the_mini_run():
    ours = {"variants": ["mn04_as_e1"], "tasks": ["esc50-v2.0.0-full"]}
    assert read_run(config(**ours)).notice == ""


def table_with(rows: list[dict], name: str, folder, monkeypatch) -> None:
    """Have a table of config/ these rows and no others, saved as a spreadsheet saves it."""
    with (folder / f"{name}.csv").open("w", newline="", encoding="utf-8-sig") as table:
        writer = csv.DictWriter(table, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    shutil.copytree(CONFIG / "schemas", folder / "schemas", dirs_exist_ok=True)
    monkeypatch.setattr(config_tables, "CONFIG", folder)


def rows_of(name: str, key: str) -> list[dict]:
    with (CONFIG / f"{name}.csv").open(newline="") as table:
        return [row for row in csv.DictReader(table) if key in row.values()]


@pytest.mark.parametrize("cells", [{"category": "speech"}, {"primary_metric": "mAP"}])
def test_tasks_of_unlike_scores_are_not_averaged(cells, tmp_path, monkeypatch):
    row = rows_of("tasks", "esc50-v2.0.0-full")[0] | {
        "benchmark": "extra",
        "leaderboard_column": "Birds",
    }
    day, night = (
        row | {"task": f"{time}-v1", "display_name": f"{time.title()} calls"}
        for time in ("day", "night")
    )
    table_with([day, night | cells], "tasks", tmp_path, monkeypatch)
    with pytest.raises(ConfigurationError, match="day-v1 and night-v1 differ in category, kind"):
        task_table.__wrapped__()


def test_a_table_that_is_not_utf_8_is_named(tmp_path, monkeypatch):
    table = config_tables.CONFIG / "tasks.csv"
    (tmp_path / "tasks.csv").write_bytes(table.read_bytes() + "käuze\n".encode("latin-1"))
    monkeypatch.setattr(config_tables, "CONFIG", tmp_path)
    with pytest.raises(ConfigurationError, match=r"config/tasks\.csv is not UTF-8 .*in Excel as"):
        list(config_tables.table_lines("tasks"))


def test_a_table_with_semicolons_is_refused_with_what_is_expected(tmp_path, monkeypatch):
    table_with(rows_of("tasks", "esc50-v2.0.0-full"), "tasks", tmp_path, monkeypatch)
    table = tmp_path / "tasks.csv"
    table.write_text(table.read_text().replace(",", ";"))
    with pytest.raises(ConfigurationError, match=r"tasks\.csv has no column display_name, task\. "):
        task_table.__wrapped__()


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ({}, "esc50-mine is not of HEAR 2021 and cannot be averaged into"),
        ({"display_name": "ESC-50"}, "line 3: the display_name 'ESC-50' again"),
        ({"clips": "many"}, "line 3.*'many'"),
        (
            {"url": "https://example.org/esc50.tar.gz"},
            "line 3 cannot be used:\n  url: .*Where Zenodo has the archive",
        ),
    ],
)
def test_a_task_that_figures_or_downloads_would_take_for_another_is_refused(
    cells, message, tmp_path, monkeypatch
):
    rows = rows_of("tasks", "esc50-v2.0.0-full")
    mine = {"task": "esc50-mine", "display_name": "Mine", "benchmark": "extra"}
    table_with([*rows, rows[0] | mine | cells], "tasks", tmp_path, monkeypatch)
    with pytest.raises(ConfigurationError, match=message):
        task_table.__wrapped__()


def test_a_leaderboard_column_of_ones_own_is_not_the_leaderboards():
    rows = [
        dataclasses.replace(row, leaderboard_column="Own folds")
        for row in task_table().values()
        if row.benchmark == "mini"
    ]
    assert complete_columns(rows) == set()
    assert complete_columns(task_table().values()) >= {"Beehive", "ESC-50"}


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ({"url": "https://example.org/tuned.pt"}, "line 3: the file 'mn04_as_mAP_432.pt' is anoth"),
        ({"url": "", "width": ""}, "line 3 cannot be used:\n  url: '' .*\n  width: '' "),
    ],
)
def test_a_checkpoint_that_would_be_taken_for_another_or_is_incomplete_is_refused(
    cells, message, tmp_path, monkeypatch
):
    rows = rows_of("checkpoints", "mn04_as")
    tuned = rows[0] | {"checkpoint": "tuned"} | cells
    table_with([*rows, tuned], "checkpoints", tmp_path, monkeypatch)
    with pytest.raises(ConfigurationError, match=message):
        read_run(config())


def test_a_checkpoint_called_as_the_reference_calls_a_variant_is_refused(tmp_path, monkeypatch):
    mine = rows_of("checkpoints", "passt_base")[0] | {"checkpoint": "mn04_e1_l"}
    table_with([mine], "checkpoints", tmp_path, monkeypatch)
    table_with(rows_of("variants", "mn04_as_e1_l"), "variants", tmp_path, monkeypatch)
    with pytest.raises(ConfigurationError, match=r"mn04_e1_l is this variant's name in the ref"):
        read_run(config())


def test_a_wrong_row_of_the_table_of_variants_is_named(tmp_path, monkeypatch):
    table_with(rows_of("checkpoints", "mn04_as"), "checkpoints", tmp_path, monkeypatch)
    variant = rows_of("variants", "mn04_as_e1_l")[0] | {"variant": "mn04-as"}
    table_with([variant], "variants", tmp_path, monkeypatch)
    with pytest.raises(ConfigurationError, match=r"variants\.csv, line 2 .*\n  variant: 'mn04-as'"):
        read_run(config())


def test_a_home_is_found_in_the_path_of_a_file_of_ones_own(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "tuned.pt").write_bytes(b"")
    weights = read_run(config(weights={"mn04_as": "~/tuned.pt"})).weights
    assert weights == {"mn04_as": str(tmp_path / "tuned.pt")}


def test_weights_of_ones_own_are_not_untrained(tmp_path):
    (tmp_path / "tuned.pt").write_bytes(b"")
    ours = {"tasks": ["esc50-v2.0.0-full"], "weights": {"mn04_seeded": str(tmp_path / "tuned.pt")}}
    assert read_run(config(**ours)).notice == ""


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"varaints": ["mn04_as_e1"]}, "top level: unknown key 'varaints'. Allowed: benchmark, "),
        ({"precision": "int8"}, "precision: 'int8'. Allowed: 'half', 'float32'"),
        ({"pathvars": {"scratch": "~/hear"}}, "pathvars.scratch: '~/hear' does not match"),
        ({"variants": ["mn04_as_e1_l", "mn04_e1_l"]}, "mn04_e1_l is mn04_as_e1_l, which is there"),
        ({"grid_points": 17}, "grid_points: 17 is greater than the maximum of 16"),
        ({"seeds": 0}, "seeds: 0 is less than the minimum of 1"),
        ({"tasks": ["esc50"]}, "tasks: 'esc50' is not a row of config/tasks.csv. Did you mean "),
        ({"tasks": ["birdsong"]}, "tasks: 'birdsong' is not a row of config/tasks.csv. Known: "),
        ({"variants": ["mn04_as_e2"]}, "variants: .*mn04_as_e2"),
        ({"variants": []}, "variants: "),
        ({"weights": {"mn04": "x.pt"}}, "weights: 'mn04' is not a row of config/checkpoints.csv"),
        ({"weights": {"mn04_as": "no.pt"}}, "weights.mn04_as: no such file or folder: no.pt"),
        ({"weights": {"mn04_as": "/usr"}}, "weights.mn04_as: /usr is a folder; weights are one"),
        ({"benchmark": "scores"}, "benchmark: "),
    ],
)
def test_a_mistake_is_told_with_its_key_and_what_is_allowed(changes, message):
    with pytest.raises(ConfigurationError, match=message):
        read_run(config(**changes))
