"""Sounds that clips are made of, and how a mixture is arranged of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from workflow_scripts.hear2021.tasks.task import Event

Random = np.random.Generator
Labels = list[str]


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


def arranged(
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
