"""Clips of voices."""

import numpy as np

from workflow_scripts.hear2021.tasks.synthesis.sounds import (
    Canvas,
    Labels,
    above,
    faded,
    noise,
    peak,
)

# Peterson and Barney 1952, men: the first three formants in Hz.
FORMANTS = {
    "ah": (730, 1090, 2440),
    "eh": (530, 1840, 2480),
    "ee": (270, 2290, 3010),
    "aw": (570, 840, 2410),
    "oo": (300, 870, 2240),
}


def vowel_clip(index: int, canvas: Canvas) -> tuple[np.ndarray, Labels]:
    """A sung vowel, which is its label."""
    label = list(FORMANTS)[index % len(FORMANTS)]
    sung = vowel(canvas, label, canvas.random.uniform(90, 260))
    return peak(sung, canvas.random.uniform(0.2, 0.6)), [label]


def voices_clip(index: int, canvas: Canvas) -> tuple[np.ndarray, Labels]:
    """One to three people talking: each says vowel after vowel at a pitch of their own."""
    count = 1 + index % 3
    registers = canvas.random.permutation([100, 160, 240])[:count]
    mixture = sum((_babble(canvas, register) for register in registers), np.zeros(canvas.n_samples))
    return peak(mixture, canvas.random.uniform(0.2, 0.6)), [str(count)]


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
