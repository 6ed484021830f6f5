"""What both sides get: tasks in the HEAR layout, the same ones prepared, and embeddings of them."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from hear_mn.checkpoints import checkpoint, locate
from hear_mn.seeded import write_seeded
from workflow_scripts.hear2021.embedding.embedded_task import EmbeddedTask
from workflow_scripts.hear2021.tasks.hear_layout import METADATA_FILE, VOCABULARY_FILE
from workflow_scripts.hear2021.tasks.prepare import prepare_task
from workflow_scripts.hear2021.tasks.synthesis.mini_tasks import synthesise_task
from workflow_scripts.hear2021.tasks.task import Clip, Event, Task

REPOSITORY = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("HEAR_SHARED", REPOSITORY.parent / "shared"))
DIGITS = "spoken_digit-1.0.9-full"
DIGITS_ARCHIVE = SHARED / "real/archives/hear2021-spoken_digit-1.0.9-full-16000.tar.gz"
TRAINED_WEIGHTS = SHARED / "real/weights/mn04_as_mAP_432.pt"
MINI = "mini_vowels"
RATE = 32000
HOP_MS = 50.0
SINGLE_SPLIT = ("train", "valid", "test")


@dataclass(frozen=True)
class InputTask:
    """A task twice: a folder in the HEAR layout, for the stock tools, and prepared, for ours."""

    layout: Path
    prepared: Path
    task: Task


def weights_of(name: str, folder: Path) -> Path:
    """Return weights for a checkpoint: the trained ones where they are, else seeded ones."""
    if name == "mn04_as" and TRAINED_WEIGHTS.exists():
        return TRAINED_WEIGHTS
    row = checkpoint(name)
    if row.source == "seeded":
        return locate(name, folder)
    path = folder / f"{name}_seeded.pt"
    if not path.exists():
        write_seeded(row, path)
    return path


def real_or_mini(folder: Path, clips: int | None = None) -> InputTask:
    """Return the spoken digits, or where they are not there a mini task; at 32 kHz.

    Args:
        folder: where it goes.
        clips: how many clips a split has at most.
    """
    archive, name = DIGITS_ARCHIVE, DIGITS
    if not archive.exists():
        archive, name = folder / f"{MINI}.tar.gz", MINI
        synthesise_task(MINI, archive)
    whole = prepare_task(archive, name, RATE, folder / f"{name}_whole", threads=2)
    splits = {
        split: [(clip, whole.samples[clip.start : clip.start + clip.n_samples]) for clip in chosen]
        for split, chosen in ((split, some(every, clips)) for split, every in whole.splits.items())
    }
    return input_task(folder, name, whole.metadata, whole.labels, splits)


def repeated(given: InputTask, times: int) -> InputTask:
    """Return a prepared task whose every clip is there so many times; its audio is not copied."""
    splits = {
        split: [
            replace(clip, name=f"{number}_{clip.name}") for number in range(times) for clip in clips
        ]
        for split, clips in given.task.splits.items()
    }
    return replace(given, task=replace(given.task, splits=splits))


def some(clips: list[Clip], count: int | None) -> list[Clip]:
    """Return `count` clips at even distances, all of them for None."""
    if count is None or count >= len(clips):
        return clips
    return [clips[i * len(clips) // count] for i in range(count)]


def scene_task(folder: Path, clips: int, seconds: float, longest: float | None = None) -> InputTask:
    """Return a task of noise with a tone, labelled by the tone; `clips` in all.

    Clips are of `seconds`, or of lengths from there to `longest`, their logarithms spread evenly.
    """
    labels = [f"{220 * 2**octave} Hz" for octave in range(4)]

    def clip(random: np.random.Generator) -> tuple[np.ndarray, dict[str, Any]]:
        label = int(random.integers(len(labels)))
        length = seconds * (longest / seconds) ** random.random() if longest else seconds
        time = np.arange(round(length * RATE)) / RATE
        tone = 0.2 * np.sin(2 * np.pi * 220 * 2**label * time)
        return tone + 0.05 * random.standard_normal(len(time)), {"labels": (labels[label],)}

    metadata = _metadata("scene", "multiclass", None if longest else seconds, ["top1_acc"])
    return _made_task(folder, f"scenes_of_{seconds:g}_s", metadata, labels, clips, clip)


def event_task(folder: Path, clips: int, seconds: float) -> InputTask:
    """Return a task of noise with short tones in it, one event each; `clips` in all."""
    labels = [f"{220 * 2**octave} Hz" for octave in range(4)]

    def clip(random: np.random.Generator) -> tuple[np.ndarray, dict[str, Any]]:
        audio = 0.02 * random.standard_normal(round(seconds * RATE))
        events = []
        for start in np.arange(0.5, seconds - 1.5, 2.0):
            label, length = int(random.integers(len(labels))), float(random.uniform(0.3, 1.0))
            time = np.arange(round(length * RATE)) / RATE
            first = round(start * RATE)
            audio[first : first + len(time)] += 0.2 * np.sin(2 * np.pi * 220 * 2**label * time)
            events.append(
                Event(label=labels[label], start=1000 * start, end=1000 * (start + length))
            )
        return audio, {"events": tuple(events)}

    metadata = _metadata("event", "multilabel", seconds, ["event_onset_200ms_fms"])
    return _made_task(folder, f"events_in_{seconds:g}_s", metadata, labels, clips, clip)


def _metadata(
    embedding_type: str, prediction_type: str, seconds: float | None, evaluation: list[str]
) -> dict[str, Any]:
    return {
        "task_name": "made_up",
        "embedding_type": embedding_type,
        "prediction_type": prediction_type,
        "split_mode": "trainvaltest",
        "splits": list(SINGLE_SPLIT),
        "sample_duration": seconds,
        "evaluation": evaluation,
        "evaluation_params": {},
    }


def _made_task(
    folder: Path, name: str, metadata: dict[str, Any], labels: list[str], clips: int, draw: Any
) -> InputTask:
    random = np.random.default_rng(0)
    drawn: dict[str, list[tuple[Clip, np.ndarray]]] = {split: [] for split in SINGLE_SPLIT}
    for index in range(clips):
        split = SINGLE_SPLIT[index % len(SINGLE_SPLIT)]
        audio, annotation = draw(random)
        samples = np.round(np.clip(audio, -1, 1) * 32767).astype(np.int16)
        clip = Clip(split, f"{index:05}.wav", 0, len(samples), **annotation)
        drawn[split].append((clip, samples))
    return input_task(folder, name, metadata, labels, drawn)


def input_task(
    folder: Path,
    name: str,
    metadata: Mapping[str, Any],
    labels: Sequence[str],
    splits: Mapping[str, Sequence[tuple[Clip, np.ndarray]]],
) -> InputTask:
    """Write a task in the HEAR layout at 32 kHz and prepare it; `splits` has clips and samples."""
    layout = folder / "layout" / name
    layout.mkdir(parents=True)
    (layout / METADATA_FILE).write_text(json.dumps(metadata))
    vocabulary = "".join(f"{index},{label}\n" for index, label in enumerate(labels))
    (layout / VOCABULARY_FILE).write_text(f"idx,label\n{vocabulary}")
    for split, clips in splits.items():
        annotations = {clip.name: clip.events or clip.labels for clip, _ in clips}
        (layout / f"{split}.json").write_text(json.dumps(annotations))
        for clip, samples in clips:
            path = layout / str(RATE) / split / clip.name
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, samples, RATE, subtype="PCM_16")
    prepared = folder / "prepared" / name
    return InputTask(layout, prepared, prepare_task(layout, name, RATE, prepared, threads=2))


@dataclass
class MadeEmbeddings:
    """Embeddings in memory, of a task without audio."""

    task: Task
    embeddings: dict[str, np.ndarray]
    times: dict[str, list[np.ndarray]] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """The number of values of one embedding."""
        return next(iter(self.embeddings.values())).shape[1]

    def rows(self, split: str) -> np.ndarray:
        """Return a split's embeddings."""
        return self.embeddings[split]

    def times_ms(self, split: str) -> list[np.ndarray]:
        """Return the times of each clip's timestamps."""
        return self.times[split]


def scene_embeddings(
    clips: Mapping[str, int],
    size: int,
    n_labels: int,
    *,
    multilabel: bool = False,
    **parameters: Any,
) -> MadeEmbeddings:
    """Return embeddings from which labels can be learned, but not quite.

    Args:
        clips: how many clips each split has; with other splits than train, valid and test, folds.
        size: values of an embedding.
        n_labels: labels of the task.
        multilabel: several labels a clip, scored by mAP; else one, scored by accuracy.
        parameters: what of heareval's grid is otherwise, say `max_epochs=[9]`.
    """
    random = np.random.default_rng(1)
    labels = [f"label {i}" for i in range(n_labels)]
    directions = random.standard_normal((n_labels, size), dtype=np.float32)
    splits, embeddings = {}, {}
    for split, count in clips.items():
        active = np.zeros((count, n_labels), dtype=np.float32)
        active[np.arange(count), random.integers(n_labels, size=count)] = 1
        if multilabel:
            active[np.arange(count), random.integers(n_labels, size=count)] = 1
        noise = random.standard_normal((count, size), dtype=np.float32)
        embeddings[split] = active @ directions + 2 * np.sqrt(n_labels, dtype=np.float32) * noise
        splits[split] = [
            Clip(split, f"{i:06}.wav", i, 1, labels=tuple(labels[j] for j in np.flatnonzero(row)))
            for i, row in enumerate(active)
        ]
    kind, score = ("multilabel", "mAP") if multilabel else ("multiclass", "top1_acc")
    metadata = _metadata("scene", kind, 1.0, [score])
    return MadeEmbeddings(_task_without_audio(metadata, labels, splits, parameters), embeddings)


def event_embeddings(
    clips: Mapping[str, int], size: int, n_labels: int, seconds: float = 120.0, **parameters: Any
) -> MadeEmbeddings:
    """Return embeddings of an event task as DCASE 2016 has them: 20 rows a second."""
    random = np.random.default_rng(2)
    labels = [f"label {i}" for i in range(n_labels)]
    directions = random.standard_normal((n_labels, size), dtype=np.float32)
    times_ms = np.arange(0, 1000 * seconds + 1, HOP_MS, dtype=np.float32)
    splits: dict[str, list[Clip]] = {}
    embeddings, times = {}, {}
    for split, count in clips.items():
        splits[split], rows = [], []
        for i in range(count):
            events = tuple(_events(random, labels, 1000 * seconds))
            active = np.zeros((len(times_ms), n_labels), dtype=np.float32)
            for event in events:
                sounds = (event["start"] <= times_ms) & (times_ms <= event["end"])
                active[sounds, labels.index(event["label"])] = 1
            noise = random.standard_normal((len(times_ms), size), dtype=np.float32)
            rows.append(active @ directions + 3 * noise)
            splits[split].append(Clip(split, f"{split}_{i:04}.wav", i, 1, events=events))
        embeddings[split] = np.concatenate(rows)
        times[split] = [times_ms] * count
    scores = ["event_onset_200ms_fms", "segment_1s_er"]
    metadata = _metadata("event", "multilabel", seconds, scores) | {"task_name": "dcase2016_task2"}
    task = _task_without_audio(metadata, labels, splits, parameters)
    return MadeEmbeddings(task, embeddings, times)


def _events(random: np.random.Generator, labels: list[str], until_ms: float) -> Iterator[Event]:
    start = 500.0
    while start < until_ms - 2000:
        length = float(random.uniform(200, 1500))
        yield Event(label=labels[random.integers(len(labels))], start=start, end=start + length)
        start += float(random.uniform(500, 3000))


def _task_without_audio(
    metadata: dict[str, Any],
    labels: list[str],
    splits: dict[str, list[Clip]],
    parameters: Mapping[str, Any],
) -> Task:
    if set(splits) != set(SINGLE_SPLIT):
        metadata = metadata | {"split_mode": "new_split_kfold", "splits": list(splits)}
    metadata = metadata | {"evaluation_params": {"task_specific_param_grid": dict(parameters)}}
    return Task("made_up-v1", metadata, labels, splits, RATE, "0" * 64, np.zeros(0, np.int16))


@dataclass(frozen=True)
class EmbeddedFiles:
    """What an evaluation job is given: a prepared task and an embedding file of a variant."""

    task_json: Path
    manifest: Path
    variant: str
    embedded: EmbeddedTask


def on_disk(
    made: MadeEmbeddings, folder: Path, variant: str, sizes: dict[str, int]
) -> EmbeddedFiles:
    """Write made embeddings as an embedding job does, in the features of a variant.

    Args:
        made: the embeddings; their clips must be of one length.
        folder: is made.
        variant: names the features.
        sizes: of the features, in the variant's order.
    """
    task = made.task
    folder.mkdir(parents=True)
    key = "events" if task.embedding_type == "event" else "labels"
    listed: dict[str, list[dict[str, Any]]] = {}
    start = 0
    for split, clips in task.splits.items():
        listed[split] = []
        for clip in clips:
            described = {"name": clip.name, "start": start, "n_samples": 1}
            listed[split].append(described | {key: getattr(clip, key)})
            start += 1
    (folder / "clips.json").write_text(json.dumps(listed))
    np.save(folder / "audio.npy", np.zeros(start, dtype=np.int16))
    described = {
        "task": task.name,
        "metadata": task.metadata,
        "labels": task.labels,
        "splits": {split: len(clips) for split, clips in task.splits.items()},
        "sample_rate": task.sample_rate,
        "sha256": task.sha256,
    }
    (folder / "task.json").write_text(json.dumps(described))
    rows = np.concatenate([made.rows(split) for split in task.splits])
    manifest = folder / "embeddings.json"
    np.save(manifest.with_suffix(".npy"), rows)
    stops = np.cumsum(list(sizes.values())).tolist()
    columns = {
        name: [stop - size, stop] for (name, size), stop in zip(sizes.items(), stops, strict=True)
    }
    times = made.times_ms(next(iter(task.splits)))[0].tolist() if key == "events" else None
    manifest.write_text(
        json.dumps(
            {
                "identity": {"task_sha256": task.sha256},
                "features": columns,
                "rows": len(rows),
                "times_ms": {"1": times} if times else None,
            }
        )
    )
    embedded = EmbeddedTask(Task.load(folder), [manifest], list(sizes))
    return EmbeddedFiles(folder / "task.json", manifest, variant, embedded)
