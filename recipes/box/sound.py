"""audio file -> takes: what is heard in a file, at 16 kHz, without silence around it."""

from pathlib import Path

import numpy as np
import soundfile
import soxr

RATE = 16000
SAMPLES = 64000
"""Of a clip: 4 s."""

FRAME = 400
"""Samples over which a level is taken: 25 ms."""


def rms(samples: np.ndarray) -> float:
    """Root mean square of samples."""
    return float(np.sqrt(np.mean(np.square(samples, dtype=np.float64)) + 1e-12))


def levels(samples: np.ndarray) -> np.ndarray:
    """Root mean square of each 25 ms."""
    frames = len(samples) // FRAME
    if not frames:
        return np.array([rms(samples)])
    return np.sqrt(np.square(samples[: frames * FRAME].reshape(frames, FRAME)).mean(1) + 1e-12)


def trimmed(samples: np.ndarray) -> np.ndarray:
    """Samples without what is 40 dB below the loudest 25 ms before the first and after the last sound."""
    if not len(samples):
        return samples
    frames = levels(samples)
    heard = np.flatnonzero(frames > max(frames.max() * 0.01, 1e-4))
    if not len(heard):
        return samples[:0]
    return samples[max(0, heard[0] * FRAME - 200) : (heard[-1] + 2) * FRAME]


def faded(samples: np.ndarray, count: int = 80) -> np.ndarray:
    """Samples whose first and last 5 ms rise and fall."""
    samples = samples.copy()
    count = min(count, len(samples) // 2)
    if count:
        ramp = np.linspace(0, 1, count, dtype=np.float32)
        samples[:count] *= ramp
        samples[-count:] *= ramp[::-1]
    return samples


def at_level(samples: np.ndarray, decibels: float) -> np.ndarray:
    """Samples whose sounding parts have a level of so many dBFS, or less where they would clip."""
    frames = levels(samples)
    loud = frames[frames > frames.max() * 0.1]
    scaled = samples * (10 ** (decibels / 20) / max(float(np.sqrt(np.mean(loud**2))), 1e-6))
    peak = float(np.abs(scaled).max())
    return scaled * (0.95 / peak) if peak > 0.95 else scaled


def read(path: Path, most_seconds: float = 150.0) -> np.ndarray:
    """A file as mono float32 at 16 kHz; of a longer file three stretches that are far apart.

    Raises:
        ValueError, soundfile.LibsndfileError: where it is no sound.
    """
    with soundfile.SoundFile(path) as file:
        rate = file.samplerate
        if not 4000 <= rate <= 200000:
            raise ValueError(f"{rate} Hz")
        known = 0 < file.frames < 1 << 40
        if known and file.frames > most_seconds * rate:
            parts = []
            for share in (0.02, 0.4, 0.75):
                file.seek(int(file.frames * share))
                parts.append(file.read(int(most_seconds * rate / 3), dtype="float32", always_2d=True).mean(1))
            samples = np.concatenate(parts)
        else:
            samples = file.read(int(most_seconds * rate), dtype="float32", always_2d=True).mean(1)
    if rate != RATE:
        samples = soxr.resample(samples, rate, RATE, "HQ")
    return np.nan_to_num(trimmed(np.asarray(samples, np.float32)))


def finished(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A clip, int16 `(64000,)`: padded or cut, at -30 to -14 dBFS, over noise at -75 dBFS."""
    clip = np.zeros(SAMPLES, np.float32)
    clip[: min(SAMPLES, len(samples))] = samples[:SAMPLES]
    clip = at_level(clip, rng.uniform(-30, -14)) + rng.normal(0, 10 ** (-75 / 20), SAMPLES)
    return (np.clip(clip, -1, 1) * 32767).astype(np.int16)


def print_of(samples: np.ndarray) -> np.ndarray:
    """What a recording is known by, float32 `(62, 28)`: the log spectrum of its first second, each band
    without its mean, of length 1 as a whole.
    """
    second = np.zeros(RATE, np.float32)
    second[: min(RATE, len(samples))] = samples[:RATE]
    frames = second[np.arange(400)[None] + 250 * np.arange(62)[:, None]] * np.hanning(400)
    spectrum = np.abs(np.fft.rfft(frames, 512))[:, 4:228].reshape(62, 28, 8).mean(2)
    logs = np.log(spectrum + 1e-4)
    logs -= logs.mean(0)
    return (logs / (np.linalg.norm(logs) + 1e-9)).astype(np.float32)
