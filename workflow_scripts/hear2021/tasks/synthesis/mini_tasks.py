"""The tasks of the mini benchmark, in the layout of HEAR's own archives.

Each kind of task that HEAR has is there: scene tasks with one label or several, event tasks, single
splits and folds, and every score. A listener would give the sounds their labels. The same name
always gives the same archive, byte for byte: numbers come from a generator seeded with the name,
and no time or user is stored.
"""

import gzip
import io
import json
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from hear_mn.whole import name_aside
from workflow_scripts.hear2021.tasks.hear_layout import METADATA_FILE, VOCABULARY_FILE
from workflow_scripts.hear2021.tasks.synthesis.general import (
    OFFICE_SOUNDS,
    WEATHER,
    hum_clip,
    office_clip,
    weather_clip,
)
from workflow_scripts.hear2021.tasks.synthesis.music import (
    INSTRUMENTS,
    LOWEST_PITCH,
    NOTES,
    PITCHES,
    instrument_clip,
    notes_clip,
    pitch_clip,
)
from workflow_scripts.hear2021.tasks.synthesis.sounds import Canvas, Labels
from workflow_scripts.hear2021.tasks.synthesis.speech import FORMANTS, voices_clip, vowel_clip
from workflow_scripts.hear2021.tasks.task import Event

CLIP_SCORES = ["top1_acc", "mAP", "d_prime", "aucroc"]
SINGLE_SPLIT_MODE = {"split_mode": "trainvaltest"}
FOLD_MODE = {"split_mode": "new_split_kfold"}
SCENE_MULTICLASS = {"embedding_type": "scene", "prediction_type": "multiclass"}
SCENE_MULTILABEL = {"embedding_type": "scene", "prediction_type": "multilabel"}
EVENT_MULTILABEL = {"embedding_type": "event", "prediction_type": "multilabel"}
# Four grid points, with the two initialisations: the mini benchmark is done in minutes.
SMALL_GRID = {"hidden_layers": [1], "lr": [3.2e-3, 1e-3]}


@dataclass(frozen=True)
class MiniTask:
    """How a task is made.

    Args:
        labels: the vocabulary.
        sample_rate: in Hz.
        seconds: the length of a clip.
        clips: how many clips each split has.
        metadata: what the task's metadata says beside its name, labels and splits.
        clip: draws the index-th clip of a split: audio (n_samples,) and its labels or events.
    """

    labels: tuple[str, ...]
    sample_rate: int
    seconds: float
    clips: dict[str, int]
    metadata: dict[str, Any]
    clip: Callable[[int, Canvas], tuple[np.ndarray, Labels | list[Event]]] = field(repr=False)


def synthesise_task(task: str, archive: Path) -> None:
    """Write the archive of a mini task, whole or not at all.

    Args:
        task: a name of MINI_TASKS.
        archive: the .tar.gz to write; it holds tasks/<task>/.

    Raises:
        KeyError: if there is no such mini task.
    """
    recipe = MINI_TASKS[task]
    archive.parent.mkdir(parents=True, exist_ok=True)
    aside = name_aside(archive)
    with (
        aside.open("wb") as file,
        gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0) as compressed,
        tarfile.open(fileobj=compressed, mode="w", format=tarfile.USTAR_FORMAT) as tar,
    ):
        for name, content in _files(task, recipe):
            member = tarfile.TarInfo(f"tasks/{task}/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    aside.replace(archive)


def _files(task: str, recipe: MiniTask) -> Iterator[tuple[str, bytes]]:
    parameters = recipe.metadata.get("evaluation_params", {})
    grid = SMALL_GRID | parameters.get("task_specific_param_grid", {})
    metadata = {
        "task_name": task,
        "version": "1",
        **recipe.metadata,
        "evaluation_params": parameters | {"task_specific_param_grid": grid},
        "sample_duration": recipe.seconds,
        "mode": "full",
        "splits": list(recipe.clips),
    }
    vocabulary = "".join(f"{index},{label}\n" for index, label in enumerate(recipe.labels))
    yield METADATA_FILE, json.dumps(metadata, indent=1).encode()
    yield VOCABULARY_FILE, f"idx,label\n{vocabulary}".encode()
    canvas = Canvas(recipe.sample_rate, recipe.seconds, np.random.default_rng([*task.encode()]))
    for split, count in recipe.clips.items():
        drawn = {f"{split}_{index:03}.wav": recipe.clip(index, canvas) for index in range(count)}
        annotations = {name: annotation for name, (_, annotation) in drawn.items()}
        yield f"{split}.json", json.dumps(annotations, indent=1).encode()
        for name, (audio, _) in drawn.items():
            yield f"{recipe.sample_rate}/{split}/{name}", _wav(audio, recipe.sample_rate)


def _wav(audio: np.ndarray, sample_rate: int) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, audio, sample_rate, subtype="PCM_16", format="WAV")
    return file.getvalue()


def _single_split(train: int, valid: int, test: int) -> dict[str, int]:
    return {"train": train, "valid": valid, "test": test}


def _folds(count: int, clips: int) -> dict[str, int]:
    return {f"fold{index:02}": clips for index in range(count)}


MINI_TASKS = {
    "mini_vowels": MiniTask(
        labels=tuple(FORMANTS),
        sample_rate=16000,
        seconds=0.5,
        clips=_folds(3, 25),
        metadata=SCENE_MULTICLASS | FOLD_MODE | {"evaluation": CLIP_SCORES},
        clip=vowel_clip,
    ),
    "mini_voices": MiniTask(
        labels=("1", "2", "3"),
        sample_rate=16000,
        seconds=0.6,
        clips=_single_split(36, 15, 21),
        metadata=SCENE_MULTICLASS | SINGLE_SPLIT_MODE | {"evaluation": ["top1_acc"]},
        clip=voices_clip,
    ),
    "mini_pitch": MiniTask(
        labels=tuple(str(LOWEST_PITCH + index) for index in range(PITCHES)),
        sample_rate=16000,
        seconds=0.5,
        clips=_single_split(36, 18, 36),
        metadata=SCENE_MULTICLASS | SINGLE_SPLIT_MODE | {"evaluation": ["pitch_acc", "chroma_acc"]},
        clip=pitch_clip,
    ),
    "mini_instruments": MiniTask(
        labels=tuple(INSTRUMENTS),
        sample_rate=44100,
        seconds=0.5,
        clips=_folds(3, 20),
        metadata=SCENE_MULTICLASS | FOLD_MODE | {"evaluation": CLIP_SCORES},
        clip=instrument_clip,
    ),
    "mini_notes": MiniTask(
        labels=tuple(map(str, NOTES)),
        sample_rate=16000,
        seconds=4.0,
        clips=_folds(3, 4),
        metadata=EVENT_MULTILABEL
        | FOLD_MODE
        | {
            "evaluation": ["event_onset_50ms_fms", "event_onset_offset_50ms_20perc_fms"],
            "use_scoring_for_early_stopping": False,
            "evaluation_params": {
                "event_postprocessing_grid": {"median_filter_ms": [150], "min_duration": [50]},
                "task_specific_param_grid": {
                    "max_epochs": [20],
                    "check_val_every_n_epoch": [1],
                },
            },
        },
        clip=notes_clip,
    ),
    "mini_office": MiniTask(
        labels=tuple(OFFICE_SOUNDS),
        sample_rate=16000,
        seconds=4.0,
        clips=_single_split(6, 3, 3),
        metadata=EVENT_MULTILABEL
        | SINGLE_SPLIT_MODE
        | {
            "evaluation": ["event_onset_200ms_fms", "segment_1s_er"],
            "evaluation_params": {
                "task_specific_param_grid": {
                    "max_epochs": [100],
                    "check_val_every_n_epoch": [10],
                },
            },
        },
        clip=office_clip,
    ),
    "mini_weather": MiniTask(
        labels=tuple(WEATHER),
        sample_rate=16000,
        seconds=0.5,
        clips=_single_split(32, 16, 32),
        metadata=SCENE_MULTILABEL
        | SINGLE_SPLIT_MODE
        | {"evaluation": ["mAP", "d_prime", "aucroc", "top1_acc"]},
        clip=weather_clip,
    ),
    "mini_hum": MiniTask(
        labels=("healthy", "worn"),
        sample_rate=16000,
        seconds=0.5,
        clips=_single_split(30, 12, 20),
        metadata=SCENE_MULTICLASS
        | SINGLE_SPLIT_MODE
        | {"evaluation": ["aucroc", "mAP", "d_prime", "top1_acc"]},
        clip=hum_clip,
    ),
}
