"""Checkpoints: the table, where files come from, and what is said about wrong ones."""

import csv
import hashlib
import json
import re

import pytest
import torch

import hear_mn.download
from hear_mn import checkpoints
from hear_mn.checkpoints import (
    CheckpointError,
    UnknownCheckpoint,
    checkpoint,
    expected_shapes,
    load_state_dict,
    locate,
)
from hear_mn.seeded import write_seeded
from tests.conftest import needs_shared


@pytest.fixture
def seeded(tmp_path):
    """The seeded weights file, in a folder of its own."""
    return locate("mn04_seeded", tmp_path / "cache")


@needs_shared
def test_every_released_mobilenet_has_a_row_with_what_is_known_of_it(shared):
    with (shared / "facts/weights.csv").open(newline="") as table:
        known = {re.sub(r"\((\d)\)$", r"_\1", row["name"]): row for row in csv.DictReader(table)}
    released = {name: row for name, row in known.items() if row["family"] == "mn"}
    ours = {name: row for name, row in checkpoints.checkpoints().items() if row.url}
    assert ours.keys() == released.keys()
    columns = {
        **{name: name for name in ("url", "file", "sha256", "git_blob_sha1")},
        **{name: name for name in ("n_mels", "win_length", "n_fft", "sample_rate")},
        "size": "size_bytes",
        "width": "width_mult",
        "head": "head_type",
        "hop": "hop_samples",
        "mAP": "mAP_from_filename",
        "parameters": "params_computed",
        "macs_10s": "MACs_computed_10s",
    }
    for name, row in ours.items():
        for column, fact in columns.items():
            value = getattr(row, column)
            expected = released[name][fact] or None
            assert value == (type(value)(expected) if expected else None), (name, column)
        assert ",".join(map(str, row.strides)) == released[name]["strides"]


def test_a_row_has_typed_values_and_none_where_a_cell_is_empty():
    row = checkpoint("mn10_as_fc_s2221")
    assert (row.width, row.n_mels, row.hop, row.sample_rate) == (1.0, 128, 320, 32000)
    assert row.strides == (2, 2, 2, 1)
    assert row.sha256 is None
    assert checkpoint("mn04_as").size == 4066513
    assert checkpoint("passt_base").module == "hear21passt.base"
    assert not checkpoint("passt_base").feature_sizes


def test_the_front_end_tells_checkpoints_apart_that_share_a_network():
    names = ["mn10_as", "mn10_as_hop_20", "mn10_as_mels_64", "mn10_as_fc"]
    front_ends = [json.dumps(checkpoint(name).front_end) for name in names]
    assert front_ends[0] == front_ends[3]
    assert len(set(front_ends)) == 3


def test_an_unknown_checkpoint_is_refused_with_what_exists():
    with pytest.raises(UnknownCheckpoint, match=r"Did you mean .*mn04_as.*\nCheckpoints: mn01_as"):
        checkpoint("mn04as")


def test_the_cache_is_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("HEAR_MN_CACHE", str(tmp_path))
    assert locate("mn04_seeded") == tmp_path / "mn04_seeded.pt"


def test_a_released_checkpoint_is_fetched_with_its_size_and_hashes(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(
        hear_mn.download, "fetch", lambda *args, **checks: asked.append((args, checks)) or args[1]
    )
    row = checkpoint("mn04_as")
    assert locate("mn04_as", tmp_path) == tmp_path / row.file
    checks = {"size": row.size, "sha256": row.sha256, "git_blob_sha1": row.git_blob_sha1}
    assert asked == [((row.url, tmp_path / row.file), checks)]


def test_a_module_has_no_file(tmp_path):
    with pytest.raises(CheckpointError, match=r"hear21passt\.base finds its own weights"):
        locate("passt_base", tmp_path)


def test_seeded_weights_are_the_same_bytes_every_time(seeded, tmp_path):
    write_seeded(checkpoint("mn04_seeded"), tmp_path / "again.pt")
    first, again = (
        hashlib.sha256(path.read_bytes()).digest() for path in (seeded, tmp_path / "again.pt")
    )
    assert first == again
    assert [path.name for path in seeded.parent.iterdir()] == ["mn04_seeded.pt"]


def test_seeded_weights_load(seeded):
    state = load_state_dict(seeded, checkpoint("mn04_seeded"))
    assert set(state) == set(expected_shapes(checkpoint("mn04_seeded")))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"mn04_as: there is no weights file .*none\.pt"):
        load_state_dict(tmp_path / "none.pt", checkpoint("mn04_as"))


def test_weights_of_another_width_are_refused_with_the_checkpoint_they_fit(seeded):
    with pytest.raises(CheckpointError) as error:
        load_state_dict(seeded, checkpoint("mn10_as"))
    message = str(error.value)
    assert "features.0.0.weight is (8, 1, 3, 3), expected (16, 1, 3, 3)" in message
    assert "They fit mn04_as, mn04_im, mn04_seeded." in message


def test_weights_of_no_known_network_are_refused(seeded, tmp_path):
    state = torch.load(seeded, weights_only=True)
    del state["classifier.5.bias"]
    state["head.bias"] = torch.zeros(3)
    torch.save(state, tmp_path / "odd.pt")
    with pytest.raises(CheckpointError) as error:
        load_state_dict(tmp_path / "odd.pt", checkpoint("mn04_as"))
    assert "classifier.5.bias is missing; head.bias is not known" in str(error.value)
    assert "They fit no known checkpoint" in str(error.value)


@pytest.mark.parametrize(
    "content", [b"", b"not weights", b"PK\x03\x04 cut off", b"root:x:0:0:root:/root\n"]
)
def test_a_file_that_is_no_checkpoint_is_refused(tmp_path, content):
    path = tmp_path / "broken.pt"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="not a file that"):
        load_state_dict(path, checkpoint("mn04_as"))


@pytest.mark.parametrize(
    ("content", "holds"),
    [
        (torch.zeros(3), "Tensor"),
        ({"epoch": 3, "model": {"a": torch.zeros(3)}}, "a dict of epoch, model"),
    ],
)
def test_a_file_without_a_state_dict_is_refused_with_what_it_holds(tmp_path, content, holds):
    path = tmp_path / "other.pt"
    torch.save(content, path)
    with pytest.raises(CheckpointError, match=f"holds {holds} and no dictionary of tensors"):
        load_state_dict(path, checkpoint("mn04_as"))


def test_a_damaged_file_is_refused(seeded):
    seeded.write_bytes(seeded.read_bytes()[:1_000_000])
    with pytest.raises(CheckpointError, match="damaged"):
        load_state_dict(seeded, checkpoint("mn04_seeded"))


def test_every_file_in_the_cache_has_a_name_of_its_own():
    files = [row.file for row in checkpoints.checkpoints().values() if row.file]
    assert len(files) == len(set(files))
