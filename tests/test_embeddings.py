"""A pass over a task: what it writes, what it survives, what it refuses."""

import itertools
import json
import os
import threading
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from filelock import FileLock, Timeout

from hear_mn.audio import AudioError
from hear_mn.checkpoints import checkpoint
from workflow_scripts import embed as script
from workflow_scripts.embed import near_audio
from workflow_scripts.hear2021.embedding import (
    device_pipeline,
    row_file,
)
from workflow_scripts.hear2021.embedding import (
    embed_task as embed_task_module,
)
from workflow_scripts.hear2021.embedding.embed_task import embed_task
from workflow_scripts.hear2021.embedding.embedded_task import (
    EmbeddedTask,
    EmbeddingError,
    clips_by_length,
)
from workflow_scripts.hear2021.run import only_writer
from workflow_scripts.hear2021.tasks.task import Clip, Task

RATE = 32_000
IDENTITY = {"weights_sha256": "w", "task_sha256": "t"}


def make_task(lengths: dict[str, list[int]], embedding_type: str = "scene") -> Task:
    splits: dict[str, list[Clip]] = {}
    start = 0
    for split, samples in lengths.items():
        splits[split] = []
        for number, n_samples in enumerate(samples):
            splits[split].append(Clip(split, f"{number}.wav", start, n_samples, labels=("a",)))
            start += n_samples
    audio = np.random.default_rng(0).integers(-3000, 3000, start, dtype=np.int16)
    metadata = {"embedding_type": embedding_type, "prediction_type": "multiclass"}
    return Task("a_task", metadata, ["a"], splits, RATE, "t", audio)


class SumsOfSamples:
    """An embedder whose values can be checked by hand; it counts its calls."""

    sample_rate = RATE
    device = torch.device("cpu")
    scene_size = timestamp_size = 3

    def __init__(self, fail_at_call: int | None = None) -> None:
        self.feature_sizes = self.timestamp_feature_sizes = {"logits": 2, "e1": 1}
        self.calls = 0
        self.fail_at_call = fail_at_call

    def alike(self, n_samples: int) -> int:
        return n_samples

    def scene(self, audio: torch.Tensor, *, lengths: Sequence[int] | None = None) -> torch.Tensor:
        self.calls += 1
        if self.calls == self.fail_at_call:
            raise KeyboardInterrupt
        mean, peak = audio.mean(dim=1, keepdim=True), audio.abs().amax(dim=1, keepdim=True)
        return torch.cat([mean, 2 * mean, peak], dim=1)

    def timestamps(self, audio: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        frames = audio.unfold(1, 1600, 1600)
        mean, peak = frames.mean(dim=2), frames.abs().amax(dim=2)
        times = 50.0 * torch.arange(frames.shape[1]).expand(len(audio), -1)
        return torch.stack([mean, 2 * mean, peak], dim=-1), times


def run(task: Task, embedder: SumsOfSamples, folder: Path, identity=IDENTITY) -> dict:
    return embed_task(task, embedder, folder / "l-e1.npy", folder / "l-e1.json", identity)


def expected(task: Task, split: str) -> np.ndarray:
    rows = []
    for clip in task.splits[split]:
        audio = task.audio(clip)
        rows.append([np.abs(audio).max(), audio.mean(), 2 * audio.mean()])
    return np.array(rows, dtype=np.float32)


MIXED = {"fold00": [3200, 1600, 3200], "fold01": [1600, 4800]}


def test_rows_come_back_by_split_in_clip_order_and_features_in_the_order_asked_for(tmp_path):
    task = make_task(MIXED)
    run(task, SumsOfSamples(), tmp_path)
    embedded = EmbeddedTask(task, [tmp_path / "l-e1.json"], ["e1", "logits"])
    assert embedded.size == 3
    for split in MIXED:
        np.testing.assert_allclose(embedded.rows(split), expected(task, split), rtol=1e-5)


def test_clips_of_a_length_are_embedded_together(tmp_path):
    embedder = SumsOfSamples()
    run(make_task(MIXED), embedder, tmp_path)
    assert embedder.calls == 3


def test_timestamps_of_a_clip_stay_together_and_keep_their_times(tmp_path):
    task = make_task(MIXED, "event")
    run(task, SumsOfSamples(), tmp_path)
    embedded = EmbeddedTask(task, [tmp_path / "l-e1.json"], ["e1"])
    times = embedded.times_ms("fold00")
    assert [list(clip) for clip in times] == [[0, 50], [0], [0, 50]]
    peaks = [np.abs(task.audio(clip)[:1600]).max() for clip in task.splits["fold00"]]
    np.testing.assert_allclose(embedded.rows("fold00")[[0, 2, 3], 0], peaks, rtol=1e-6)


def test_a_feature_may_be_joined_from_a_second_pass(tmp_path):
    task = make_task(MIXED)
    run(task, SumsOfSamples(), tmp_path)
    other = SumsOfSamples()
    other.feature_sizes = {"mels": 1}
    other.scene = lambda audio: audio[:, :1]  # type: ignore[method-assign]
    embed_task(task, other, tmp_path / "mels.npy", tmp_path / "mels.json", IDENTITY)
    manifests = [tmp_path / "l-e1.json", tmp_path / "mels.json"]
    joined = EmbeddedTask(task, manifests, ["logits", "e1", "mels", "e1"]).rows("fold01")
    first_samples = [task.audio(clip)[0] for clip in task.splits["fold01"]]
    np.testing.assert_allclose(joined[:, 3], first_samples)
    np.testing.assert_array_equal(joined[:, 2], joined[:, 4])


def test_a_killed_pass_goes_on_where_it_was_saved_and_gives_the_same_files(tmp_path, monkeypatch):
    monkeypatch.setattr(embed_task_module, "SECONDS_BETWEEN_SAVES", 0.0)
    monkeypatch.setattr(
        device_pipeline, "CPU_FEED", replace(device_pipeline.CPU_FEED, batch_clips=1)
    )
    task = make_task(MIXED)
    with pytest.raises(KeyboardInterrupt):
        run(task, SumsOfSamples(fail_at_call=4), tmp_path)
    assert not (tmp_path / "l-e1.npy").exists()
    assert not (tmp_path / "l-e1.json").exists()
    embedder = SumsOfSamples()
    assert run(task, embedder, tmp_path)["resumed_at_clip"] == 3
    assert embedder.calls == 2

    whole = tmp_path / "whole"
    run(task, SumsOfSamples(), whole)
    for name in ("l-e1.npy", "l-e1.json"):
        assert (tmp_path / name).read_bytes() == (whole / name).read_bytes()
    assert not list(tmp_path.glob(".*"))


def test_what_a_killed_pass_saved_for_other_weights_is_not_used(tmp_path, monkeypatch):
    monkeypatch.setattr(embed_task_module, "SECONDS_BETWEEN_SAVES", 0.0)
    task = make_task(MIXED)
    with pytest.raises(KeyboardInterrupt):
        run(task, SumsOfSamples(fail_at_call=2), tmp_path)
    performance = run(task, SumsOfSamples(), tmp_path, IDENTITY | {"weights_sha256": "other"})
    assert performance["resumed_at_clip"] == 0


def test_progress_that_a_crash_left_unreadable_is_none(tmp_path, monkeypatch):
    monkeypatch.setattr(embed_task_module, "SECONDS_BETWEEN_SAVES", 0.0)
    task = make_task(MIXED)
    with pytest.raises(KeyboardInterrupt):
        run(task, SumsOfSamples(fail_at_call=2), tmp_path)
    (saved,) = tmp_path.glob(".*.part.json")
    saved.write_text("")
    assert run(task, SumsOfSamples(), tmp_path)["resumed_at_clip"] == 0


def test_what_a_pass_saved_is_not_used_with_the_rows_of_a_later_one(tmp_path, monkeypatch):
    monkeypatch.setattr(embed_task_module, "SECONDS_BETWEEN_SAVES", 0.0)
    task = make_task(MIXED)
    with pytest.raises(KeyboardInterrupt):
        run(task, SumsOfSamples(fail_at_call=3), tmp_path)
    monkeypatch.setattr(embed_task_module, "SECONDS_BETWEEN_SAVES", 30.0)
    with pytest.raises(KeyboardInterrupt):  # before it has saved anything
        run(task, SumsOfSamples(fail_at_call=2), tmp_path, IDENTITY | {"weights_sha256": "other"})
    assert run(task, SumsOfSamples(), tmp_path)["resumed_at_clip"] == 0
    rows = EmbeddedTask(task, [tmp_path / "l-e1.json"], ["e1", "logits"]).rows("fold00")
    np.testing.assert_allclose(rows, expected(task, "fold00"), rtol=1e-5)


@pytest.mark.parametrize("kept", [0, 100, -1], ids=["nothing", "no header", "no last byte"])
def test_a_pass_of_whose_saved_rows_some_are_gone_begins_again(tmp_path, monkeypatch, kept):
    monkeypatch.setattr(embed_task_module, "SECONDS_BETWEEN_SAVES", 0.0)
    task = make_task(MIXED)
    with pytest.raises(KeyboardInterrupt):
        run(task, SumsOfSamples(fail_at_call=3), tmp_path)
    (part,) = tmp_path.glob(".*.part")
    part.write_bytes(part.read_bytes()[:kept])
    assert run(task, SumsOfSamples(), tmp_path)["resumed_at_clip"] == 0
    run(task, SumsOfSamples(), tmp_path / "whole")
    assert (tmp_path / "l-e1.npy").read_bytes() == (tmp_path / "whole/l-e1.npy").read_bytes()


def test_a_manifest_tells_other_rows_whatever_is_known_of_them(tmp_path):
    task, other = make_task(MIXED), SumsOfSamples()
    other.scene = lambda audio: audio[:, :3]  # type: ignore[method-assign]
    contents = []
    for embedder in (SumsOfSamples(), SumsOfSamples(), other):
        run(task, embedder, tmp_path)
        contents.append((tmp_path / "l-e1.json").read_bytes())
    assert contents[0] == contents[1] != contents[2]


def test_a_pass_that_ends_early_does_not_wait_for_what_is_read_ahead(monkeypatch):
    # Where the collector ends it, another thread may be starting; a thread's end waits for that.
    task, calls, released = make_task(MIXED), itertools.count(), threading.Event()
    read = Task.read

    def slow(task, clips, out):
        read(task, clips, out)
        if next(calls):
            released.wait(20)

    monkeypatch.setattr(Task, "read", slow)
    monkeypatch.setattr(
        device_pipeline, "CPU_FEED", replace(device_pipeline.CPU_FEED, batch_clips=1)
    )
    pieces = device_pipeline._read_ahead(task, clips_by_length(task), SumsOfSamples())
    next(pieces)
    before = time.monotonic()
    pieces.close()
    released.set()
    assert time.monotonic() - before < 10


def test_a_slow_disk_is_written_to_while_the_next_batches_are_computed(tmp_path, monkeypatch):
    happened = []

    def slow(file):
        time.sleep(0.3)
        happened.append("on the disk")

    class Tells(SumsOfSamples):
        def scene(self, audio, *, lengths=None):
            happened.append("computed")
            return super().scene(audio)

    monkeypatch.setattr(row_file.os, "fdatasync", slow)
    monkeypatch.setattr(row_file, "SYNC_BYTES", 1)
    monkeypatch.setattr(
        device_pipeline, "CPU_FEED", replace(device_pipeline.CPU_FEED, batch_clips=1)
    )
    task = make_task({"fold00": [1600] * 4})
    run(task, Tells(), tmp_path)
    # The disk takes the first rows while the second ones go to the file, and no later ones do
    # before it has them: the third ones wait, with one batch more computed.
    assert happened == [
        *("computed", "computed", "computed", "on the disk"),
        *("computed", "on the disk", "on the disk", "on the disk"),
    ]


def test_rows_go_to_the_file_while_the_disk_takes_those_before_them(tmp_path, monkeypatch):
    taken, on_the_disk = threading.Event(), threading.Event()

    def slow(file):
        taken.set()
        assert on_the_disk.wait(10)

    class TellsDisk:
        def __init__(self):
            self.written = 0

        def write(self, rows):
            self.written += 1
            if self.written == 2:
                assert taken.wait(10)
                on_the_disk.set()

        def flush(self):
            pass

        def fileno(self):
            return -1

    monkeypatch.setattr(row_file.os, "fdatasync", slow)
    monkeypatch.setattr(row_file, "SYNC_BYTES", 1)
    file = TellsDisk()
    with row_file.RowWriter(file) as writer:
        writer.write(np.zeros((1, 1), np.float32))
        writer.write(np.zeros((1, 1), np.float32))
        writer.finish()
    assert file.written == 2


@pytest.mark.parametrize("fails_at", [1, 2])
def test_rows_that_a_disk_does_not_take_end_a_pass_though_they_are_the_last(
    tmp_path, monkeypatch, fails_at
):
    calls = itertools.count(1)
    write = row_file.RowWriter._write

    def late(writer, rows):  # so that the pass ends before its last rows go to the disk
        time.sleep(0.05)
        write(writer, rows)

    def full(file):
        if next(calls) == fails_at:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(row_file.RowWriter, "_write", late)
    monkeypatch.setattr(row_file.os, "fdatasync", full)
    monkeypatch.setattr(row_file, "SYNC_BYTES", 1)
    monkeypatch.setattr(
        device_pipeline, "CPU_FEED", replace(device_pipeline.CPU_FEED, batch_clips=1)
    )
    with pytest.raises(OSError, match="No space left"):
        run(make_task({"fold00": [1600] * 2}), SumsOfSamples(), tmp_path)
    assert not (tmp_path / "l-e1.npy").exists()


def test_a_full_disk_ends_a_pass(tmp_path, monkeypatch):
    def full(file):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(row_file.os, "fdatasync", full)
    monkeypatch.setattr(row_file, "SYNC_BYTES", 1)
    with pytest.raises(OSError, match="No space left"):
        run(make_task(MIXED), SumsOfSamples(), tmp_path)
    assert not (tmp_path / "l-e1.npy").exists()


def test_two_writers_of_one_file_are_refused(tmp_path):
    with (
        FileLock(tmp_path / ".l-e1.npy.lock"),
        pytest.raises(EmbeddingError, match=r"another process is writing .*scancel"),
    ):
        run(make_task(MIXED), SumsOfSamples(), tmp_path)


def test_a_pass_that_ends_leaves_the_lock_of_the_next_writer(tmp_path, monkeypatch):
    path = tmp_path / ".l-e1.npy.lock"
    next_writer = FileLock(path)

    class HandedOn(FileLock):
        def __exit__(self, *exception):
            super().__exit__(*exception)
            next_writer.acquire(timeout=0)

    monkeypatch.setattr(only_writer, "FileLock", HandedOn)
    run(make_task(MIXED), SumsOfSamples(), tmp_path)
    with next_writer, pytest.raises(Timeout):
        FileLock(path).acquire(timeout=0)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_value_that_is_not_finite_is_refused_naming_clip_and_feature(tmp_path, value):
    embedder = SumsOfSamples()
    wrong = torch.tensor([[1.0, 1.0, value]])
    embedder.scene = lambda audio: wrong.expand(len(audio), 3)  # type: ignore[method-assign]
    with pytest.raises(EmbeddingError, match=r"a_task: the feature e1 of clip fold00/1\.wav"):
        run(make_task(MIXED), embedder, tmp_path)
    assert not (tmp_path / "l-e1.npy").exists()


def test_scenes_of_other_lengths_that_are_alike_are_one_batch_with_their_lengths(tmp_path):
    seen = []

    class Alike(SumsOfSamples):
        def alike(self, n_samples):
            return 0

        def scene(self, audio, *, lengths=None):
            seen.append((len(audio), lengths))
            for row, length in zip(audio, lengths, strict=True):
                assert row[length - 1] != 0
                assert not row[length:].any()
            return super().scene(audio)

    task = make_task(MIXED)
    run(task, Alike(), tmp_path)
    assert seen == [(5, sorted(clip.n_samples for clip in task.clips))]


def test_a_clip_that_cannot_be_embedded_is_named(tmp_path):
    def refuse(audio):
        raise AudioError("audio has 320 samples, too short for one frame")

    embedder = SumsOfSamples()
    embedder.scene = refuse  # type: ignore[method-assign]
    with pytest.raises(
        EmbeddingError,
        match=r"clip fold00/1\.wav and 1 clips of about its length: audio has 320 samples",
    ):
        run(make_task(MIXED), embedder, tmp_path)


def test_a_task_at_another_sample_rate_is_refused(tmp_path):
    embedder = SumsOfSamples()
    embedder.sample_rate = 16_000
    with pytest.raises(EmbeddingError, match="a_task is at 32000 Hz, the model wants 16000 Hz"):
        run(make_task(MIXED), embedder, tmp_path)


def test_embeddings_of_other_task_data_are_refused(tmp_path):
    task = make_task(MIXED)
    run(task, SumsOfSamples(), tmp_path, IDENTITY | {"task_sha256": "older"})
    with pytest.raises(EmbeddingError, match="made from other data than a_task is now"):
        EmbeddedTask(task, [tmp_path / "l-e1.json"], ["e1"])


def test_a_matrix_of_the_wrong_length_is_refused(tmp_path):
    task = make_task(MIXED)
    run(task, SumsOfSamples(), tmp_path)
    manifest = json.loads((tmp_path / "l-e1.json").read_text())
    (tmp_path / "l-e1.json").write_text(json.dumps(manifest | {"rows": 4}))
    with pytest.raises(EmbeddingError, match=r"has 5 rows, its \.json says 4"):
        EmbeddedTask(task, [tmp_path / "l-e1.json"], ["e1"])


def test_embeddings_with_fewer_rows_than_the_task_has_clips_are_refused(tmp_path):
    task = make_task(MIXED)
    run(task, SumsOfSamples(), tmp_path)
    manifest = json.loads((tmp_path / "l-e1.json").read_text())
    (tmp_path / "l-e1.json").write_text(json.dumps(manifest | {"rows": 4}))
    np.save(tmp_path / "l-e1.npy", np.load(tmp_path / "l-e1.npy")[:4])
    with pytest.raises(EmbeddingError, match="do not have 5 rows"):
        EmbeddedTask(task, [tmp_path / "l-e1.json"], ["e1"])


def test_a_feature_that_no_file_holds_is_named(tmp_path):
    task = make_task(MIXED)
    run(task, SumsOfSamples(), tmp_path)
    with pytest.raises(EmbeddingError, match="hold no mels"):
        EmbeddedTask(task, [tmp_path / "l-e1.json"], ["e1", "mels"])


def test_rows_come_from_a_gpu_when_it_has_its_next_batch(monkeypatch):
    happened = []

    class Event:
        def record(self):
            pass

        def synchronize(self):
            happened.append("waited")

    def computed():
        for i in range(3):
            happened.append(f"computed {i}")
            yield [i], torch.full((2, 3), float(i))

    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda shape, pin_memory, **of: empty(shape, **of))
    monkeypatch.setattr(torch.cuda, "Event", lambda blocking: Event())
    for batch, rows, finite in device_pipeline._on_host(computed(), torch.device("cuda")):
        happened.append(f"written {batch[0]}")
        assert rows.unique().tolist() == batch
        assert finite is True
    assert happened == [
        *("computed 0", "computed 1", "waited", "written 0"),
        *("computed 2", "waited", "written 1", "waited", "written 2"),
    ]


def test_rows_come_from_a_gpu_to_the_cpu_though_a_module_has_set_torchs_default_device(monkeypatch):
    with torch.device("meta"):
        assert torch.empty(1).is_meta  # torch remembers, before it is patched, what makes tensors
    nothing = SimpleNamespace(record=lambda: None, synchronize=lambda: None)
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda shape, pin_memory, **of: empty(shape, **of))
    monkeypatch.setattr(torch.cuda, "Event", lambda blocking: nothing)
    computed = [(make_task(MIXED).clips[:1], torch.ones(1, 3))]
    with torch.device("meta"):
        ((_, rows, finite),) = device_pipeline._on_host(computed, torch.device("cuda"))
    assert finite
    assert rows.tolist() == [[1.0, 1.0, 1.0]]


def test_a_gpu_is_sent_its_next_audio_before_it_computes_on_what_it_has(monkeypatch):
    happened = []
    audio = torch.arange(24, dtype=torch.int16).reshape(6, 4)
    computing = SimpleNamespace(wait_event=lambda event: happened.append("waits for it"))
    copy = torch.Tensor.copy_

    def new_empty(self, *shape, device):
        return torch.empty(*shape, dtype=self.dtype)

    def copy_(self, source, non_blocking):
        assert non_blocking
        happened.append(f"sent clip {source[0, 0] // 4}")
        return copy(self, source)

    def record_stream(self, stream):
        assert stream is computing

    monkeypatch.setattr(torch.Tensor, "new_empty", new_empty)
    monkeypatch.setattr(torch.Tensor, "copy_", copy_)
    monkeypatch.setattr(torch.Tensor, "record_stream", record_stream)
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: "uploads")
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: computing)
    monkeypatch.setattr(torch.cuda, "Event", lambda: SimpleNamespace(record=lambda: None))

    def pieces():
        task = make_task({"fold00": [4] * 6})
        for first, last in ((0, 3), (3, 5), (5, 6)):
            batch = task.clips[first:last]
            for one in range(first, last):
                yield device_pipeline.Piece(batch, one - first, audio[one : one + 1])

    for batch, sent in device_pipeline._on_device(pieces(), torch.device("cuda")):
        names = [int(clip.name.removesuffix(".wav")) for clip in batch]
        assert torch.equal(sent, audio[names])
        happened.append(f"computes clips {names}")
    assert happened == [
        *("sent clip 0", "sent clip 1", "sent clip 2", "sent clip 3", "sent clip 4"),
        *("waits for it", "computes clips [0, 1, 2]", "sent clip 5"),
        *("waits for it", "computes clips [3, 4]", "waits for it", "computes clips [5]"),
    ]


def test_a_gpu_gets_its_batches_in_pieces_of_their_clips(monkeypatch):
    embedder = SumsOfSamples()
    embedder.device = torch.device("cuda")
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda shape, dtype, pin_memory: empty(shape, dtype=dtype))
    small = replace(device_pipeline.CUDA_FEED, batch_clips=3, piece_seconds=2 * 1600 / RATE)
    monkeypatch.setattr(device_pipeline, "CUDA_FEED", small)
    task = make_task({"fold00": [1600] * 5, "fold01": [1600, 3200]})
    clips = clips_by_length(task)
    read = list(device_pipeline._read_ahead(task, clips, embedder))
    assert [(len(piece.batch), piece.start, len(piece.audio)) for piece in read] == [
        *((3, 0, 2), (3, 2, 1), (3, 0, 2), (3, 2, 1), (1, 0, 1)),
    ]
    samples = torch.cat([piece.audio.flatten() for piece in read])
    assert torch.equal(samples, torch.from_numpy(task.samples))


def test_audio_is_read_from_the_node_where_the_site_has_a_folder_there(tmp_path):
    prepared, node = tmp_path / "prepared", tmp_path / "node"
    prepared.mkdir()
    node.mkdir()
    (prepared / "audio.npy").write_bytes(b"audio")
    with near_audio(prepared, str(node)) as folder:
        assert folder.parent == node
        assert (folder / "audio.npy").read_bytes() == b"audio"
    assert list(node.iterdir()) == []
    with near_audio(prepared, "") as folder:
        assert folder == prepared


def test_a_module_may_change_the_working_directory(tmp_path, monkeypatch):
    def load_embedder(*arguments, **options):
        os.chdir("elsewhere")
        return SumsOfSamples()

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(script, "load_embedder", load_embedder)
    monkeypatch.setattr(Task, "load", lambda folder: make_task(MIXED))
    Path("elsewhere").mkdir()
    Path("weights.json").write_text(json.dumps({"path": None, "sha256": None}))
    written = [Path(name) for name in ("l-e1.npy", "l-e1.json", "performance.json")]
    threads = torch.get_num_threads()
    script.embed(
        "mn04_seeded", Path("weights.json"), Path("task.json"), "l-e1", "half", threads, *written
    )
    assert all((tmp_path / path).is_file() for path in written)


def test_models_of_one_package_are_told_apart(tmp_path, monkeypatch):
    monkeypatch.setattr(script, "load_embedder", lambda *arguments, **options: SumsOfSamples())
    monkeypatch.setattr(Task, "load", lambda folder: make_task(MIXED))
    weights, task = tmp_path / "weights.json", tmp_path / "task.json"
    known = {"path": None, "sha256": None, "version": "1.0", "code": "of the whole package"}
    weights.write_text(json.dumps(known))
    written = [tmp_path / name for name in ("l-e1.npy", "l-e1.json", "performance.json")]
    identities = []
    for module in ("models.base", "models.large"):
        row = replace(checkpoint("mn04_seeded"), source="module", module=module)
        monkeypatch.setattr(script, "checkpoint_row", lambda name, row=row: row)
        script.embed("mine", weights, task, "l-e1", "half", torch.get_num_threads(), *written)
        identities.append(json.loads(written[1].read_text())["identity"])
    assert identities[0] != identities[1]
