"""From archive or folder to prepared task: the same bytes each time, or an error with a name."""

import gzip
import io
import json
import os
import random
import signal
import subprocess
import sys
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import soundfile
from filelock import FileLock

from tests.conftest import REPOSITORY, needs_shared
from workflow_scripts.hear2021.run.configuration import task_table
from workflow_scripts.hear2021.tasks.audio_spool import WavError, resample
from workflow_scripts.hear2021.tasks.prepare import prepare_task
from workflow_scripts.hear2021.tasks.task import Task, TaskError

TASK = "birds-v1"
SPLITS = ("train", "valid", "test")


def wav(rate: int = 16000, seed: int = 0, seconds: float = 0.1, **options: Any) -> bytes:
    file = io.BytesIO()
    channels = options.pop("channels", 1)
    sound = 0.3 * np.random.default_rng(seed).standard_normal((round(rate * seconds), channels))
    soundfile.write(file, sound, rate, **{"format": "WAV", "subtype": "PCM_16"} | options)
    return file.getvalue()


def task_files(
    rates: Iterable[int] = (16000,), clips: int = 6, **metadata: Any
) -> dict[str, bytes]:
    """The files of a small task, relative to its folder."""
    description = {
        "task_name": "birds",
        "embedding_type": "scene",
        "prediction_type": "multiclass",
        "split_mode": "trainvaltest",
        "splits": list(SPLITS),
        "sample_duration": 0.1,
        "evaluation": ["top1_acc"],
    }
    files = {
        "task_metadata.json": json.dumps(description | metadata).encode(),
        "labelvocabulary.csv": b"idx,label\n0,owl\n1,wren\n",
    }
    for split in SPLITS:
        names = [f"{index}.wav" for index in reversed(range(clips))]
        labels = {name: [["owl", "wren"][index % 2]] for index, name in enumerate(names)}
        files[f"{split}.json"] = json.dumps(labels).encode()
        for rate in rates:
            for index, name in enumerate(names):
                seed = SPLITS.index(split) * clips + index
                files[f"{rate}/{split}/{name}"] = wav(rate, seed)
    return files


def write_archive(
    path: Path,
    files: dict[str, bytes],
    root: str = f"tasks/{TASK}/",
    mode: Literal["w", "w:gz"] = "w:gz",
) -> Path:
    with tarfile.open(path, mode) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(root + name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def write_folder(path: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


def prepared_bytes(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in ("task.json", "clips.json", "audio.npy")}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "prepared"


def test_audio_at_the_target_rate_is_kept_bit_for_bit(tmp_path, out):
    files = task_files()
    task = prepare_task(write_archive(tmp_path / "a.tar.gz", files), TASK, 16000, out, 2)
    assert [clip.name for clip in task.splits["train"]] == [f"{i}.wav" for i in reversed(range(6))]
    for clip in task.clips:
        content = io.BytesIO(files[f"16000/{clip.split}/{clip.name}"])
        expected, _ = soundfile.read(content, dtype="float32")
        np.testing.assert_array_equal(task.audio(clip), expected)


def test_a_prepared_task_says_what_it_is(tmp_path, out):
    prepare_task(write_archive(tmp_path / "a.tar.gz", task_files()), TASK, 16000, out, 1)
    described = json.loads((out / "task.json").read_text())
    assert described["task"] == TASK  # the folder's name, not task_name
    assert described["metadata"]["task_name"] == "birds"
    assert described["labels"] == ["owl", "wren"]
    assert described["splits"] == {"train": 6, "valid": 6, "test": 6}
    assert (described["sample_rate"], described["seconds"]) == (16000, pytest.approx(1.8))


@pytest.mark.parametrize(
    "root", [f"tasks/{TASK}/", f"hear-2021.0.6/tasks/{TASK}/", f"{TASK}/", f"./tasks/{TASK}/"]
)
@pytest.mark.parametrize("mode", ["w:gz", "w"])
def test_all_roots_and_plain_tar_give_the_same_task(tmp_path, out, root, mode):
    files = task_files()
    archive = write_archive(tmp_path / "a.tar", files, root, mode)
    reference = prepare_task(write_folder(tmp_path / TASK, files), TASK, 32000, tmp_path / "ref", 1)
    assert prepare_task(archive, TASK, 32000, out, 1).sha256 == reference.sha256
    assert prepared_bytes(out) == prepared_bytes(tmp_path / "ref")


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("threads", [1, 3])
def test_neither_the_order_of_members_nor_threads_matter(tmp_path, out, seed, threads):
    files = task_files(rates=(44100, 48000))
    names = list(files)
    random.Random(seed).shuffle(names)
    shuffled = write_archive(tmp_path / "a.tar.gz", {name: files[name] for name in names})
    prepare_task(write_folder(tmp_path / "folder", files), TASK, 32000, tmp_path / "ref", 1)
    prepare_task(shuffled, TASK, 32000, out, threads)
    assert prepared_bytes(out) == prepared_bytes(tmp_path / "ref")


@pytest.mark.parametrize("rates", [(16000, 32000, 48000), (48000, 32000, 16000)])
def test_the_targets_own_rate_is_taken_before_a_higher_one(tmp_path, out, rates):
    several = write_archive(tmp_path / "a.tar.gz", task_files(rates))
    one = write_archive(tmp_path / "b.tar.gz", task_files((32000,)))
    expected = prepare_task(one, TASK, 32000, tmp_path / "ref", 1)
    assert prepare_task(several, TASK, 32000, out, 1).sha256 == expected.sha256


@pytest.mark.parametrize("rates", [(16000, 48000), (48000, 16000)])
def test_without_it_the_highest_rate_is_taken(tmp_path, out, rates):
    several = write_archive(tmp_path / "a.tar.gz", task_files(rates))
    one = write_archive(tmp_path / "b.tar.gz", task_files((48000,)))
    expected = prepare_task(one, TASK, 32000, tmp_path / "ref", 1)
    assert prepare_task(several, TASK, 32000, out, 1).sha256 == expected.sha256


@pytest.mark.parametrize("rate", [16000, 44100, 48000])
def test_resampling_keeps_a_tone_and_its_length(rate):
    time = np.arange(rate) / rate
    tone = np.rint(20000 * np.sin(2 * np.pi * 1000 * time)).astype(np.int16)
    resampled = resample(tone, rate, 32000)
    assert resampled.dtype == np.int16
    assert len(resampled) == 32000
    expected = 20000 * np.sin(2 * np.pi * 1000 * np.arange(32000) / 32000)
    middle = slice(1000, -1000)
    assert np.abs(resampled[middle] - expected[middle]).max() < 4


def test_resampling_clips_what_overshoots():
    square = np.where(np.arange(4410) // 49 % 2, 32767, -32768).astype(np.int16)
    resampled = resample(square, 44100, 32000)
    assert (resampled.max(), resampled.min()) == (32767, -32768)
    assert np.sign(resampled[1000]) == np.sign(
        square[round(1000 * 44100 / 32000)]
    )  # no wrap-around


def test_the_hash_follows_labels_and_audio(tmp_path):
    files = task_files()
    relabelled = files | {"test.json": files["test.json"].replace(b"owl", b"wren")}
    other = files | {"16000/test/3.wav": wav(seed=99)}
    hashes = {
        prepare_task(
            write_folder(tmp_path / str(i), each), TASK, 16000, tmp_path / f"o{i}", 1
        ).sha256
        for i, each in enumerate([files, relabelled, other])
    }
    assert len(hashes) == 3


def test_events_are_kept_in_their_order(tmp_path, out):
    events = [
        {"label": "wren", "start": 50.0, "end": 80.0},
        {"label": "owl", "start": 0, "end": 100},
    ]
    metadata = {
        "embedding_type": "event",
        "prediction_type": "multilabel",
        "evaluation": ["event_onset_200ms_fms"],
    }
    files = task_files(clips=1, **metadata)
    files["test.json"] = json.dumps({"0.wav": events}).encode()
    for split in ("train", "valid"):
        files[f"{split}.json"] = b'{"0.wav": []}'
    task = prepare_task(write_archive(tmp_path / "a.tar.gz", files), TASK, 16000, out, 1)
    assert list(task.splits["test"][0].events) == events
    assert task.splits["train"][0].events == ()


def test_unlisted_files_are_ignored_and_counted(tmp_path, out, capsys):
    files = task_files() | {"16000/train/extra.wav": wav(), "16000/train/notes.txt": b"no sound"}
    expected = prepare_task(
        write_folder(tmp_path / "f", task_files()), TASK, 16000, tmp_path / "ref", 1
    )
    task = prepare_task(write_archive(tmp_path / "a.tar.gz", files), TASK, 16000, out, 1)
    assert task.sha256 == expected.sha256
    assert (
        "18 clips, 0.00 hours, from 16000 Hz (2 unlisted files ignored)" in capsys.readouterr().out
    )


def test_a_clip_whose_audio_is_in_another_split_too_is_named(tmp_path, out):
    files = task_files()
    files["16000/test/4.wav"] = files["16000/train/1.wav"]
    files["16000/valid/3.wav"] = files["16000/valid/2.wav"]
    with pytest.warns(match=r"birds-v1: 1 of 18 clips .* test/4\.wav is train/1\.wav\. A score"):
        prepare_task(write_folder(tmp_path / "f", files), TASK, 16000, out, 1)


def test_clips_of_other_audio_or_of_one_split_are_not(tmp_path, out, recwarn):
    files = task_files()
    files["16000/valid/3.wav"] = files["16000/valid/2.wav"]
    prepare_task(write_folder(tmp_path / "f", files), TASK, 16000, out, 1)
    assert not recwarn


def refused(source: Path, out: Path, message: str, sample_rate: int = 32000) -> None:
    """Prepare `source` and check that it ends in an error, and leaves nothing."""
    with pytest.raises(TaskError, match=message):
        prepare_task(source, TASK, sample_rate, out, 2)
    assert [path.name for path in out.iterdir()] == [".lock"]


def test_a_clip_may_be_a_wav_of_a_big_endian_machine(tmp_path, out):
    files = task_files()
    expected = prepare_task(write_folder(tmp_path / "f", files), TASK, 16000, tmp_path / "ref", 1)
    files["16000/test/2.wav"] = wav(seed=15, endian="BIG")
    assert files["16000/test/2.wav"].startswith(b"RIFX")
    task = prepare_task(write_folder(tmp_path / "f", files), TASK, 16000, out, 1)
    assert task.sha256 == expected.sha256


def test_a_folder_whose_name_only_looks_like_a_number_is_ignored(tmp_path, out):
    files = task_files() | {"\u00b2/train/0.wav": wav()}
    assert prepare_task(write_folder(tmp_path / "f", files), TASK, 16000, out, 1).clips


def test_missing_clips_are_counted_and_the_first_five_named(tmp_path, out):
    files = {name: content for name, content in task_files().items() if "/valid/" not in name}
    refused(
        write_archive(tmp_path / "a.tar.gz", files),
        out,
        r"birds-v1: 6 of 18 listed clips are not in .*a\.tar\.gz: 16000/valid/5\.wav, "
        r"16000/valid/4\.wav, .*16000/valid/1\.wav, \.\.\.\. Fetch the archive again",
    )


@pytest.mark.parametrize(
    ("listed", "there", "said"),
    [
        ("k\u00e4uzchen.wav", "ka\u0308uzchen.wav", r"'train/ka\\u0308.* 'train/k\\xe4"),
        ("owl.wav", "owl.WAV", r"'train/owl\.WAV', and the list says 'train/owl\.wav'"),
    ],
)
def test_a_listed_name_that_only_looks_like_that_of_the_file_is_shown_with_it(
    tmp_path, out, listed, there, said
):
    files = task_files() | {"train.json": json.dumps({listed: ["owl"]}).encode()}
    files[f"16000/train/{there}"] = wav()
    refused(write_folder(tmp_path / "folder", files), out, f"1 of 13 listed .*There is {said}")


@pytest.mark.parametrize("name", ["task_metadata.json", "labelvocabulary.csv", "valid.json"])
def test_a_missing_description_is_named(tmp_path, out, name):
    files = task_files()
    del files[name]
    refused(write_archive(tmp_path / "a.tar.gz", files), out, f"birds-v1: {name} is missing in ")


BROKEN = {
    "has 2 channels, not 1": wav(channels=2),
    "is WAV PCM_24, not 16-bit wav": wav(subtype="PCM_24"),
    "is FLAC PCM_16, not 16-bit wav": wav(format="FLAC"),
    "is at 44100 Hz in the folder 16000/": wav(44100),
    r"is cut short: 2000 of \d+ bytes": wav()[:2000],
    r"is cut short: 1000 of \d+ bytes": wav(endian="BIG")[:1000],
    "has no samples": wav(seconds=0),
    "is no wav: Format not recognised": b"RIFF and nothing more",
    "is an empty file": b"",
}


@pytest.mark.parametrize(("message", "content"), BROKEN.items(), ids=BROKEN)
def test_an_unusable_clip_is_named_with_the_reason(tmp_path, out, message, content):
    files = task_files() | {"16000/test/2.wav": content}
    refused(
        write_archive(tmp_path / "a.tar.gz", files),
        out,
        rf"birds-v1: 1 of 18 clips in .* cannot be used: test/2\.wav \({message}",
    )


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname = kind, target
    return made


MALICIOUS = [
    member(f"tasks/{TASK}/16000/train/link.wav", tarfile.SYMTYPE, "/etc/passwd"),
    member(f"tasks/{TASK}/16000/train/link.wav", tarfile.LNKTYPE, "elsewhere"),
    member(f"tasks/{TASK}/16000/train/device.wav", tarfile.CHRTYPE),
    member(f"tasks/{TASK}/16000/train/pipe.wav", tarfile.FIFOTYPE),
    member("/etc/cron.d/task"),
    member(f"tasks/{TASK}/../../outside"),
    member("outside", tarfile.SYMTYPE, ".."),
]


@pytest.mark.parametrize("bad", MALICIOUS, ids=lambda bad: f"{bad.name}-{bad.type!r}")
def test_an_unsafe_member_is_refused_by_name(tmp_path, out, bad):
    archive = write_archive(tmp_path / "a.tar", task_files(), mode="w")
    with tarfile.open(archive, "a") as opened:
        opened.addfile(bad)
    refused(archive, out, rf"a\.tar: refusing the (link|member) '{bad.name}'.*do not use it")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_a_clip_that_is_a_link_is_refused_with_how_to_pack_the_clip_itself(tmp_path, out, kind):
    archive = write_archive(tmp_path / "a.tar", task_files(), mode="w")
    with tarfile.open(archive, "a") as opened:
        opened.addfile(member(f"tasks/{TASK}/16000/test/again.wav", kind, "0.wav"))
    refused(archive, out, r"the link .*pack the file itself \(GNU tar: --deref.* --hard-deref")


def test_a_member_that_comes_twice_is_refused(tmp_path, out):
    archive = write_archive(tmp_path / "a.tar", task_files(), mode="w")
    with tarfile.open(archive, "a") as opened:
        opened.addfile(member(f"tasks/{TASK}/test.json"))
    refused(archive, out, r"tasks/birds-v1/test\.json occurs twice")


@pytest.mark.parametrize("keep", [0.3, 0.95, 0.9999])
def test_a_cut_archive_is_refused(tmp_path, out, keep):
    archive = write_archive(tmp_path / "a.tar.gz", task_files())
    content = archive.read_bytes()
    archive.write_bytes(content[: int(len(content) * keep)])
    refused(archive, out, r"a\.tar\.gz cannot be read .* damaged or cut short: fetch or pack")


@pytest.mark.parametrize("position", [0.5, 1.0])
def test_a_corrupt_archive_is_refused(tmp_path, out, position):
    archive = write_archive(tmp_path / "a.tar.gz", task_files())
    content = bytearray(archive.read_bytes())
    for offset in range(4):  # the checksum's own bytes at the very end, or some in the middle
        content[int((len(content) - 8) * position) + offset] ^= 0xFF
    archive.write_bytes(content)
    refused(archive, out, r"a\.tar\.gz cannot be read .* damaged or cut short")


def test_what_is_no_archive_is_refused(tmp_path, out):
    (tmp_path / "page.tar.gz").write_bytes(b"<html>not found</html>" * 100)
    refused(tmp_path / "page.tar.gz", out, "cannot be read as a tar or tar.gz archive")
    (tmp_path / "zipped.tar.gz").write_bytes(gzip.compress(b"not a tar" * 1000))
    refused(tmp_path / "zipped.tar.gz", out, "cannot be read as a tar or tar.gz archive")
    refused(tmp_path / "absent.tar.gz", out, "no such archive or folder: .*absent")
    (tmp_path / "task.zip").write_bytes(b"PK\x03\x04 and more")
    refused(tmp_path / "task.zip", out, r"task\.zip is a zip archive; pack the task as tar or tar")


def test_a_task_without_folders_of_sample_rates_is_told_where_its_clips_belong(tmp_path, out):
    files = {name.removeprefix("16000/"): content for name, content in task_files().items()}
    refused(write_folder(tmp_path / "birds", files), out, r"has no audio.* <sample rate>/<split>/")


def test_a_byte_order_mark_before_a_json_is_no_mistake(tmp_path, out):
    files = task_files()
    files["train.json"] = b"\xef\xbb\xbf" + files["train.json"]
    assert prepare_task(write_folder(tmp_path / "birds", files), TASK, 16000, out, 1).clips


def test_the_archive_of_another_task_is_refused(tmp_path, out):
    archive = write_archive(tmp_path / "a.tar.gz", task_files(), root="tasks/fish-v1/")
    refused(archive, out, "holds no birds-v1/ .*Is it the archive of another task")
    (tmp_path / "folder").mkdir()
    refused(tmp_path / "folder", out, r"is no folder of a task: it has no task_metadata\.json")


def test_a_second_writer_is_refused(tmp_path, out):
    archive = write_archive(tmp_path / "a.tar.gz", task_files())
    out.mkdir()
    with FileLock(out / ".lock"):
        refused(archive, out, "another process is preparing birds-v1")


def test_what_a_killed_run_left_is_cleared_away(tmp_path, out):
    archive = write_archive(tmp_path / "a.tar.gz", task_files())
    program = (
        "import os, signal, sys; from pathlib import Path\n"
        "from workflow_scripts.hear2021.tasks import prepare\n"
        "prepare._write = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"prepare.prepare_task(Path(sys.argv[1]), {TASK!r}, 32000, Path(sys.argv[2]), 1)\n"
    )
    command = [sys.executable, "-c", program, str(archive), str(out)]
    killed = subprocess.run(
        command, cwd=REPOSITORY, stderr=subprocess.DEVNULL, env=os.environ, check=False
    )
    assert killed.returncode == -signal.SIGKILL
    assert (out / ".partial" / "arrival.int16").stat().st_size > 0
    with pytest.raises(TaskError, match="no prepared task"):
        Task.load(out)
    prepare_task(archive, TASK, 32000, out, 1)
    assert {path.name for path in out.iterdir()} == {
        ".lock",
        "audio.npy",
        "clips.json",
        "task.json",
    }


def test_a_folder_may_have_its_audio_elsewhere_behind_a_link(tmp_path, out):
    folder = write_folder(tmp_path / "birds", task_files())
    prepare_task(folder, TASK, 16000, out, 1)
    (audio,) = folder.rglob("16000")
    (elsewhere := tmp_path / "elsewhere").mkdir()
    audio.rename(elsewhere / "16000")
    audio.symlink_to(elsewhere / "16000")
    prepare_task(folder, TASK, 16000, tmp_path / "linked", 1)
    assert prepared_bytes(out) == prepared_bytes(tmp_path / "linked")


def test_a_clip_of_which_resampling_leaves_nothing_is_refused():
    with pytest.raises(WavError, match="has 1 samples at 48000 Hz and none at 16000 Hz"):
        resample(np.ones(1, dtype=np.int16), 48000, 16000)


def test_a_folder_of_another_task_than_the_table_describes_is_refused(tmp_path, out):
    folder = write_folder(tmp_path / "birds", task_files())
    row = task_table()["fsd50k-v1.0-full"]
    with pytest.raises(TaskError, match=r"scene, multiclass, top1_acc.* scene, multilabel, mAP"):
        prepare_task(folder, row.task, 16000, out, 1, row)
    assert not (out / "task.json").exists()


def test_preparing_again_replaces_the_task(tmp_path, out):
    first = prepare_task(write_folder(tmp_path / "a", task_files()), TASK, 16000, out, 1)
    second = prepare_task(write_folder(tmp_path / "b", task_files(clips=4)), TASK, 16000, out, 1)
    assert first.sha256 != second.sha256
    assert len(Task.load(out).clips) == 12


REAL = [
    ("hear-2021.0.6-spoken_digit-1.0.9-small-44100.tar.gz", 100),
    ("hear2021-spoken_digit-1.0.9-full-16000.tar.gz", 3000),
]


@needs_shared
@pytest.mark.parametrize(("archive", "clips"), REAL, ids=["small", "full"])
def test_a_real_archive_gives_the_same_task_as_its_folder(shared, tmp_path, archive, clips):
    source = shared / "real" / "archives" / archive
    name = next(name for name, row in task_table().items() if row.archive == archive)
    task = prepare_task(source, name, 32000, tmp_path / "prepared", 2, task_table()[name])
    assert len(task.clips) == clips == task_table()[name].clips
    assert {clip.n_samples for clip in task.clips} == {32000}
    assert task.labels == [str(digit) for digit in range(10)]
    assert list(task.splits) == [f"fold0{index}" for index in range(5)]
    with tarfile.open(source) as opened:
        opened.extractall(tmp_path / "unpacked")
    folder = next(path.parent for path in (tmp_path / "unpacked").rglob("task_metadata.json"))
    prepare_task(folder, name, 32000, tmp_path / "folder", 1)
    assert prepared_bytes(tmp_path / "folder") == prepared_bytes(tmp_path / "prepared")
