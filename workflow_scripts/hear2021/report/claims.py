"""What the numbers say, in sentences that are written from them and from nothing else."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from workflow_scripts.hear2021.report.comparison import Comparison, Mean
from workflow_scripts.hear2021.report.reported_tasks import ReportedTask
from workflow_scripts.hear2021.report.score_table import OWN, PUBLISHED, Missing

RULES = """\
- A score is normalised by the best score of the HEAR 2021 challenge on its task (the rows of the
  leaderboard dated "HEAR 2021"), or by 1, the best possible value, on a task that has no column
  there. A missing score stays missing: means leave it out and say how many tasks they count.
- A task is comparable with a reference if both have a score there and the reference's is not 0.
  A 0 is taken for a run that failed, not for a measurement. A 0 of the model itself counts.
- A win or a loss is a difference greater than what the published numbers may be off by.
- A new best is a score above every score of the challenge.
"""


@dataclass
class Duel:
    """A model against a reference, task by task: names of tasks, and why some are left out."""

    wins: list[str] = field(default_factory=list)
    losses: list[str] = field(default_factory=list)
    draws: list[str] = field(default_factory=list)
    not_comparable: dict[str, str] = field(default_factory=dict)

    @property
    def comparable(self) -> int:
        """The number of tasks that were compared."""
        return len(self.wins) + len(self.losses) + len(self.draws)


def duel(comparison: Comparison, model: str, reference: str) -> Duel:
    """Compare a model with a reference by the rules in `RULES`."""
    result = Duel()
    for task in comparison.tasks:
        ours, theirs = comparison.cell(model, task), comparison.cell(reference, task)
        reason = _not_comparable(comparison, model, reference, task)
        if reason:
            result.not_comparable[task.name] = reason
            continue
        difference = ours["normalised"] - theirs["normalised"]
        tolerance = ours["tolerance"] + theirs["tolerance"]
        if difference > tolerance:
            result.wins.append(task.name)
        elif difference < -tolerance:
            result.losses.append(task.name)
        else:
            result.draws.append(task.name)
    return result


def _not_comparable(
    comparison: Comparison, model: str, reference: str, task: ReportedTask
) -> str | None:
    if math.isnan(comparison.cell(model, task)["normalised"]):
        return f"{comparison.label(model)} has no score"
    score = comparison.cell(reference, task)["normalised"]
    if math.isnan(score):
        return f"{comparison.label(reference)} has no score"
    return f"{comparison.label(reference)} scored 0" if score == 0 else None


def new_bests(comparison: Comparison, model: str) -> list[str]:
    """Return the tasks on which a model is above every submission of the challenge."""
    return [
        task.name
        for task in comparison.tasks
        if task.leaderboard_column
        and (cell := comparison.cell(model, task))["normalised"] > 1 + cell["tolerance"]
    ]


def write_claims(
    comparison: Comparison, references: Sequence[str], missing: Sequence[Missing], notice: str
) -> str:
    """Return claims.md for the models of the run; without any, for the published variants.

    Args:
        comparison: the scores.
        references: the published systems that every model is compared with.
        missing: the pairs of the run that have no score.
        notice: what the reader must know first, such as that the audio is synthetic.
    """
    variants = [
        model
        for model in comparison.published_scores
        if comparison.published.systems[model].group == "variant"
    ]
    models = comparison.own or variants
    shown = [name for name in references if name in comparison.published_scores]
    lines = ["# What the scores say", ""]
    if notice:
        lines += [f"**{notice}**", ""]
    lines += [RULES]
    lines += _means(comparison, [*models, *shown])
    for model in models:
        said = _bests(comparison, model)
        for reference in shown:
            said += _against(comparison, model, reference)
        said += _reproduced(comparison, model)
        if said:
            lines += [f"## {comparison.label(model)}", "", *said]
    lines += _left_out(comparison, models, references, missing)
    return "\n".join(lines).rstrip() + "\n"


def _means(comparison: Comparison, models: Sequence[str]) -> list[str]:
    categories = comparison.categories
    boxes = [
        model
        for model, _ in comparison.models_and_origins()
        if comparison.mean(model).basis == "box plots" and model not in models
    ]
    table = [
        "## Means",
        "",
        "Mean normalised score in percent, and tasks counted where they are not all.",
        "",
        f"| model | {' | '.join(categories)} | all |",
        f"|---|{'---:|' * (len(categories) + 1)}",
    ]
    for model in [*models, *boxes]:
        means = [comparison.mean(model, name) for name in [*categories, None]]
        note = " (from box plots)" if model in boxes else ""
        cells = " | ".join(_percent(mean) for mean in means)
        table.append(f"| {comparison.label(model)}{note} | {cells} |")
    if boxes:
        table += [
            "",
            "From box plots: the scores were not published; the mean of 5 or 7 scores follows from "
            "the quartiles and extremes of their box.",
        ]
    return [*table, ""]


def _percent(mean: Mean) -> str:
    if not mean.tasks:
        return "n/a"
    count = "" if mean.tasks == mean.of else f" ({mean.tasks} of {mean.of})"
    return f"{100 * mean.mean:.2f}{count}"


def _bests(comparison: Comparison, model: str) -> list[str]:
    on_leaderboard = [task for task in comparison.tasks if task.leaderboard_column]
    if not on_leaderboard:
        return []
    bests = new_bests(comparison, model)
    number = "no task" if not bests else _count(len(bests), "task")
    named = f": {', '.join(bests)}" if bests else ""
    return [f"Above the best of the challenge on {number}{named}.", ""]


def _against(comparison: Comparison, model: str, reference: str) -> list[str]:
    result = duel(comparison, model, reference)
    label = comparison.label(reference)
    lines = [
        f"Better than {label} on {len(result.wins)} of {_count(result.comparable, 'task')} "
        f"that can be compared.",
        "",
    ]
    for title, names in (
        ("Better", result.wins),
        ("Worse", result.losses),
        ("Within what the numbers may be off by", result.draws),
    ):
        if names:
            lines.append(f"- {title}: {', '.join(names)}.")
    reasons: dict[str, list[str]] = {}
    for task, reason in result.not_comparable.items():
        reasons.setdefault(reason, []).append(task)
    lines += [f"- Not compared: {', '.join(names)} ({why})." for why, names in reasons.items()]
    return [*lines, ""]


def _reproduced(comparison: Comparison, model: str) -> list[str]:
    """Compare a model of the run with the published numbers of the same variant."""
    if comparison.origin(model) != OWN or model not in comparison.published_scores:
        return []
    differences = {}
    for task in comparison.tasks:
        ours = comparison.cell(model, task)["normalised"]
        theirs = comparison.cell(model, task, PUBLISHED)["normalised"]
        if not math.isnan(ours - theirs):
            differences[task.name] = ours - theirs
    if not differences:
        return []
    name, largest = max(differences.items(), key=lambda item: abs(item[1]))
    mean = sum(differences.values()) / len(differences)
    return [
        f"Against the published run of the same variant: {100 * mean:+.2f} points of normalised "
        f"score on average over {_count(len(differences), 'task')}, at most {100 * largest:+.2f} "
        f"({name}).",
        "",
    ]


def _left_out(
    comparison: Comparison,
    models: Sequence[str],
    references: Sequence[str],
    missing: Sequence[Missing],
) -> list[str]:
    lines = [f"- {pair.model} on {pair.task}: {pair.reason.removesuffix('.')}." for pair in missing]
    absent = [name for name in references if name not in comparison.published_scores]
    if absent:
        labels = ", ".join(comparison.label(name) for name in absent)
        lines.append(f"- {labels}: no published score on any of these tasks.")
    if not comparison.own:
        for system in comparison.published.systems.values():
            basis = comparison.mean(system.model).basis
            if system.group != "system" and basis in {"box plots", "published mean"}:
                known = {"box plots": "box plots", "published mean": "its mean over all tasks"}
                lines.append(
                    f"- {system.model}: only {known[basis]} published, no score of a task."
                )
    for model in [*models, *(name for name in references if name not in absent)]:
        note = comparison.published.systems[model].note if _is_published(comparison, model) else ""
        if note:
            lines.append(f"- {comparison.label(model)}: {note}.")
    return ["## What was not compared, and remarks", "", *lines, ""] if lines else []


def _is_published(comparison: Comparison, model: str) -> bool:
    return comparison.origin(model) == PUBLISHED


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
