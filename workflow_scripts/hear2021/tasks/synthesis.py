"""The mini benchmark: small tasks of synthetic sound, in the layout of HEAR's own archives.

Each kind of task that HEAR has is there: scene tasks with one label or several, event tasks, single
splits and folds, and every score. A listener would give the sounds their labels. The same name
always gives the same archive, byte for byte: numbers come from a generator seeded with the name,
and no time or user is stored.
"""

import gzip
import io
import json
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from hear_mn.whole import name_aside
from workflow_scripts.hear2021.tasks.hear_layout import METADATA_FILE, VOCABULARY_FILE
from workflow_scripts.hear2021.tasks.task import Event

Random = np.random.Generator
Labels = list[str]
CLIP_SCORES = ["top1_acc", "mAP", "d_prime", "aucroc"]
SINGLE_SPLIT_MODE = {"split_mode": "trainvaltest"}
FOLD_MODE = {"split_mode": "new_split_kfold"}
SCENE_MULTICLASS = {"embedding_type": "scene", "prediction_type": "multiclass"}
SCENE_MULTILABEL = {"embedding_type": "scene", "prediction_type": "multilabel"}
EVENT_MULTILABEL = {"embedding_type": "event", "prediction_type": "multilabel"}
# Four grid points, with the two initialisations: the mini benchmark is done in minutes.
SMALL_GRID = {"hidden_layers": [1], "lr": [3.2e-3, 1e-3]}


@dataclass(frozen=True)
class Canvas:
    """What a sound is drawn on: a clip's sample rate and length, and the source of its variety."""

    sample_rate: int
    seconds: float
    random: Random

    @property
    def n_samples(self) -> int:
        """The length in samples."""
        return round(self.seconds * self.sample_rate)

    @property
    def time(self) -> np.ndarray:
        """The time of each sample in seconds, (n_samples,)."""
        return np.arange(self.n_samples) / self.sample_rate

    def stretch(self, seconds: float) -> "Canvas":
        """Return a canvas of another length, with the same source of variety."""
        return Canvas(self.sample_rate, seconds, self.random)


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


# Sounds: what several tasks draw with.


def peak(sound: np.ndarray, level: float) -> np.ndarray:
    """Scale a sound to a peak of `level`."""
    return sound * (level / max(np.abs(sound).max(), 1e-9))


def faded(sound: np.ndarray, canvas: Canvas, attack: float, release: float) -> np.ndarray:
    """Let a sound rise and fall over `attack` and `release` seconds."""
    time = canvas.time
    rise = np.clip(time / attack, 0, 1)
    fall = np.clip((canvas.seconds - time) / release, 0, 1)
    return sound * rise * fall


def noise(canvas: Canvas, gain: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Draw white noise shaped by `gain` of the frequency in Hz, at a standard deviation of 1."""
    spectrum = np.fft.rfft(canvas.random.standard_normal(canvas.n_samples))
    frequencies = np.fft.rfftfreq(canvas.n_samples, 1 / canvas.sample_rate)
    shaped = np.fft.irfft(spectrum * gain(frequencies), canvas.n_samples)
    return shaped / shaped.std()


def above(cutoff: float) -> Callable[[np.ndarray], np.ndarray]:
    """Return the gain of a gentle high-pass filter."""
    return lambda f: (f / cutoff) ** 2 / (1 + (f / cutoff) ** 2)


def below(cutoff: float) -> Callable[[np.ndarray], np.ndarray]:
    """Return the gain of a gentle low-pass filter."""
    return lambda f: 1 / (1 + (f / cutoff) ** 2)


def hertz(midi: float) -> float:
    """Return the frequency of a MIDI note."""
    return 440 * 2 ** ((midi - 69) / 12)


def partials(
    canvas: Canvas, frequencies: np.ndarray, amplitudes: np.ndarray, decays: np.ndarray
) -> np.ndarray:
    """Add decaying sines: frequencies in Hz, amplitudes, and decays in 1/s; all (n_partials,)."""
    audible = frequencies < 0.45 * canvas.sample_rate
    phases = canvas.random.uniform(0, 2 * np.pi, audible.sum())
    time = canvas.time[:, None]
    sines = np.sin(2 * np.pi * frequencies[audible] * time + phases)
    return (sines * amplitudes[audible] * np.exp(-decays[audible] * time)).sum(axis=1)


def plucked_string(canvas: Canvas, pitch: float) -> np.ndarray:
    """Draw a plucked string: harmonics of an ideal string, the higher the sooner gone."""
    harmonic = np.arange(1, 21)
    position = canvas.random.uniform(0.12, 0.3)
    amplitudes = np.abs(np.sin(np.pi * harmonic * position)) / harmonic**1.5
    return partials(canvas, pitch * harmonic, amplitudes, 3 + 0.5 * harmonic)


# Peterson and Barney 1952, men: the first three formants in Hz.
FORMANTS = {
    "ah": (730, 1090, 2440),
    "eh": (530, 1840, 2480),
    "ee": (270, 2290, 3010),
    "aw": (570, 840, 2410),
    "oo": (300, 870, 2240),
}


def vowel(canvas: Canvas, name: str, pitch: float) -> np.ndarray:
    """Sing a vowel: harmonics of a voice with vibrato, weighted by the vowel's formants."""
    random, time = canvas.random, canvas.time
    tract = random.uniform(0.95, 1.15)
    vibrato = 0.01 * np.sin(2 * np.pi * random.uniform(4.5, 6) * time + random.uniform(0, 6))
    phase = 2 * np.pi * np.cumsum(pitch * (1 + vibrato)) / canvas.sample_rate
    voice = np.zeros(canvas.n_samples)
    for harmonic in range(1, int(0.4 * canvas.sample_rate / pitch)):
        frequency = harmonic * pitch
        resonance = sum(
            strength / (1 + ((frequency - tract * formant) / 80) ** 2)
            for strength, formant in zip((1.0, 0.6, 0.3), FORMANTS[name], strict=True)
        )
        voice += (resonance + 0.01) * np.sin(harmonic * phase)
    breath = 0.01 * noise(canvas, above(2000))
    return faded(peak(voice, 1) + breath, canvas, 0.04, 0.08)


# Speech.


def _vowel_clip(index: int, canvas: Canvas) -> tuple[np.ndarray, Labels]:
    label = list(FORMANTS)[index % len(FORMANTS)]
    sung = vowel(canvas, label, canvas.random.uniform(90, 260))
    return peak(sung, canvas.random.uniform(0.2, 0.6)), [label]


def _voices_clip(index: int, canvas: Canvas) -> tuple[np.ndarray, Labels]:
    """One to three people talking: each says vowel after vowel at a pitch of their own."""
    count = 1 + index % 3
    registers = canvas.random.permutation([100, 160, 240])[:count]
    mixture = sum((_babble(canvas, register) for register in registers), np.zeros(canvas.n_samples))
    return peak(mixture, canvas.random.uniform(0.2, 0.6)), [str(count)]


def _babble(canvas: Canvas, register: float) -> np.ndarray:
    syllables = canvas.random.integers(3, 6)
    syllable = canvas.stretch(canvas.seconds / syllables)
    spoken = np.zeros(canvas.n_samples)
    for index in range(syllables):
        pitch = register * canvas.random.uniform(0.88, 1.12)
        sound = vowel(syllable, canvas.random.choice(list(FORMANTS)), pitch)
        start = index * canvas.n_samples // syllables
        spoken[start : start + len(sound)] += sound[: canvas.n_samples - start]
    return spoken


# Music.

LOWEST_PITCH, PITCHES = 48, 18  # an octave and a half, so that some chromas have two pitches
NOTES = (60, 62, 64, 67, 69)  # a pentatonic scale


def _pitch_clip(index: int, canvas: Canvas) -> tuple[np.ndarray, Labels]:
    pitch = LOWEST_PITCH + index % PITCHES
    string = plucked_string(canvas, hertz(pitch + canvas.random.uniform(-0.05, 0.05)))
    return peak(faded(string, canvas, 0.002, 0.02), canvas.random.uniform(0.2, 0.6)), [str(pitch)]


def _flute(canvas: Canvas, pitch: float) -> np.ndarray:
    harmonic = np.arange(1, 4)
    tone = partials(canvas, pitch * harmonic, np.array([1, 0.25, 0.08]), np.zeros(3))
    return faded(tone + 0.06 * noise(canvas, above(1500)), canvas, 0.08, 0.08)


def _organ(canvas: Canvas, pitch: float) -> np.ndarray:
    tone = partials(canvas, pitch * np.array([0.5, 1, 2, 3, 4, 8]), np.ones(6), np.zeros(6))
    return faded(tone, canvas, 0.01, 0.03)


def _trumpet(canvas: Canvas, pitch: float) -> np.ndarray:
    harmonic = np.arange(1, 13)
    mellow = partials(canvas, pitch * harmonic, 1 / harmonic**2.0, np.zeros(12))
    bright = partials(canvas, pitch * harmonic, 1 / harmonic**0.5, np.zeros(12))
    opening = np.clip(canvas.time / 0.12, 0, 1) ** 2
    return faded(mellow * (1 - opening) + bright * opening, canvas, 0.03, 0.06)


def _bell(canvas: Canvas, pitch: float) -> np.ndarray:
    ratios = np.array([0.5, 1.0, 1.19, 1.56, 2.0, 2.66, 3.01, 4.1])
    return faded(partials(canvas, pitch * ratios, 1 / ratios, 1.5 * ratios), canvas, 0.001, 0.02)


INSTRUMENTS = {
    "bell": _bell,
    "flute": _flute,
    "guitar": plucked_string,
    "organ": _organ,
    "trumpet": _trumpet,
}


def _instrument_clip(index: int, canvas: Canvas) -> tuple[np.ndarray, Labels]:
    label = list(INSTRUMENTS)[index % len(INSTRUMENTS)]
    sound = INSTRUMENTS[label](canvas, hertz(canvas.random.uniform(60, 79)))
    return peak(sound, canvas.random.uniform(0.2, 0.6)), [label]


def _notes_clip(_: int, canvas: Canvas) -> tuple[np.ndarray, list[Event]]:
    """A tune on a plucked string: one note after the other, now and then a rest."""
    sounds = []
    pitch, onset = 0, canvas.random.uniform(0.1, 0.4)
    while onset < canvas.seconds - 0.8:
        note = canvas.stretch(canvas.random.uniform(0.3, 0.6))
        pitch = int(canvas.random.choice([other for other in NOTES if other != pitch]))
        played = faded(plucked_string(note, hertz(pitch)), note, 0.002, 0.03)
        sounds.append((str(pitch), onset, peak(played, canvas.random.uniform(0.3, 0.5))))
        onset += note.seconds + canvas.random.choice([0.0, 0.0, 0.3])
    return _arranged(sounds, 0.001 * noise(canvas, below(4000)), canvas.sample_rate)


def _arranged(
    sounds: Sequence[tuple[str, float, np.ndarray]], background: np.ndarray, sample_rate: int
) -> tuple[np.ndarray, list[Event]]:
    """Lay (label, onset in seconds, sound) over a background; return the mixture and its events."""
    mixture, events = background.copy(), []
    for label, onset, sound in sounds:
        start = round(onset * sample_rate)
        mixture[start : start + len(sound)] += sound
        end = start + len(sound)
        events.append(
            Event(
                label=label,
                start=round(1000 * start / sample_rate, 3),
                end=round(1000 * end / sample_rate, 3),
            )
        )
    return np.clip(mixture, -1, 1), events


# General.


def _beep(canvas: Canvas) -> np.ndarray:
    pitch = canvas.random.uniform(900, 1400)
    return faded(np.sin(2 * np.pi * pitch * canvas.time), canvas, 0.01, 0.01)


def _claps(canvas: Canvas) -> np.ndarray:
    since_clap = np.mod(canvas.time, canvas.random.uniform(0.1, 0.14))
    return noise(canvas, above(800)) * np.exp(-since_clap / 0.012)


def _hiss(canvas: Canvas) -> np.ndarray:
    return faded(noise(canvas, above(4000)), canvas, 0.02, 0.05)


OFFICE_SOUNDS = {"beep": _beep, "claps": _claps, "hiss": _hiss}


def _office_clip(index: int, canvas: Canvas) -> tuple[np.ndarray, list[Event]]:
    """Beeps, claps and hisses over a quiet room; some overlap."""
    sounds = []
    labels = [*OFFICE_SOUNDS] * 2
    for slot, chosen in enumerate(canvas.random.permutation(len(labels))):
        label = labels[chosen]
        sound = canvas.stretch(canvas.random.uniform(0.4, 0.75))
        onset = (slot + canvas.random.uniform(0.05, 0.4)) * canvas.seconds / (len(labels) + 1)
        level = canvas.random.uniform(0.25, 0.6)
        sounds.append((label, onset, peak(OFFICE_SOUNDS[label](sound), level)))
    return _arranged(sounds, 0.01 * noise(canvas, below(500)), canvas.sample_rate)


def _rain(canvas: Canvas) -> np.ndarray:
    drops = canvas.random.random(canvas.n_samples) < 60 / canvas.sample_rate
    ringing = np.exp(-np.arange(200) / 30) * np.sin(np.arange(200) * 1.3)
    splashes = np.convolve(drops.astype(float), ringing)[: canvas.n_samples]
    return 0.3 * noise(canvas, above(2500)) + 1.5 * splashes


def _wind(canvas: Canvas) -> np.ndarray:
    gusts = 1 + 0.7 * np.sin(
        2 * np.pi * canvas.random.uniform(0.6, 1.5) * canvas.time + canvas.random.uniform(0, 6)
    )
    centre = canvas.random.uniform(350, 600)
    return gusts * noise(canvas, lambda f: np.exp(-(((f - centre) / 150) ** 2)))


def _thunder(canvas: Canvas) -> np.ndarray:
    since = canvas.time - canvas.random.uniform(0.02, 0.2)
    return np.where(since > 0, np.exp(-3 * since), 0) * noise(canvas, below(70)) * 2


def _crickets(canvas: Canvas) -> np.ndarray:
    carrier = np.sin(2 * np.pi * canvas.random.uniform(4200, 4800) * canvas.time)
    trill = np.mod(canvas.time, 0.03) < 0.018
    chirps = np.mod(canvas.time + canvas.random.uniform(0, 0.3), 0.3) < 0.15
    return carrier * trill * chirps


WEATHER = {"crickets": _crickets, "rain": _rain, "thunder": _thunder, "wind": _wind}


def _weather_clip(index: int, canvas: Canvas) -> tuple[np.ndarray, Labels]:
    """Any of the 16 combinations, in turn: from a quiet field to a storm at night."""
    labels = [label for bit, label in enumerate(WEATHER) if index >> bit & 1]
    field_noise = 0.02 * noise(canvas, below(1000))
    layers = (peak(WEATHER[label](canvas), canvas.random.uniform(0.15, 0.25)) for label in labels)
    return sum(layers, 0.5 * peak(field_noise, 0.02)), labels


def _hum_clip(index: int, canvas: Canvas) -> tuple[np.ndarray, Labels]:
    """A motor on mains frequency; a worn bearing adds a rattle at each turn."""
    harmonic = np.arange(1, 9)
    hum = partials(canvas, 50 * harmonic, 1 / harmonic, np.zeros(8))
    motor = peak(hum, 0.2) + 0.004 * noise(canvas, below(2000))
    label = ["healthy", "worn"][index % 2]
    if label == "worn":
        since_turn = np.mod(
            canvas.time + canvas.random.uniform(0, 1), canvas.random.uniform(0.03, 0.05)
        )
        motor += 0.02 * noise(canvas, above(1500)) * np.exp(-since_turn / 0.004)
    return motor * canvas.random.uniform(0.5, 1.5), [label]


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
        clip=_vowel_clip,
    ),
    "mini_voices": MiniTask(
        labels=("1", "2", "3"),
        sample_rate=16000,
        seconds=0.6,
        clips=_single_split(36, 15, 21),
        metadata=SCENE_MULTICLASS | SINGLE_SPLIT_MODE | {"evaluation": ["top1_acc"]},
        clip=_voices_clip,
    ),
    "mini_pitch": MiniTask(
        labels=tuple(str(LOWEST_PITCH + index) for index in range(PITCHES)),
        sample_rate=16000,
        seconds=0.5,
        clips=_single_split(36, 18, 36),
        metadata=SCENE_MULTICLASS | SINGLE_SPLIT_MODE | {"evaluation": ["pitch_acc", "chroma_acc"]},
        clip=_pitch_clip,
    ),
    "mini_instruments": MiniTask(
        labels=tuple(INSTRUMENTS),
        sample_rate=44100,
        seconds=0.5,
        clips=_folds(3, 20),
        metadata=SCENE_MULTICLASS | FOLD_MODE | {"evaluation": CLIP_SCORES},
        clip=_instrument_clip,
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
        clip=_notes_clip,
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
        clip=_office_clip,
    ),
    "mini_weather": MiniTask(
        labels=tuple(WEATHER),
        sample_rate=16000,
        seconds=0.5,
        clips=_single_split(32, 16, 32),
        metadata=SCENE_MULTILABEL
        | SINGLE_SPLIT_MODE
        | {"evaluation": ["mAP", "d_prime", "aucroc", "top1_acc"]},
        clip=_weather_clip,
    ),
    "mini_hum": MiniTask(
        labels=("healthy", "worn"),
        sample_rate=16000,
        seconds=0.5,
        clips=_single_split(30, 12, 20),
        metadata=SCENE_MULTICLASS
        | SINGLE_SPLIT_MODE
        | {"evaluation": ["aucroc", "mAP", "d_prime", "top1_acc"]},
        clip=_hum_clip,
    ),
}
