"""Rule claims: what the scores of a run say, in words."""

import csv
from pathlib import Path

from hear_mn.whole import write_whole
from workflow_scripts.command_line import command_line
from workflow_scripts.hear2021.report.claims import write_claims
from workflow_scripts.hear2021.report.comparison import Comparison
from workflow_scripts.hear2021.report.published import read_published
from workflow_scripts.hear2021.report.reported_tasks import reported_tasks
from workflow_scripts.hear2021.report.score_table import Missing, read_score_table
from workflow_scripts.hear2021.run.configuration import task_table


def claims(tasks: list[str], notice: str, scores: Path, missing: Path, text: Path) -> None:
    """Write claims.md.

    Args:
        tasks: the task directories of the run.
        notice: what the reader must know first; nothing if empty.
        scores: the scores.csv that `aggregate` wrote.
        missing: the missing.csv that `aggregate` wrote.
        text: the file to write.
    """
    published = read_published()
    rows = reported_tasks(task_table()[name] for name in tasks)
    comparison = Comparison(read_score_table(scores), rows, published)
    with missing.open(newline="") as table:
        without_score = [Missing(**row) for row in csv.DictReader(table)]
    sentences = write_claims(comparison, published.references, without_score, notice)
    write_whole(text, sentences.encode())


if __name__ == "__main__":
    command_line(claims)
