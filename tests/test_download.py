"""Downloads from a server on the loopback that misbehaves in the ways servers do."""

import hashlib
import json
import multiprocessing
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
from filelock import FileLock

from hear_mn import download
from hear_mn.download import DownloadError, fetch
from tests.conftest import needs_shared
from workflow_scripts.hear2021.run.configuration import task_table
from workflow_scripts.hear2021.run.fingerprints import fingerprint, module_fingerprint
from workflow_scripts.hear2021.tasks.sources import SourceError, local_source, published_source
from workflow_scripts.hear2021.tasks.zenodo import zenodo_listing

CONTENT = bytes(range(256)) * 2000  # 512000 bytes: several chunks
SHA256 = hashlib.sha256(CONTENT).hexdigest()
MD5 = hashlib.md5(CONTENT).hexdigest()
BLOB = hashlib.sha1(b"blob %d\0" % len(CONTENT) + CONTENT).hexdigest()


@dataclass
class Behaviour:
    """What the server does; `cuts` and `refusals` are used up, one a request."""

    files: dict[str, bytes] = field(default_factory=dict)
    cuts: list[int] = field(default_factory=list)
    refusals: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    ranges: bool = True
    etag: str | None = '"1"'
    declared_length: int | None = None
    says_length: bool = True
    pause: float = 0.0
    requests: Counter[str] = field(default_factory=Counter)
    asked_ranges: list[str | None] = field(default_factory=list)
    sent: int = 0


class Handler(BaseHTTPRequestHandler):
    """Serves `behaviour.files` the way `behaviour` says."""

    behaviour: Behaviour

    def do_GET(self) -> None:
        behaviour = self.behaviour
        behaviour.requests[self.path] += 1
        asked = self.headers.get("Range")
        behaviour.asked_ranges.append(asked)
        if behaviour.refusals:
            status, headers = behaviour.refusals.pop(0)
            return self._head(status, {"Content-Length": "0", **headers})
        if self.path not in behaviour.files:
            return self._head(404, {"Content-Length": "0"})
        content, status, headers = behaviour.files[self.path], 200, {}
        same = self.headers.get("If-Range", behaviour.etag) == behaviour.etag
        if asked and behaviour.ranges and same:
            start = int(asked.removeprefix("bytes=").rstrip("-"))
            if start >= len(content):
                return self._head(416, {"Content-Length": "0"})
            status = 206
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            content = content[start:]
        if behaviour.etag:
            headers["ETag"] = behaviour.etag
        if behaviour.says_length:
            headers["Content-Length"] = str(behaviour.declared_length or len(content))
        self._head(status, headers)
        time.sleep(behaviour.pause)
        if behaviour.cuts:
            content = content[: behaviour.cuts.pop(0)]
        behaviour.sent += len(content)
        self.wfile.write(content)
        return None

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[tuple[str, Behaviour]]:
    behaviour = Behaviour(files={"/file": CONTENT})
    handler = type("BoundHandler", (Handler,), {"behaviour": behaviour})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}", behaviour
        running.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def _quick_and_direct(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "BACKOFF_SECONDS", 0.01)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "file"


def left_beside(target: Path) -> set[str]:
    return {path.name for path in target.parent.iterdir()} - {"file.lock"}


def test_a_file_arrives_whole_and_is_then_asked_of_nobody(server, target):
    url, behaviour = server
    for _ in range(2):
        assert fetch(f"{url}/file", target, size=len(CONTENT), sha256=SHA256, md5=MD5) == target
    assert target.read_bytes() == CONTENT
    assert behaviour.requests["/file"] == 1
    assert left_beside(target) == {"file", "file.verified.json"}


def test_a_file_put_there_by_hand_is_checked_and_nothing_is_asked(target):
    target.parent.mkdir()
    target.write_bytes(CONTENT)
    fetch("http://127.0.0.1:9/nobody", target, git_blob_sha1=BLOB)
    assert json.loads((target.parent / "file.verified.json").read_text())["sha256"] == SHA256


def test_a_verified_file_is_not_hashed_again(server, target, monkeypatch):
    url, _ = server
    fetch(f"{url}/file", target, md5=MD5)
    monkeypatch.setattr(download, "file_hashes", lambda *_: pytest.fail("hashed again"))
    fetch(f"{url}/file", target, md5=MD5)


def test_a_verified_file_that_changed_since_is_refused(server, target):
    url, behaviour = server
    fetch(f"{url}/file", target, sha256=SHA256)
    target.write_bytes(b"x" * len(CONTENT))
    with pytest.raises(DownloadError, match=r"not the file expected.*sha256.*Delete it"):
        fetch(f"{url}/file", target, sha256=SHA256)
    assert behaviour.requests["/file"] == 1


def test_a_cut_download_resumes(server, target):
    url, behaviour = server
    behaviour.cuts = [200_000, 100_000]
    fetch(f"{url}/file", target, sha256=SHA256)
    assert target.read_bytes() == CONTENT
    first, second, third = behaviour.asked_ranges
    assert (first, bool(second), bool(third)) == (None, True, True)
    assert behaviour.sent < len(CONTENT) + 3 * download.CHUNK


def test_a_killed_download_is_taken_up_by_the_next_call(server, target):
    url, behaviour = server
    behaviour.cuts = [200_000]
    fork = multiprocessing.get_context("fork")
    killed = fork.Process(target=_fetch_and_be_killed, args=(f"{url}/file", target))
    killed.start()
    killed.join(20)
    assert killed.exitcode == -signal.SIGKILL
    assert not target.exists()
    assert target.with_name("file.part").stat().st_size > 0
    fetch(f"{url}/file", target)  # the server's ETag tells that the rest is of the same file
    assert target.read_bytes() == CONTENT
    assert behaviour.asked_ranges[1] is not None


def _fetch_and_be_killed(url: str, target: Path) -> None:
    download.time.sleep = lambda _: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[assignment]
    fetch(url, target)


def test_a_file_that_changed_during_a_break_is_fetched_from_the_start(server, target):
    url, behaviour = server
    target.parent.mkdir()
    target.with_name("file.part").write_bytes(b"of another file")
    target.with_name("file.part.json").write_text('{"url": "", "validator": "\\"0\\""}')
    fetch(f"{url}/file", target)
    assert target.read_bytes() == CONTENT
    assert behaviour.asked_ranges == ["bytes=15-"]


def test_without_hash_and_etag_a_cut_download_starts_again(server, target):
    url, behaviour = server
    behaviour.etag, behaviour.cuts = None, [200_000]
    fetch(f"{url}/file", target)
    assert target.read_bytes() == CONTENT
    assert behaviour.asked_ranges == [None, None]


def test_leftovers_of_another_file_are_thrown_away_once_the_hash_tells(server, target):
    url, behaviour = server
    behaviour.etag = None
    target.parent.mkdir()
    target.with_name("file.part").write_bytes(b"of another file")
    fetch(f"{url}/file", target, sha256=SHA256)
    assert target.read_bytes() == CONTENT
    assert behaviour.asked_ranges == ["bytes=15-", None]


def test_leftovers_longer_than_the_file_are_thrown_away(server, target):
    url, behaviour = server
    target.parent.mkdir()
    target.with_name("file.part").write_bytes(CONTENT + b"more")
    fetch(f"{url}/file", target, md5=MD5)
    assert target.read_bytes() == CONTENT
    assert behaviour.asked_ranges == [f"bytes={len(CONTENT) + 4}-", None]


def test_a_server_without_ranges_starts_again(server, target):
    url, behaviour = server
    behaviour.ranges, behaviour.cuts = False, [200_000]
    fetch(f"{url}/file", target, sha256=SHA256)
    assert target.read_bytes() == CONTENT
    assert behaviour.requests["/file"] == 2


def test_a_server_that_always_cuts_ends_in_an_error_and_keeps_what_came(server, target):
    url, behaviour = server
    behaviour.ranges, behaviour.cuts = False, [200_000] * 20
    with pytest.raises(DownloadError, match=r"(?s)broke off.*Run again later.*put it at"):
        fetch(f"{url}/file", target, sha256=SHA256)
    assert not target.exists()
    assert target.with_name("file.part").exists()


@pytest.mark.parametrize("cut", [[], [100_000]])
def test_wrong_bytes_never_look_done(server, target, cut):
    url, behaviour = server
    behaviour.files["/file"], behaviour.cuts = b"y" * len(CONTENT), cut
    with pytest.raises(
        DownloadError, match=rf"not the file expected: its sha256 is .* not {SHA256}"
    ):
        fetch(f"{url}/file", target, size=len(CONTENT), sha256=SHA256)
    assert left_beside(target) == set()


def test_a_wrong_length_is_refused_before_the_transfer(server, target):
    url, behaviour = server
    behaviour.files["/file"] = CONTENT[:-1]
    with pytest.raises(DownloadError, match=r"511999 bytes on the server, not 512000.*Check the U"):
        fetch(f"{url}/file", target, size=len(CONTENT))
    assert left_beside(target) == set()


def test_a_server_that_promises_more_than_it_sends_ends_in_an_error(server, target):
    url, behaviour = server
    behaviour.declared_length = len(CONTENT) + 10
    with pytest.raises(DownloadError, match="Run again later"):
        fetch(f"{url}/file", target)
    assert not target.exists()


def test_a_file_of_unknown_length_and_hash_is_refused(server, target):
    url, behaviour = server
    behaviour.says_length = False
    with pytest.raises(DownloadError, match=r"a cut could not be told.*Put the file at"):
        fetch(f"{url}/file", target)
    fetch(f"{url}/file", target, md5=MD5)
    assert target.read_bytes() == CONTENT


def test_a_missing_file_is_a_final_error(server, target):
    url, behaviour = server
    with pytest.raises(DownloadError, match=r"answered 404 Not Found\. Check the URL.*put it at"):
        fetch(f"{url}/absent", target)
    assert behaviour.requests["/absent"] == 1
    assert left_beside(target) == set()


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_server_is_asked_again_when_it_says(server, target, status):
    url, behaviour = server
    behaviour.refusals = [(status, {"Retry-After": "1"})]
    started = time.monotonic()
    fetch(f"{url}/file", target, sha256=SHA256)
    assert target.read_bytes() == CONTENT
    assert time.monotonic() - started >= 1


def test_a_server_that_stays_busy_ends_in_an_error(server, target):
    url, behaviour = server
    behaviour.refusals = [(503, {})] * 20
    with pytest.raises(DownloadError, match="Run again later"):
        fetch(f"{url}/file", target, sha256=SHA256)
    assert behaviour.requests["/file"] == 1 + download.ATTEMPTS


def test_no_server_at_all_ends_in_an_error(target):
    with pytest.raises(DownloadError, match=r"Without internet here.*put it at"):
        fetch("http://127.0.0.1:9/nobody", target)


def test_the_first_hash_seen_is_held_to(server, target):
    url, behaviour = server
    fetch(f"{url}/file", target)
    target.unlink()
    behaviour.files["/file"] = CONTENT[::-1]
    with pytest.raises(DownloadError, match=r"first seen \(recorded in .*file\.verified\.json\)"):
        fetch(f"{url}/file", target)
    assert not target.exists()
    (target.parent / "file.verified.json").unlink()
    fetch(f"{url}/file", target)
    assert target.read_bytes() == CONTENT[::-1]


def test_without_a_hash_the_file_of_another_url_is_another_file(server, target):
    url, behaviour = server
    behaviour.files["/tuned"] = CONTENT[::-1]
    fetch(f"{url}/file", target)
    fetch(f"{url}/tuned", target)
    assert target.read_bytes() == CONTENT[::-1]
    fetch(f"{url}/tuned", target)
    assert behaviour.requests["/tuned"] == 1


def test_a_full_disk_is_named_before_the_transfer(server, target, monkeypatch):
    url, _ = server
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(download.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(DownloadError, match=r"needs 0\.001 GB more .*set another cache folder"):
        fetch(f"{url}/file", target)
    assert left_beside(target) == set()


def test_many_processes_fetch_once(server, target):
    url, behaviour = server
    behaviour.pause = 0.3
    fork = multiprocessing.get_context("fork")
    processes = [
        fork.Process(target=fetch, args=(f"{url}/file", target), kwargs={"sha256": SHA256})
        for _ in range(4)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(30)
    assert [process.exitcode for process in processes] == [0, 0, 0, 0]
    assert behaviour.requests["/file"] == 1
    assert target.read_bytes() == CONTENT


def test_the_lock_of_a_killed_process_holds_nobody_up(server, target):
    url, _ = server
    target.parent.mkdir()
    fork = multiprocessing.get_context("fork")
    here, there = fork.Pipe()
    holder = fork.Process(target=_hold_lock, args=(target.with_name("file.lock"), there))
    holder.start()
    assert here.recv() == "locked"
    holder.kill()
    holder.join(20)
    started = time.monotonic()
    fetch(f"{url}/file", target, sha256=SHA256)
    assert time.monotonic() - started < 5


def _hold_lock(lock: Path, pipe: Connection) -> None:
    FileLock(lock).acquire()
    pipe.send("locked")
    time.sleep(60)


RECORD = {
    "files": [
        {"key": "hear2021-esc50-v2.0.0-full-48000.tar.gz", "size": 3, "checksum": "md5:abc"},
        {"key": "hear2021-maestro-v3.0.0-5h-48000.tar.gz", "size": 5, "checksum": "md5:def"},
    ]
}


def test_a_zenodo_record_is_asked_once_for_its_files(server, tmp_path):
    url, behaviour = server
    behaviour.files["/api/records/6332517"] = json.dumps(RECORD).encode()
    for _ in range(2):
        listing = zenodo_listing("6332517", tmp_path, base=url)
    esc50 = listing["hear2021-esc50-v2.0.0-full-48000.tar.gz"]
    assert (esc50.size, esc50.md5) == (3, "abc")
    assert len(listing) == 2
    assert behaviour.requests["/api/records/6332517"] == 1


@pytest.mark.parametrize("answer", [b"<html>maintenance</html>", b'{"files": [{"key": "x"}]}'])
def test_what_is_no_record_is_not_kept(server, tmp_path, answer):
    url, behaviour = server
    behaviour.files["/api/records/6332517"] = answer
    with pytest.raises(DownloadError, match="did not answer with what is expected"):
        zenodo_listing("6332517", tmp_path, base=url)
    assert not list(tmp_path.glob("*.json"))


@needs_shared
@pytest.mark.parametrize(
    "path",
    [
        "archives/hear-2021.0.6-spoken_digit-1.0.9-small-44100.tar.gz",
        "weights/mn04_as_mAP_432.pt",
    ],
)
def test_real_files_arrive_through_cuts_and_refusals(server, target, shared, path):
    url, behaviour = server
    content = (shared / "real" / path).read_bytes()
    behaviour.files["/real"] = content
    behaviour.cuts = [len(content) // 3, len(content) // 3]
    behaviour.refusals = [(503, {"Retry-After": "0"})]
    fetch(f"{url}/real", target, size=len(content), sha256=hashlib.sha256(content).hexdigest())
    assert target.read_bytes() == content


def test_a_bar_shows_how_far_a_transfer_is(server, target, capfd):
    url, _ = server
    fetch(f"{url}/file", target)
    assert "file: 100%" in capfd.readouterr().err


def test_a_task_comes_from_its_record_with_the_md5_of_the_listing(server, tmp_path):
    url, behaviour = server
    row = task_table()["esc50-v2.0.0-full"]
    listed = {"key": row.archive, "size": len(CONTENT), "checksum": f"md5:{MD5}"}
    behaviour.files["/api/records/6332517"] = json.dumps({"files": [listed]}).encode()
    behaviour.files[f"/records/6332517/files/{row.archive}"] = CONTENT
    for _ in range(2):
        found = published_source(row, tmp_path, zenodo=url)
    path = str(tmp_path / row.archive)
    assert found == {"path": path, "kind": "archive", "size": len(CONTENT), "md5": MD5}
    assert set(behaviour.requests.values()) == {1}


def test_a_task_that_its_record_does_not_list_is_an_error(server, tmp_path):
    url, behaviour = server
    behaviour.files["/api/records/6332517"] = json.dumps(RECORD).encode()
    with pytest.raises(DownloadError, match=r"6332517 has no hear2021-fsd50k.*correct url in conf"):
        published_source(task_table()["fsd50k-v1.0-full"], tmp_path, zenodo=url)


def test_a_record_that_cannot_be_reached_leaves_ones_own_archive(tmp_path):
    with pytest.raises(DownloadError, match=r"could not be asked.*task_sources: \{esc50-v2"):
        published_source(task_table()["esc50-v2.0.0-full"], tmp_path, zenodo="http://127.0.0.1:9")


def test_a_task_without_a_published_archive_asks_for_ones_own(tmp_path):
    with pytest.raises(SourceError, match=r"task_sources: \{spoken_digit-1\.0\.9-full: /path/to/"):
        published_source(task_table()["spoken_digit-1.0.9-full"], tmp_path)
    with pytest.raises(SourceError, match=r"no such archive or folder: .*correct task_sources"):
        local_source(tmp_path / "absent")


def test_the_fingerprint_of_a_file_follows_its_size_and_ends(tmp_path):
    file = tmp_path / "archive.tar.gz"
    content = bytearray(4 << 20)
    prints = set()
    for position in (None, 0, -1):
        if position is not None:
            content[position] ^= 1
        file.write_bytes(content)
        prints.add(fingerprint(file))
    file.write_bytes(content + b"0")
    prints.add(fingerprint(file))
    assert len(prints) == 4


@pytest.mark.parametrize("start", [b"\x1f\x8b", b"PK\x03\x04"], ids=["gzip", "zip"])
def test_a_touched_file_with_a_checksum_keeps_its_fingerprint(tmp_path, start):
    file = tmp_path / "archive"
    file.write_bytes(start + bytes(4 << 20))
    before = fingerprint(file)
    os.utime(file, (0, 0))
    assert fingerprint(file) == before


def test_a_large_file_without_a_checksum_is_another_one_after_a_change_in_its_middle(tmp_path):
    file = tmp_path / "archive.tar"
    content = bytearray(4 << 20)
    prints = set()
    for changed in (0, 1):
        content[2 << 20] = changed
        file.write_bytes(content)
        os.utime(file, (changed, changed))
        prints.add(fingerprint(file))
    assert len(prints) == 2
    file.write_bytes(content[:100])
    before = fingerprint(file)
    os.utime(file, (0, 0))
    assert fingerprint(file) == before


def test_the_fingerprint_of_a_folder_follows_its_files(tmp_path):
    (tmp_path / "train.json").write_text("{}")
    first = fingerprint(tmp_path)
    (tmp_path / "train.json").write_text("[]")
    second = fingerprint(tmp_path)
    (tmp_path / "a.wav").write_bytes(b"1")
    third = fingerprint(tmp_path)
    (tmp_path / "labelvocabulary.csv").write_text("idx,label\n0,60\n1,72\n")
    fourth = fingerprint(tmp_path)
    (tmp_path / "labelvocabulary.csv").write_text("idx,label\n0,72\n1,60\n")
    assert len({first, second, third, fourth, fingerprint(tmp_path)}) == 5
    assert local_source(tmp_path)["kind"] == "folder"


def test_the_fingerprint_of_a_folder_follows_linked_folders(tmp_path):
    task, audio = tmp_path / "task", tmp_path / "audio"
    task.mkdir()
    audio.mkdir()
    (task / "16000").symlink_to(audio)
    before = fingerprint(task)
    (audio / "a.wav").write_bytes(b"1")
    assert fingerprint(task) != before


def test_files_that_editors_leave_in_a_package_do_not_count_for_its_fingerprint(
    tmp_path, monkeypatch
):
    package = tmp_path / "edited_package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    before = module_fingerprint("edited_package.model")
    (package / ".#model.py").symlink_to("me@host.123:456")  # Emacs, while the file is edited
    (package / ".ipynb_checkpoints").mkdir()
    (package / ".ipynb_checkpoints" / "model-checkpoint.py").write_text("a = 1")
    assert module_fingerprint("edited_package.model") == before
    (package / "model.py").write_text("a = 1")
    assert module_fingerprint("edited_package.model") != before


def test_a_folder_with_a_name_that_is_not_utf_8_has_a_fingerprint(tmp_path):
    before = fingerprint(tmp_path)
    Path(tmp_path, os.fsdecode(b"caf\xe9.wav")).write_bytes(b"1")
    assert fingerprint(tmp_path) != before
