"""What a run asks for: config/*.yaml, checked, and the rows of config/tasks.csv that it names."""

import difflib
from collections import Counter
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from hear_mn.checkpoints import checkpoints
from hear_mn.variants import UnknownVariant, Variant, parse_variant
from workflow_scripts.hear2021.run.config_tables import (
    ConfigurationError,
    check,
    defaults,
    table_rows,
)


@dataclass(frozen=True)
class TaskRow:
    """One row of config/tasks.csv: what is known of a task before its data is there."""

    task: str
    display_name: str
    category: str
    benchmark: str
    leaderboard_column: str
    embedding_type: str
    prediction_type: str
    primary_metric: str
    split_mode: str
    folds: int | None
    clips: int | None
    labels: int | None
    sample_duration: float | None
    hours: float | None
    archive: str
    url: str
    md5: str
    size: int | None
    note: str

    @property
    def kind(self) -> tuple[str, str, str]:
        """What the data of the task must be: how it is embedded, predicted and scored."""
        return self.embedding_type, self.prediction_type, self.primary_metric


@dataclass(frozen=True)
class Run:
    """A checked configuration: which variants on which tasks, and how."""

    benchmark: str
    variants: tuple[Variant, ...]
    tasks: tuple[TaskRow, ...]
    notice: str
    grid_points: int
    seeds: int
    precision: str
    evaluation_device: str
    task_sources: dict[str, str]
    weights: dict[str, str]


@cache
def task_table() -> dict[str, TaskRow]:
    """Return config/tasks.csv by task, in its order, which is the order of the figures."""
    rows: dict[str, TaskRow] = {}
    for _, row in table_rows("tasks", "task", "display_name"):
        rows[row["task"]] = TaskRow(**row)
    published = {row.leaderboard_column for row in rows.values() if row.benchmark == "hear2021"}
    first_of: dict[str, TaskRow] = {}
    for task in rows.values():
        other = first_of.setdefault(task.leaderboard_column, task)
        if task.leaderboard_column and (other.category, other.kind) != (task.category, task.kind):
            raise ConfigurationError(
                f"config/tasks.csv: {other.task} and {task.task} differ in category, kind or "
                f"metric and cannot be averaged into one leaderboard_column "
                f"{task.leaderboard_column!r}; leave the cell of one of them empty"
            )
        if task.leaderboard_column in published and task.benchmark != "hear2021":
            raise ConfigurationError(
                f"config/tasks.csv: {task.task} is not of HEAR 2021 and cannot be averaged into "
                f"its leaderboard_column {task.leaderboard_column!r}; leave the cell empty"
            )
    return rows


def complete_columns(rows: Iterable[TaskRow]) -> set[str]:
    """Return the leaderboard columns all of whose task directories are among `rows`.

    One fold of Beehive is not the leaderboard's Beehive. A column of one's own is none of it.
    """
    directories, found = (
        Counter(row.leaderboard_column for row in some if row.benchmark == "hear2021")
        for some in (task_table().values(), rows)
    )
    return {column for column, count in found.items() if count == directories[column]}


def _check_checkpoints() -> set[str]:
    """Check config/checkpoints.csv before `hear_mn` reads it; return the checkpoints."""
    urls: dict[str, str] = {}
    names = set()
    for where, cells in table_rows("checkpoints", "checkpoint"):
        names.add(cells["checkpoint"])
        file, url = cells.get("file", ""), cells.get("url", "")
        if file and urls.setdefault(file, url) != url:
            raise ConfigurationError(
                f"{where}: the file {file!r} is another row's, of another url; give it a name of "
                f"its own in the cache"
            )
    return names


def _check_variants(checkpoint_names: Container[str]) -> None:
    """Check config/variants.csv before `hear_mn` reads it."""
    for where, cells in table_rows("variants", "variant"):
        if cells["alias"] in checkpoint_names:
            raise ConfigurationError(
                f"{where}: {cells['alias']} is this variant's name in the reference, and a row of "
                f"config/checkpoints.csv; call that checkpoint otherwise"
            )


def read_run(config: Mapping[str, Any]) -> Run:
    """Check a configuration and look up the variants and tasks it names.

    Raises:
        ConfigurationError: naming the key, the value and what is allowed.
    """
    check(dict(config), "config", "The configuration (config/*.yaml, --configfile, --config)")
    _check_variants(_check_checkpoints())
    table = task_table()
    settings = {**defaults("config"), **config}
    variants = _variants(settings["variants"])
    tasks = tuple(
        table[known] for known in _known("tasks", settings["tasks"], table, "config/tasks.csv")
    )
    weights = _local_files("weights", settings, checkpoints(), "config/checkpoints.csv")
    task_sources = _local_files("task_sources", settings, table, "config/tasks.csv")
    for row in tasks:
        if not row.url and row.benchmark != "mini" and row.task not in task_sources:
            raise ConfigurationError(
                f"tasks: {row.task} has no published archive in config/tasks.csv; name yours under "
                f"task_sources: {{{row.task}: /path/to/{row.archive or row.task}}}"
            )
    return Run(
        benchmark=settings["benchmark"],
        variants=variants,
        tasks=tasks,
        notice=settings.get("notice", _made_up(variants, tasks, weights)),
        grid_points=settings["grid_points"],
        seeds=settings["seeds"],
        precision=settings["precision"],
        evaluation_device=settings["evaluation_device"],
        task_sources=task_sources,
        weights=weights,
    )


def _made_up(variants: Iterable[Variant], tasks: Iterable[TaskRow], weights: Container[str]) -> str:
    """Say what of a run is made up, so that no figure of it is taken for a result."""
    made_up = []
    if any(row.benchmark == "mini" for row in tasks):
        made_up.append("synthetic audio")
    made = {variant.checkpoint for variant in variants if variant.checkpoint not in weights}
    if any(checkpoints()[name].source == "seeded" for name in made):
        made_up.append("untrained weights")
    if not made_up:
        return ""
    return f"{', '.join(made_up)}: shows that the pipeline works, not how good a model is"


def _variants(names: Iterable[str]) -> tuple[Variant, ...]:
    found: dict[tuple[str, tuple[str, ...]], Variant] = {}
    for name in names:
        try:
            variant = parse_variant(name)
        except UnknownVariant as error:
            raise ConfigurationError(f"variants: {error}") from error
        content = variant.checkpoint, variant.features
        if content in found:
            there = found[content].name
            raise ConfigurationError(f"variants: {name} is {there}, which is there already")
        found[content] = variant
    return tuple(found.values())


def _known(key: str, names: Iterable[str], table: Mapping[str, Any], source: str) -> list[str]:
    names = list(names)
    for name in names:
        if name not in table:
            near = difflib.get_close_matches(name, table, n=3, cutoff=0.4)
            hint = f" Did you mean {' or '.join(near)}?" if near else ""
            raise ConfigurationError(
                f"{key}: {name!r} is not a row of {source}.{hint} Known: {', '.join(table)}"
            )
    return names


def _local_files(
    key: str, settings: Mapping[str, Any], table: Mapping[str, Any], source: str
) -> dict[str, str]:
    files = dict(settings[key])
    for name in _known(key, files, table, source):
        path = Path(files[name]).expanduser()
        if not path.exists():
            raise ConfigurationError(f"{key}.{name}: no such file or folder: {path}")
        if key == "weights" and path.is_dir():
            raise ConfigurationError(f"{key}.{name}: {path} is a folder; weights are one file")
        files[name] = str(path)
    return files
