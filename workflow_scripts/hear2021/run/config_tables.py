"""The tables and settings of config/, read and held to their schemas."""

import csv
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

CONFIG = Path(__file__).resolve().parents[3] / "config"


class ConfigurationError(ValueError):
    """A configuration or a table that cannot be run, with the key at fault and what is allowed."""


def check(instance: Any, schema: str, where: str) -> None:
    """Check `instance` against config/schemas/<schema>.schema.yaml.

    Raises:
        ConfigurationError: naming every key at fault and what is allowed there.
    """
    validator = _validator(schema)
    errors = sorted(validator.iter_errors(instance), key=lambda error: list(map(str, error.path)))
    if errors:
        raise ConfigurationError(
            "\n".join([f"{where} cannot be used:", *(f"  {_explain(error)}" for error in errors)])
        )


def table_rows(
    table: str, *keys: str | tuple[str, ...], folder: Path | None = None
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield where each line of a table is, and its cells as what the table's schema says they are.

    An empty number is None; an array's items have semicolons between them in the cell.

    Args:
        table: its file is <table>.csv, its schema config/schemas/<table>.schema.yaml.
        keys: columns, or columns together, in which no two lines are equal.
        folder: that the table is in; by default config/.

    Raises:
        ConfigurationError: as `table_lines` and `check`; for a cell that is no number, naming it.
    """
    definition: Any = _validator(table).schema
    for where, cells in table_lines(table, *keys, folder=folder):
        row = {}
        for column, cell in cells.items():
            kinds = definition["properties"].get(column, {}).get("type", "string")
            try:
                row[column] = _typed(cell, kinds)
            except ValueError as error:
                raise ConfigurationError(f"{where}, {column}: {cell!r} is not a number") from error
        check(row, table, where)
        yield where, row


def table_lines(
    table: str, *keys: str | tuple[str, ...], folder: Path | None = None
) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield where each line of a table is, and its cells.

    Args:
        table: its file is <table>.csv.
        keys: columns, or columns together, in which no two lines are equal.
        folder: that the table is in; by default config/.

    Raises:
        ConfigurationError: for a file that is not UTF-8 or without these columns, a line with more
            or fewer cells than the first, or a key that comes again.
    """
    unique = [(key,) if isinstance(key, str) else key for key in keys]
    seen = set()
    with ((folder or CONFIG) / f"{table}.csv").open(newline="", encoding="utf-8-sig") as file:
        try:
            lines = csv.DictReader(file.readlines())
        except UnicodeDecodeError as error:
            raise ConfigurationError(
                f"config/{table}.csv is not UTF-8 ({error}); save it as that, in Excel as CSV UTF-8"
            ) from error
        columns = lines.fieldnames or []
        absent = {column for key in unique for column in key} - {*columns}
        if absent:
            raise ConfigurationError(
                f"config/{table}.csv has no column {', '.join(sorted(absent))}. Its first line "
                f"names the columns, with commas between them; it is {','.join(columns)!r}"
            )
        for number, cells in enumerate(lines, start=2):
            where = f"config/{table}.csv, line {number}"
            if None in cells or None in cells.values():
                raise ConfigurationError(
                    f"{where}: it has {'more' if None in cells else 'fewer'} cells than there are "
                    f"columns, {len(columns)}; commas within a cell need quotes around it, and "
                    f"empty cells keep their commas"
                )
            for key in unique:
                values = tuple(cells[column] for column in key)
                if (key, values) in seen:
                    raise ConfigurationError(
                        f"{where}: the {' and '.join(key)} {', '.join(map(repr, values))} again"
                    )
                seen.add((key, values))
            yield where, cells


def _typed(cell: str, kinds: str | list[str]) -> Any:
    """Return a cell as one of the types of JSON Schema."""
    if "array" in kinds:
        return cell.split(";")
    for kind, number in (("integer", int), ("number", float)):
        if kind in kinds:
            return number(cell) if cell else None
    return cell


@cache
def _validator(schema: str) -> Draft202012Validator:
    path = CONFIG / "schemas" / f"{schema}.schema.yaml"
    return Draft202012Validator(yaml.safe_load(path.read_text()))


def defaults(schema: str) -> dict[str, Any]:
    """Return what a schema says of keys that are left out."""
    definition: Any = _validator(schema).schema
    return {
        key: described["default"]
        for key, described in definition["properties"].items()
        if "default" in described
    }


def _explain(error: ValidationError) -> str:
    key = ".".join(str(part) for part in error.absolute_path) or "top level"
    schema: Any = error.schema
    allowed_values: Any = error.validator_value
    instance: Any = error.instance
    if error.validator == "additionalProperties":
        allowed = sorted(schema.get("properties", {}))
        unknown = [name for name in instance if name not in allowed]
        return f"{key}: unknown key {', '.join(map(repr, unknown))}. Allowed: {', '.join(allowed)}"
    if error.validator == "enum":
        return f"{key}: {error.instance!r}. Allowed: {', '.join(map(repr, allowed_values))}"
    if error.validator == "not":
        return f"{key}: {allowed_values['description']}"
    if error.validator == "pattern" and "description" in schema:
        return f"{key}: {error.message}. {schema['description']}"
    return f"{key}: {error.message}"
