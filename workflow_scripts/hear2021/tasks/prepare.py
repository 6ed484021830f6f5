"""From a HEAR archive or folder to a prepared task: checked, resampled, packed in three files.

An archive is read once, member after member, and nothing is unpacked to disk: wavs are decoded from
memory and resampled as they come, in any order, into one file aside. When the archive has been read
to its end, and its checksum with it, the clips are copied into the order of the metadata. So the
same content gives the same bytes, whatever the order of the members, archive or folder. For a while
this takes the disk space of the prepared audio twice.
"""

import contextlib
import hashlib
import json
import shutil
import unicodedata
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from numpy.lib import format as npy

from workflow_scripts.hear2021.run.configuration import TaskRow
from workflow_scripts.hear2021.tasks.archive import contents
from workflow_scripts.hear2021.tasks.audio_spool import AudioSpool
from workflow_scripts.hear2021.tasks.hear_layout import (
    METADATA_FILE,
    VOCABULARY_FILE,
    Annotation,
    read_metadata,
    read_split,
    read_vocabulary,
)
from workflow_scripts.hear2021.tasks.task import Task, TaskError


def prepare_task(
    source: Path,
    task: str,
    sample_rate: int,
    out_dir: Path,
    threads: int,
    row: TaskRow | None = None,
) -> Task:
    """Pack a task in the HEAR layout for one sample rate, whole or not at all.

    Audio already at `sample_rate` is kept bit for bit. Otherwise that of the highest rate there is
    becomes float32, is resampled by soxr at HQ quality (ffmpeg's `aresample=resampler=soxr`, which
    HEAR's own preprocessing uses), rounded and clipped to 16 bits.

    Args:
        source: a tar or tar.gz archive with `<task>/` at its root, in `tasks/` or in
            `hear-2021.0.6/tasks/`, or a folder that is or holds the task's.
        task: the name of the task's directory.
        sample_rate: in Hz.
        out_dir: the folder that gets task.json, clips.json and audio.npy.
        threads: how many clips are decoded and resampled side by side.
        row: what config/tasks.csv says of the task, to be compared with its metadata.

    Raises:
        TaskError: if the source is damaged, unsafe, incomplete or another task than the row says,
            naming the file and what to do.
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    aside = out_dir / ".partial"
    try:
        with FileLock(out_dir / ".lock", timeout=0), _emptied(aside):
            description = _prepare(source, task, sample_rate, aside, threads, row)
            (out_dir / "task.json").unlink(missing_ok=True)
            for name in ("audio.npy", "clips.json", "task.json"):
                (aside / name).replace(out_dir / name)
    except Timeout as error:
        raise TaskError(f"another process is preparing {task} in {out_dir}; wait for it") from error
    print(f"{task}: {description} at {sample_rate} Hz in {out_dir}", flush=True)
    return Task.load(out_dir)


@contextlib.contextmanager
def _emptied(folder: Path) -> Iterator[None]:
    shutil.rmtree(folder, ignore_errors=True)  # of a job that was killed
    folder.mkdir()
    try:
        yield
    finally:
        shutil.rmtree(folder)


def _prepare(
    source: Path, task: str, sample_rate: int, aside: Path, threads: int, row: TaskRow | None
) -> str:
    texts: dict[str, bytes] = {}
    with AudioSpool(aside / "arrival.int16", sample_rate, threads) as spool:
        for path, read in contents(source, task):
            if len(path.parts) == 1 and path.suffix in {".json", ".csv"}:
                texts[path.name] = read()
            elif len(path.parts) > 2 and path.parts[0].isdecimal():
                spool.offer(int(path.parts[0]), str(path.relative_to(path.parts[0])), read)
        spool.finish()
        if not texts and not spool.clips:
            raise TaskError(
                f"{source} holds no {task}/ at its root, in tasks/ or in hear-*/tasks/. Is it the "
                f"archive of another task?"
            )
        metadata = read_metadata(task, _text(texts, METADATA_FILE, task, source))
        if row is not None:
            _refuse_another_task(metadata, row, source)
        return _write(texts, metadata, spool, task, source, aside)


def _write(
    texts: Mapping[str, bytes],
    metadata: dict[str, Any],
    spool: AudioSpool,
    task: str,
    source: Path,
    aside: Path,
) -> str:
    labels = read_vocabulary(task, _text(texts, VOCABULARY_FILE, task, source))
    annotations = {
        split: read_split(
            task, split, _text(texts, f"{split}.json", task, source), metadata, labels
        )
        for split in metadata["splits"]
    }
    listed = {
        f"{split}/{name}": (split, name) for split in annotations for name in annotations[split]
    }
    _refuse_incomplete(listed, spool, task, source)
    kind = "events" if metadata["embedding_type"] == "event" else "labels"
    clips: dict[str, list[dict[str, Any]]] = {split: [] for split in annotations}
    total = 0
    for path, (split, name) in listed.items():
        n_samples = spool.clips[path].n_samples
        annotation: Annotation = annotations[split][name]
        clips[split].append(
            {"name": name, "start": total, "n_samples": n_samples, kind: annotation}
        )
        total += n_samples
    content = hashlib.sha256(
        _json({"metadata": metadata, "labels": labels, "rate": spool.sample_rate}, sort_keys=True)
    )
    content.update(_json(clips))
    heard: dict[str, bytes] = {}
    with (aside / "audio.npy").open("wb") as audio:
        npy.write_array_header_1_0(
            audio, {"descr": "<i2", "fortran_order": False, "shape": (total,)}
        )
        for path in listed:
            samples = spool.read(path)
            content.update(samples)
            heard[path] = hashlib.blake2b(samples).digest()
            audio.write(samples)
    _warn_of_shared_audio(task, heard)
    (aside / "clips.json").write_bytes(_json(clips))
    description = {
        "task": task,
        "metadata": metadata,
        "labels": labels,
        "splits": {split: len(listed) for split, listed in clips.items()},
        "sample_rate": spool.sample_rate,
        "seconds": total / spool.sample_rate,
        "sha256": content.hexdigest(),
    }
    (aside / "task.json").write_bytes(_json(description, indent=1))
    unlisted = len(spool.clips) + len(spool.damaged) - len(listed)
    return (
        f"{len(listed)} clips, {total / spool.sample_rate / 3600:.2f} hours, from "
        f"{spool.source_rate} Hz ({unlisted} unlisted files ignored)"
    )


def _warn_of_shared_audio(task: str, heard: Mapping[str, bytes]) -> None:
    """Name clips that are, sample for sample, a clip of another split (`<split>/<name>` each)."""
    first: dict[bytes, str] = {}
    shared = []
    for path, audio in heard.items():
        other = first.setdefault(audio, path)
        if other.partition("/")[0] != path.partition("/")[0]:
            shared.append(f"{path} is {other}")
    if shared:
        warnings.warn(
            f"{task}: {len(shared)} of {len(heard)} clips are, sample for sample, clips of another "
            f"split: {_first_five(shared)}. A score on clips that were trained on is too good; if "
            f"the lists are yours, keep each clip in one split",
            stacklevel=2,
        )


def _json(content: Any, **options: Any) -> bytes:
    return (json.dumps(content, **options) + "\n").encode()


def _text(texts: Mapping[str, bytes], name: str, task: str, source: Path) -> str:
    if name not in texts:
        raise TaskError(f"{task}: {name} is missing in {source}; it belongs beside {METADATA_FILE}")
    try:
        return texts[name].decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise TaskError(f"{task}: {name} in {source} is not UTF-8: {error}") from error


def _refuse_another_task(metadata: Mapping[str, Any], row: TaskRow, source: Path) -> None:
    # By the score it would be reported as. The name in the metadata does not tell: HEAR's own
    # mridangam_tonic calls itself mridangam_stroke.
    found = (metadata["embedding_type"], metadata["prediction_type"], metadata["evaluation"][0])
    if found != row.kind:
        raise TaskError(
            f"{row.task}: {METADATA_FILE} in {source} says {', '.join(found)}, and "
            f"config/tasks.csv {', '.join(row.kind)}. Is it another task? If not, correct the row"
        )


def _refuse_incomplete(
    listed: Mapping[str, Any], spool: AudioSpool, task: str, source: Path
) -> None:
    damaged = [f"{path} ({spool.damaged[path]})" for path in listed if path in spool.damaged]
    if damaged:
        raise TaskError(
            f"{task}: {len(damaged)} of {len(listed)} clips in {source} cannot be used: "
            f"{_first_five(damaged)}. Fetch the archive again or correct these files."
        )
    missing = [path for path in listed if path not in spool.clips]
    if missing:
        if spool.source_rate is None:
            raise TaskError(
                f"{task}: {source} has no audio. Clips belong into <sample rate>/<split>/, say "
                f"48000/{missing[0]}"
            )
        raise TaskError(
            f"{task}: {len(missing)} of {len(listed)} listed clips are not in {source}: "
            f"{_first_five([f'{spool.source_rate}/{path}' for path in missing])}. "
            + (_alike(missing[0], spool.clips) or "Fetch the archive again, or correct the lists.")
        )


def _alike(path: str, there: Iterable[str]) -> str:
    """Say which file is there whose name differs from `path` in what is easily overlooked."""
    alike = {_comparable(other): other for other in there}.get(_comparable(path))
    if alike is None:
        return ""
    return (
        f"There is {alike!a}, and the list says {path!a}: case and Unicode form (macOS writes its "
        f"own) count. Rename the files, or correct the lists."
    )


def _comparable(path: str) -> str:
    return unicodedata.normalize("NFC", path).casefold()


def _first_five(names: list[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
