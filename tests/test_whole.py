"""A file is there whole or not at all, whoever else writes it."""

import socket

import pytest

from hear_mn.whole import name_aside, write_json_whole, write_whole


def test_a_file_that_could_not_be_written_is_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "made" / "scores.json"
    write_json_whole(path, {"test_score": 0.5})
    monkeypatch.setattr("pathlib.Path.replace", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_whole(path, b"half")
    assert path.read_text() == '{\n "test_score": 0.5\n}\n'


def test_two_processes_never_write_aside_to_one_name(tmp_path, monkeypatch):
    path = tmp_path / "scores.json"
    names = {name_aside(path)}
    monkeypatch.setattr("os.getpid", lambda: 1)
    names.add(name_aside(path))
    monkeypatch.setattr(socket, "gethostname", lambda: "another-node")
    names.add(name_aside(path))
    assert len(names) == 3
    assert {name.parent for name in names} == {tmp_path}
