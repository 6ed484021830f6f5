"""Clips of an office, the weather and a motor."""

import numpy as np

from workflow_scripts.hear2021.tasks.synthesis.sounds import (
    Canvas,
    Labels,
    above,
    arranged,
    below,
    faded,
    noise,
    partials,
    peak,
)
from workflow_scripts.hear2021.tasks.task import Event


def _beep(canvas: Canvas) -> np.ndarray:
    pitch = canvas.random.uniform(900, 1400)
    return faded(np.sin(2 * np.pi * pitch * canvas.time), canvas, 0.01, 0.01)


def _claps(canvas: Canvas) -> np.ndarray:
    since_clap = np.mod(canvas.time, canvas.random.uniform(0.1, 0.14))
    return noise(canvas, above(800)) * np.exp(-since_clap / 0.012)


def _hiss(canvas: Canvas) -> np.ndarray:
    return faded(noise(canvas, above(4000)), canvas, 0.02, 0.05)


OFFICE_SOUNDS = {"beep": _beep, "claps": _claps, "hiss": _hiss}


def office_clip(index: int, canvas: Canvas) -> tuple[np.ndarray, list[Event]]:
    """Beeps, claps and hisses over a quiet room; some overlap."""
    sounds = []
    labels = [*OFFICE_SOUNDS] * 2
    for slot, chosen in enumerate(canvas.random.permutation(len(labels))):
        label = labels[chosen]
        sound = canvas.stretch(canvas.random.uniform(0.4, 0.75))
        onset = (slot + canvas.random.uniform(0.05, 0.4)) * canvas.seconds / (len(labels) + 1)
        level = canvas.random.uniform(0.25, 0.6)
        sounds.append((label, onset, peak(OFFICE_SOUNDS[label](sound), level)))
    return arranged(sounds, 0.01 * noise(canvas, below(500)), canvas.sample_rate)


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


def weather_clip(index: int, canvas: Canvas) -> tuple[np.ndarray, Labels]:
    """Any of the 16 combinations, in turn: from a quiet field to a storm at night."""
    labels = [label for bit, label in enumerate(WEATHER) if index >> bit & 1]
    field_noise = 0.02 * noise(canvas, below(1000))
    layers = (peak(WEATHER[label](canvas), canvas.random.uniform(0.15, 0.25)) for label in labels)
    return sum(layers, 0.5 * peak(field_noise, 0.02)), labels


def hum_clip(index: int, canvas: Canvas) -> tuple[np.ndarray, Labels]:
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
