"""config/figures.csv: which figures there are, of which models, and what their captions say."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

from hear_mn.variants import UnknownVariant, parse_variant
from workflow_scripts.hear2021.run.config_tables import ConfigurationError, table_lines, table_rows

EVERY_OWN_MODEL = "own"  # among the models of a row


@dataclass(frozen=True)
class FigureRow:
    """One row of config/figures.csv."""

    figure: str
    plot: str
    models: tuple[str, ...]
    scores: str
    title: str
    caption: str

    @property
    def own_alone(self) -> bool:
        """Whether it shows the run's models alone, without published systems."""
        return self.scores == "own"


@cache
def figure_table() -> dict[str, FigureRow]:
    """Return config/figures.csv by figure.

    Raises:
        ConfigurationError: naming the line, the column and what is allowed there.
    """
    figures: dict[str, FigureRow] = {}
    for where, row in table_rows("figures", "figure"):
        for model in row["models"]:
            _refuse_unknown(model, where)
        figures[row["figure"]] = FigureRow(**{**row, "models": tuple(row["models"])})
    return figures


def figures_of_run(variants: Iterable[str], leaderboard_tasks: bool) -> list[str]:
    """Return the figures of a run: with published systems only if its tasks are HEAR 2021's.

    One that names a variant which this run does not have is another run's.
    """
    return [name for name, row in _rows_of(variants).items() if leaderboard_tasks or row.own_alone]


def published_figures() -> list[str]:
    """Return the figures that published scores alone can fill."""
    return [name for name, row in _rows_of([]).items() if not row.own_alone]


def _rows_of(variants: Iterable[str]) -> dict[str, FigureRow]:
    """Return the rows that name no variant but these and the published ones."""
    known = {EVERY_OWN_MODEL, *variants, *published_systems()}
    return {name: row for name, row in figure_table().items() if known.issuperset(row.models)}


@cache
def published_systems() -> list[str]:
    """Return the models of config/published_systems.csv."""
    return [cells["model"] for _, cells in table_lines("published_systems", "model")]


def _refuse_unknown(model: str, where: str) -> None:
    if model == EVERY_OWN_MODEL or model in published_systems():
        return
    named = f"{where}: models: {model!r}"
    try:
        name = parse_variant(model).name
    except UnknownVariant as error:
        raise ConfigurationError(
            f"{named} is neither 'own' nor a row of config/published_systems.csv nor a variant "
            f"({error})"
        ) from error
    if name != model:
        raise ConfigurationError(f"{named} is called {name} in tables and figures")
