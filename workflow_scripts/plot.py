"""Rule plot: one figure of config/figures.csv."""

from pathlib import Path

from hear_mn.checkpoints import checkpoint
from hear_mn.variants import parse_variant
from workflow_scripts.command_line import command_line
from workflow_scripts.hear2021.report.comparison import Comparison
from workflow_scripts.hear2021.report.figure_table import figure_table
from workflow_scripts.hear2021.report.figures import Complexity, draw, save
from workflow_scripts.hear2021.report.published import PublishedSystem, read_published
from workflow_scripts.hear2021.report.reported_tasks import reported_tasks
from workflow_scripts.hear2021.report.score_table import read_score_table
from workflow_scripts.hear2021.run.configuration import task_table


def plot(figure: str, tasks: list[str], notice: str, scores: Path, png: Path, svg: Path) -> None:
    """Draw one figure.

    Args:
        figure: its row of config/figures.csv.
        tasks: the task directories of the run.
        notice: a line that the figure carries under its title; none if empty.
        scores: the scores.csv that `aggregate` wrote.
        png: the figure as PNG.
        svg: the figure as SVG.
    """
    published = read_published()
    rows = reported_tasks(task_table()[name] for name in tasks)
    comparison = Comparison(read_score_table(scores), rows, published)
    complexities = {
        **{name: _published(system) for name, system in published.systems.items()},
        **{model: _complexity(parse_variant(model).checkpoint) for model in comparison.own},
    }
    save(draw(figure_table()[figure], comparison, complexities, notice), png, svg)


def _complexity(name: str) -> Complexity:
    row = checkpoint(name)
    return Complexity(parameters=row.parameters, macs=row.macs_10s)


def _published(system: PublishedSystem) -> Complexity:
    if system.checkpoint:
        return _complexity(system.checkpoint)
    return Complexity(parameters=system.parameters, macs=None)


if __name__ == "__main__":
    command_line(plot)
