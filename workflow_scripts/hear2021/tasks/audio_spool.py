"""The audio of a task's clips on its way from wav files to one sample rate."""

import collections
import io
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile
import soxr
from tqdm import tqdm

UNKNOWN_RIFF_SIZES = (0, 0xFFFFFFFF)  # written by encoders that could not seek back


@dataclass(frozen=True)
class SpooledClip:
    """Where a clip lies in the spool, in samples."""

    start: int
    n_samples: int


@dataclass
class AudioSpool:
    """The clips of one source rate at the target rate, in the order they arrive, in a file aside.

    Which rates an archive has is known only at its end: when clips of a better rate arrive, those
    of the other are dropped. Best is the target's own, then the highest.

    Args:
        path: the file aside.
        sample_rate: the target's.
        threads: how many clips are worked on at a time; twice as many are held in memory.
    """

    path: Path
    sample_rate: int
    threads: int
    source_rate: int | None = None
    clips: dict[str, SpooledClip] = field(default_factory=dict)
    damaged: dict[str, str] = field(default_factory=dict)

    def __enter__(self) -> "AudioSpool":
        """Open the file and the pool."""
        self._file = self.path.open("w+b")
        self._pool = ThreadPoolExecutor(self.threads)
        self._waiting: collections.deque[tuple[str, Future[np.ndarray]]] = collections.deque()
        self._progress = tqdm(unit="clip", mininterval=5)
        return self

    def __exit__(self, *exception: object) -> None:
        """Close them; what is under way is dropped."""
        self._pool.shutdown(cancel_futures=True)
        self._progress.close()
        self._file.close()

    def offer(self, rate: int, path: str, read: Callable[[], bytes]) -> None:
        """Take the clip `<split>/<name>` of the folder of `rate`, unless a better rate was seen."""
        if self.source_rate is not None and rate != self.source_rate:
            if self._merit(rate) < self._merit(self.source_rate):
                return
            self._drop()
        self.source_rate = rate
        self._waiting.append((path, self._pool.submit(_decoded, read(), rate, self.sample_rate)))
        while len(self._waiting) > 2 * self.threads:
            self._write_next()

    def finish(self) -> None:
        """Wait for the clips under way."""
        while self._waiting:
            self._write_next()

    def read(self, path: str) -> bytes:
        """Return the samples of a clip, int16, as bytes."""
        clip = self.clips[path]
        self._file.seek(2 * clip.start)
        return self._file.read(2 * clip.n_samples)

    def _merit(self, rate: int) -> tuple[bool, int]:
        return rate == self.sample_rate, rate

    def _write_next(self) -> None:
        path, under_way = self._waiting.popleft()
        try:
            samples = under_way.result()
        except WavError as error:
            self.damaged[path] = str(error)
            return
        self.clips[path] = SpooledClip(self._file.tell() // 2, len(samples))
        self._file.write(samples.astype("<i2", copy=False).data)
        self._progress.update()

    def _drop(self) -> None:
        for _, under_way in self._waiting:
            under_way.cancel()
        self._waiting.clear()
        self.clips.clear()
        self.damaged.clear()
        self._file.seek(0)
        self._file.truncate()


class WavError(ValueError):
    """Why a wav is not a clip of a task."""


def _decoded(wav: bytes, rate: int, sample_rate: int) -> np.ndarray:
    return resample(decode(wav, rate), rate, sample_rate)


def decode(wav: bytes, sample_rate: int) -> np.ndarray:
    """Decode a mono 16-bit wav into int16 (n_samples,).

    Raises:
        WavError: if it is not that, not at `sample_rate`, empty or cut short.
    """
    if not wav:
        raise WavError("is an empty file")
    try:
        with soundfile.SoundFile(io.BytesIO(wav)) as sound:
            if sound.format not in {"WAV", "WAVEX"} or sound.subtype != "PCM_16":
                raise WavError(f"is {sound.format} {sound.subtype}, not 16-bit wav")
            if sound.channels != 1:
                raise WavError(f"has {sound.channels} channels, not 1")
            if sound.samplerate != sample_rate:
                raise WavError(f"is at {sound.samplerate} Hz in the folder {sample_rate}/")
            samples = sound.read(dtype="int16")
    except soundfile.LibsndfileError as error:
        raise WavError(f"is no wav: {error.error_string}") from error
    # Of the RIFF chunk, after these eight bytes; RIFX is the same of big-endian machines.
    declared = int.from_bytes(wav[4:8], "big" if wav.startswith(b"RIFX") else "little")
    if declared not in UNKNOWN_RIFF_SIZES and declared + 8 > len(wav):
        raise WavError(f"is cut short: {len(wav)} of {declared + 8} bytes")
    if not len(samples):
        raise WavError("has no samples")
    return samples


def resample(samples: np.ndarray, rate: int, sample_rate: int) -> np.ndarray:
    """Resample int16 (n_samples,) by soxr HQ, rounded and clipped; equal rates change nothing.

    Raises:
        WavError: if nothing is left of the few samples there are.
    """
    if rate == sample_rate:
        return samples
    resampled = soxr.resample(samples.astype(np.float32), rate, sample_rate, quality="HQ")
    if not len(resampled):
        raise WavError(f"has {len(samples)} samples at {rate} Hz and none at {sample_rate} Hz")
    return np.clip(np.rint(resampled), -32768, 32767).astype(np.int16)
