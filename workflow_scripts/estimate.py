"""Rule estimate: what a run will download, keep on disk and compute."""

from hear_mn.variants import parse_variant
from workflow_scripts.command_line import command_line
from workflow_scripts.hear2021.run.configuration import task_table
from workflow_scripts.hear2021.run.estimate import as_text, assumed, estimate_run


def estimate(
    variants: list[str],
    tasks: list[str],
    grid_points: int,
    seeds: int,
    evaluation_device: str,
    local_tasks: list[str],
    local_weights: list[str],
) -> None:
    """Print the estimate of a run as a table.

    Args:
        variants: the variants of the run.
        tasks: its task directories.
        grid_points: its grid points.
        seeds: its seeds.
        evaluation_device: where it evaluates tasks that are not short.
        local_tasks: those whose archive or folder the config names.
        local_weights: the checkpoints whose weights the config names.
    """
    rows = [task_table()[name] for name in tasks]
    parsed = [parse_variant(name) for name in variants]
    estimates = estimate_run(
        parsed,
        rows,
        grid_points=grid_points,
        seeds=seeds,
        evaluation_device=evaluation_device,
        local_tasks=local_tasks,
        local_weights=local_weights,
    )
    print(as_text(estimates) + assumed(rows))


if __name__ == "__main__":
    command_line(estimate)
