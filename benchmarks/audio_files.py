"""Audio files for the benchmarks that start programs: mixed formats, rates and lengths, written once from a
fixed seed.
"""

from pathlib import Path

import models
import numpy as np
import soundfile

from beatline.audio.media import decode

FORMATS = (("wav", 16_000, 1), ("flac", 44_100, 2), ("mp3", 44_100, 2), ("ogg", 44_100, 1))
"""Format, rate and channels, in turn."""


def write_mixed(folder: Path, count: int, shortest: float = 2.0, longest: float = 10.0) -> list[Path]:
    """Noise clips of random length in all formats in turn."""
    folder.mkdir(parents=True, exist_ok=True)
    rng, files = np.random.default_rng(0), []
    for number in range(count):
        kind, rate, channels = FORMATS[number % len(FORMATS)]
        length = rng.uniform(shortest, longest)
        sound = models.waveforms(channels, length * rate / models.SAMPLE_RATE, seed=number).T
        files.append(folder / f"{number:04d}.{kind}")
        soundfile.write(files[-1], sound, rate)
    return files


def write_prepared(folder: Path, files: list[Path]) -> list[Path]:
    """The same sounds as 16 kHz mono WAV, which is what ESPnet's programs expect."""
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for file in files:
        made.append(folder / f"{file.stem}.wav")
        soundfile.write(made[-1], decode(file).samples, models.SAMPLE_RATE)
    return made


def write_long(folder: Path, seconds: float) -> Path:
    """One 16 kHz WAV of that length, a minute of noise over and over."""
    folder.mkdir(parents=True, exist_ok=True)
    path, minute = folder / f"{seconds:g}s.wav", models.waveforms(1, min(60.0, seconds))[0]
    with soundfile.SoundFile(path, "w", models.SAMPLE_RATE, 1) as file:
        for begin in range(0, round(seconds), 60):
            file.write(minute[: round((seconds - begin) * models.SAMPLE_RATE)])
    return path
