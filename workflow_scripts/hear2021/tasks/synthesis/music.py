"""Clips of notes and instruments."""

import numpy as np

from workflow_scripts.hear2021.tasks.synthesis.sounds import (
    Canvas,
    Labels,
    above,
    arranged,
    below,
    faded,
    hertz,
    noise,
    partials,
    peak,
)
from workflow_scripts.hear2021.tasks.task import Event

LOWEST_PITCH, PITCHES = 48, 18  # an octave and a half, so that some chromas have two pitches
NOTES = (60, 62, 64, 67, 69)  # a pentatonic scale


def pitch_clip(index: int, canvas: Canvas) -> tuple[np.ndarray, Labels]:
    """Draw a plucked string; its label is the MIDI note."""
    pitch = LOWEST_PITCH + index % PITCHES
    string = plucked_string(canvas, hertz(pitch + canvas.random.uniform(-0.05, 0.05)))
    return peak(faded(string, canvas, 0.002, 0.02), canvas.random.uniform(0.2, 0.6)), [str(pitch)]


def notes_clip(_: int, canvas: Canvas) -> tuple[np.ndarray, list[Event]]:
    """Draw a tune on a plucked string: one note after the other, now and then a rest."""
    sounds = []
    pitch, onset = 0, canvas.random.uniform(0.1, 0.4)
    while onset < canvas.seconds - 0.8:
        note = canvas.stretch(canvas.random.uniform(0.3, 0.6))
        pitch = int(canvas.random.choice([other for other in NOTES if other != pitch]))
        played = faded(plucked_string(note, hertz(pitch)), note, 0.002, 0.03)
        sounds.append((str(pitch), onset, peak(played, canvas.random.uniform(0.3, 0.5))))
        onset += note.seconds + canvas.random.choice([0.0, 0.0, 0.3])
    return arranged(sounds, 0.001 * noise(canvas, below(4000)), canvas.sample_rate)


def plucked_string(canvas: Canvas, pitch: float) -> np.ndarray:
    """Draw a plucked string: harmonics of an ideal string, the higher the sooner gone."""
    harmonic = np.arange(1, 21)
    position = canvas.random.uniform(0.12, 0.3)
    amplitudes = np.abs(np.sin(np.pi * harmonic * position)) / harmonic**1.5
    return partials(canvas, pitch * harmonic, amplitudes, 3 + 0.5 * harmonic)


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


def instrument_clip(index: int, canvas: Canvas) -> tuple[np.ndarray, Labels]:
    """Draw a note of an instrument, which is its label."""
    label = list(INSTRUMENTS)[index % len(INSTRUMENTS)]
    sound = INSTRUMENTS[label](canvas, hertz(canvas.random.uniform(60, 79)))
    return peak(sound, canvas.random.uniform(0.2, 0.6)), [label]
