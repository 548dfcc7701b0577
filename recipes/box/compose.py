"""clips and the teacher's scores -> compositions: new clips of labels that are rare.

In: the training clips. Out: clips made of the sounding part of one, at another speed, with another colour,
repeated until the clip is full; in nearly half of them over a second. Clips are drawn by the rarity of what
the teacher hears in them. Whatever is drawn is a function of the composition's number.
"""

from pathlib import Path

import numpy as np
import soxr
from clips import write
from sound import FRAME, RATE, SAMPLES, faded, levels, rms

from beatline.train.augmentation import generator

SILENCE = "/m/028v0c"
BLOCK = 2000
"""Compositions of a file."""


def rarity(maxima: np.ndarray, mids: list[str]) -> np.ndarray:
    """A weight for each clip, which sum to 1: the sum over labels of its score over that of all clips.

    Args:
        maxima: The highest score of each label over a clip's patches, `(clips, labels)`. Silence, which a
            short sound has in most of its patches, does not count.
    """
    heard = maxima * (maxima > 0.1)
    heard[:, mids.index(SILENCE)] = 0
    weights = (heard / (heard.sum(0) + 5)).sum(1) + 1e-9
    return weights / weights.sum()


def sounding(samples: np.ndarray) -> np.ndarray:
    """The part of a clip between its first and last sound."""
    frames = levels(samples)
    heard = np.flatnonzero(frames > max(frames.max() * 0.03, 3e-4))
    return samples[heard[0] * FRAME : (heard[-1] + 1) * FRAME] if len(heard) else samples


def varied(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A clip's sound at 0.8 to 1.25 of its speed, brighter or darker, repeated with gaps to fill 4 s."""
    sound = sounding(samples)
    if rng.random() < 0.7:
        speed = float(np.exp(rng.uniform(-0.22, 0.22)))
        sound = np.asarray(soxr.resample(sound, RATE, RATE / speed, "MQ"), np.float32)
    if rng.random() < 0.4:
        gain = rng.uniform(0.2, 0.9)
        before = np.concatenate([sound[:1], sound[:-1]])
        sound = sound - gain * before if rng.random() < 0.5 else sound + gain * before
    sound = sound / (np.abs(sound).max() + 1e-6)
    if len(sound) >= SAMPLES:
        begin = int(rng.integers(len(sound) - SAMPLES + 1))
        return sound[begin : begin + SAMPLES]
    clip = np.zeros(SAMPLES, np.float32)
    early = rng.random() < 0.7
    at = int(rng.uniform(0, 0.15) * SAMPLES if early else rng.integers(SAMPLES - len(sound) + 1))
    repeated = rng.random() < 0.75
    sound = faded(sound)
    while at < SAMPLES:
        count = min(len(sound), SAMPLES - at)
        clip[at : at + count] += sound[:count] * rng.uniform(0.7, 1)
        if not repeated:
            break
        at += len(sound) + int(rng.uniform(0.01, 0.5) * RATE)
    return clip


def composed(first: np.ndarray, second: np.ndarray | None, rng: np.random.Generator) -> np.ndarray:
    """A composition, int16: a clip's sound, and another's at -10 to 10 dB of it."""
    clip = varied(first, rng)
    clip = clip / rms(clip)
    if second is not None:
        over = varied(second, rng)
        clip = clip + over / rms(over) * 10 ** (rng.uniform(-10, 10) / 20)
    clip = clip / rms(clip) * 10 ** (rng.uniform(-32, -16) / 20)
    clip = np.clip(clip, -0.99, 0.99) + rng.normal(0, 10 ** (-76 / 20), SAMPLES)
    return (np.clip(clip, -0.999, 0.999) * 32767).astype(np.int16)


def compose(out: Path, block: int, sources: Path, weights: np.ndarray, rows: list[dict[str, str]]) -> str:
    """Writes a block of compositions, unless it is there; returns its name.

    Args:
        sources: An array of training clips alone, int16 `(clips, 64000)`.
        weights: Of `rarity`.
        rows: Of the clips: their licence and recordings.
    """
    if Path(f"{out}.csv").exists():
        return out.name
    clips = np.load(sources, mmap_mode="r")
    made = []
    about = []
    cumulated = np.cumsum(weights)
    for number in range(block * BLOCK, (block + 1) * BLOCK):
        rng = generator("composition", number)
        chosen = np.searchsorted(cumulated, rng.random(2) * cumulated[-1])
        pair = [min(int(index), len(rows) - 1) for index in chosen]
        if rng.random() >= 0.45:
            pair = pair[:1]
        parts = [clips[index].astype(np.float32) / 32768 for index in pair]
        made.append(composed(parts[0], parts[1] if len(parts) > 1 else None, rng))
        names = "|".join(dict.fromkeys("|".join(rows[index]["recordings"] for index in pair).split("|")))
        licences = "; ".join(dict.fromkeys(rows[index]["licence"] for index in pair))
        about.append(("train", licences, names))
    write(out, made, about, {})
    return out.name
