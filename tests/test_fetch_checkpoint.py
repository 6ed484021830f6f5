"""What rule fetch_checkpoint says of weights and modules, which is what embeddings are known by."""

import json
from dataclasses import replace

from hear_mn.checkpoints import checkpoint
from workflow_scripts import fetch_checkpoint as script


def test_a_module_with_weights_of_ones_own_is_known_by_both(tmp_path, monkeypatch):
    (tmp_path / "spectrum.py").write_text("sample_rate = 16000\n")
    (tmp_path / "weights.pt").write_bytes(b"weights")
    monkeypatch.syspath_prepend(tmp_path)
    row = replace(checkpoint("mn04_as"), checkpoint="mine", source="module", module="spectrum")
    monkeypatch.setattr(script, "checkpoint_row", lambda name: row)
    found = []
    for text in ("sample_rate = 16000\n", "sample_rate = 32000\n"):
        (tmp_path / "spectrum.py").write_text(text)
        script.fetch_checkpoint("mine", str(tmp_path / "weights.pt"), tmp_path / "found.json")
        found.append(json.loads((tmp_path / "found.json").read_text()))
    assert found[0]["sha256"] == found[1]["sha256"]
    assert found[0]["version"] != found[1]["version"]
