"""Which evaluations share a SLURM job."""

from dataclasses import replace

import pytest

from hear_mn.variants import parse_variant
from workflow_scripts.hear2021.run.configuration import task_table
from workflow_scripts.hear2021.run.groups import group_of, is_short, members_at_most


def test_only_short_evaluations_share_a_job():
    groups = {name: group_of("mn04_as_e1_l", row) for name, row in task_table().items()}
    assert groups["gunshot_triangulation-v1.0-full"] == (
        "evaluate_mn04_as_gunshot_triangulation-v1.0-full"
    )
    assert groups["mini_vowels"] == "evaluate_mn04_as_mini_vowels"
    for long in ("esc50-v2.0.0-full", "fsd50k-v1.0-full", "dcase2016_task2-hear2021-full"):
        assert groups[long] is None, long


@pytest.mark.parametrize(
    ("changes", "short"),
    [
        ({"clips": 599}, True),
        ({"clips": 600}, False),
        ({"clips": None}, False),
        ({"clips": 599, "sample_duration": 30.0}, True),
        ({"clips": 59, "sample_duration": 100.0, "embedding_type": "event"}, True),
        ({"clips": 60, "sample_duration": 100.0, "embedding_type": "event"}, False),
        ({"clips": 99, "sample_duration": None, "embedding_type": "event", "hours": 1.6}, True),
        ({"clips": 99, "sample_duration": None, "embedding_type": "event", "hours": 1.7}, False),
        ({"clips": 99, "sample_duration": None, "embedding_type": "event", "hours": None}, False),
        ({"clips": 599, "sample_duration": 4.0, "embedding_type": "event"}, True),
    ],
)
def test_a_task_is_long_from_600_clips_on_or_as_many_times_10_seconds_of_events(changes, short):
    assert is_short(replace(task_table()["esc50-v2.0.0-full"], **changes)) == short


def test_a_job_has_as_many_evaluations_as_its_checkpoint_has_variants_up_to_a_limit():
    names = ["mn04_as_e1", "mn04_as_l", "mn04_as_mels", "mn10_as_e1"]
    variants = [parse_variant(name) for name in names]
    short, long = task_table()["mini_vowels"], task_table()["esc50-v2.0.0-full"]
    assert members_at_most("mn04_as_e1", short, variants, limit=8) == 3
    assert members_at_most("mn04_as_e1", short, variants, limit=2) == 2
    assert members_at_most("mn10_as_e1", short, variants, limit=8) == 1
    assert members_at_most("mn04_as_e1", long, variants, limit=8) == 1
