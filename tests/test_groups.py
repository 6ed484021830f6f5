"""Which evaluations share a SLURM job."""

from workflow_scripts.hear2021.run.configuration import task_table
from workflow_scripts.hear2021.run.groups import group_of


def test_only_short_evaluations_share_a_job():
    groups = {name: group_of("mn04_as_e1_l", row) for name, row in task_table().items()}
    assert groups["gunshot_triangulation-v1.0-full"] == (
        "evaluate_mn04_as_gunshot_triangulation-v1.0-full"
    )
    assert groups["mini_vowels"] == "evaluate_mn04_as_mini_vowels"
    for long in ("esc50-v2.0.0-full", "fsd50k-v1.0-full", "dcase2016_task2-hear2021-full"):
        assert groups[long] is None, long
