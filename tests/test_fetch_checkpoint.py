"""What rule fetch_checkpoint says of weights and modules, which is what embeddings are known by."""

import json
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from hear_mn.checkpoints import CheckpointError, checkpoint
from workflow_scripts import fetch_checkpoint as script
from workflow_scripts.embed import embed
from workflow_scripts.fetch_task import fetch_task
from workflow_scripts.hear2021.tasks.task import TaskError
from workflow_scripts.prepare_task import prepare_task


def of_module(module, monkeypatch):
    """Have every checkpoint be a module's."""
    row = replace(checkpoint("mn04_as"), checkpoint="mine", source="module", module=module)
    monkeypatch.setattr(script, "checkpoint_row", lambda name: row)


def test_a_module_with_weights_of_ones_own_is_known_by_both(tmp_path, monkeypatch):
    (tmp_path / "spectrum.py").write_text("sample_rate = 16000\n")
    (tmp_path / "weights.pt").write_bytes(b"weights")
    monkeypatch.syspath_prepend(tmp_path)
    of_module("spectrum", monkeypatch)
    found = []
    for text in ("sample_rate = 16000\n", "sample_rate = 32000\n"):
        (tmp_path / "spectrum.py").write_text(text)
        script.fetch_checkpoint("mine", str(tmp_path / "weights.pt"), tmp_path / "found.json")
        found.append(json.loads((tmp_path / "found.json").read_text()))
    assert found[0]["sha256"] == found[1]["sha256"]
    assert found[0]["code"] != found[1]["code"]


def test_of_a_package_of_ones_own_every_file_counts(tmp_path, monkeypatch):
    package = tmp_path / "spectra"
    (package / "models").mkdir(parents=True)
    for file in ("__init__.py", "models/__init__.py", "models/hear.py", "models/layers.py"):
        (package / file).write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    of_module("spectra.models.hear", monkeypatch)
    found = []
    for text in ("", "width = 2\n", ""):
        (package / "models/layers.py").write_text(text)
        script.fetch_checkpoint("mine", "", tmp_path / "found.json")
        found.append(json.loads((tmp_path / "found.json").read_text())["code"])
    assert found[0] == found[2] != found[1]


def test_a_module_whose_own_imports_are_missing_names_them(tmp_path, monkeypatch):
    (tmp_path / "filters").mkdir()
    (tmp_path / "filters/__init__.py").write_text("import not_installed.deeply\n")
    (tmp_path / "filters/hear.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    of_module("filters.hear", monkeypatch)
    with pytest.raises(CheckpointError, match=r"its module filters\.hear needs not_installed"):
        script.fetch_checkpoint("mine", "", tmp_path / "found.json")


def test_a_job_that_does_not_see_a_fetched_file_names_its_machine_and_what_to_do(tmp_path):
    record = tmp_path / "fetched.json"
    record.write_text(json.dumps({"path": "/elsewhere/fetched", "sha256": None}))
    nothing = Path("unused")
    said = f"{socket.gethostname()} has no /elsewhere/fetched, of which {record} says where it is"
    with pytest.raises(CheckpointError, match=f"^mn04_as: {said}"):
        embed("mn04_as", record, nothing, "e1", "half", 1, nothing, nothing, nothing)
    with pytest.raises(TaskError, match=f"^mini_hum: {said}"):
        prepare_task("mini_hum", record, 32000, 1, nothing)


def test_files_in_a_clone_are_found_when_it_moves(tmp_path, monkeypatch):
    clone, moved = tmp_path / "clone", tmp_path / "moved"
    clone.mkdir()
    (clone / "weights.pt").write_bytes(b"weights")
    (clone / "task.tar.gz").write_bytes(b"task")
    monkeypatch.chdir(clone)
    script.fetch_checkpoint("mn04_as", "weights.pt", Path("weights.json"))
    fetch_task("mini_hum", "", [Path("task.tar.gz")], Path("task.json"))
    clone.rename(moved)
    monkeypatch.chdir(moved)
    for record in ("weights.json", "task.json"):
        assert Path(json.loads(Path(record).read_text())["path"]).is_file()
