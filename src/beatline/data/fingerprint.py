"""samples -> fingerprint -> near-duplicates: which clips hold the same recording, whatever was done to it on
the way.

In: 16 kHz int16 samples of a clip at a time. Out: its `contrast` and a `sketch` of 256 bytes; over all
sketches the pairs worth comparing. The contrast says where the sound stands out in time and frequency.
Gain drops out of the contrast. Coding, resampling and noise leave the strongest peaks. A shift moves all
peaks alike. Time and memory grow with the number of clips, never with its square. NumPy only.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations

import numpy as np

from beatline.audio.samples import FULL_SCALE, SAMPLE_RATE

WINDOW = 1024  # samples, 64 ms
HOP = 256  # samples, 16 ms
BANDS = 24  # equally wide on the mel scale
LOW_HZ = 100.0  # coders and telephone-like channels keep what lies between LOW_HZ and HIGH_HZ
HIGH_HZ = 5500.0
BLOCK = 1024  # frames transformed at once: bounds the memory for long clips
SMOOTH = 3.0  # standard deviation of what is seen, frames
SURROUND = 12.0  # standard deviation of the surroundings that it is compared with, frames
FLOOR = 2e-3  # of the clip's mean power: below it noise 30 dB down decides, so nothing is seen there

PEAK_REACH = 6, 2  # a peak is the highest within that many frames and bands
PEAK_LEAST = 0.1  # nats above its surroundings
PEAKS_PER_SECOND = 8
FAN = 6  # a landmark is a peak with three of the next six
TIME_STEP = 4  # frames: distances in time are rounded down to 64 ms
SKETCH = 64  # landmarks kept of a clip: those of the lowest hash, so that two copies keep the same
ABSENT = np.uint32(0xFFFFFFFF)

# landmarks are matched a part at a time, and pairs counted in rounds: bounds the memory for millions of clips
PARTS = 16
ROUND = 1 << 25  # landmarks per round
NEIGHBOURS = 8  # clips that a clip is linked with for a landmark
CROWD = 16  # a landmark of more clips links only those that have it at nearly the same time
VOTES = 2  # landmarks at the same distance in time that make a pair worth comparing
# similarity from which two clips are near-duplicates; `docs/decisions/0009-near-duplicates.md` shows what
# lies on both sides
SAME = 0.8
OVERLAP = 0.5  # of the shorter clip, at least


def band_power(samples: np.ndarray) -> np.ndarray:
    """Power of int16 samples, `(frames, 24 bands)` float32, full scale 1. A clip shorter than a window is a
    single frame.
    """
    waveform = np.pad(samples, (0, max(0, WINDOW - len(samples)))).astype(np.float32) / np.float32(FULL_SCALE)
    frames = np.lib.stride_tricks.sliding_window_view(waveform, WINDOW)[::HOP]
    taper = np.hanning(WINDOW + 1)[:-1].astype(np.float32)
    borders = _borders()
    power = np.empty((len(frames), BANDS), np.float32)
    for begin in range(0, len(frames), BLOCK):
        spectrum = np.fft.rfft(frames[begin : begin + BLOCK] * taper, axis=1)[:, : borders[-1]]
        power[begin : begin + BLOCK] = np.add.reduceat(
            spectrum.real**2 + spectrum.imag**2, borders[:-1], axis=1
        )
    return power / (np.diff(borders) * np.sum(taper**2)).astype(np.float32)


def _borders() -> np.ndarray:
    """Bins of the transform between which the bands lie, `(25,)`."""
    low, high = np.log1p(np.array([LOW_HZ, HIGH_HZ]) / 700)
    return np.rint(np.expm1(np.linspace(low, high, BANDS + 1)) * 700 * WINDOW / SAMPLE_RATE).astype(int)


def contrast(power: np.ndarray) -> np.ndarray:
    """How far each point of `band_power` stands out from what is before and after it, in nats, `(frames,
    bands)` float32.
    """
    smooth = _blur(power, SMOOTH)
    level = np.log(smooth + FLOOR * smooth.mean() + np.float32(1e-12))
    return level - _blur(level, SURROUND)


def _blur(values: np.ndarray, deviation: float) -> np.ndarray:
    """Values smoothed over time by a normal curve."""
    reach = int(np.ceil(3 * deviation))
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / deviation) ** 2).astype(np.float32)
    padded = np.pad(values, ((reach, reach), (0, 0)), mode="edge")
    return np.lib.stride_tricks.sliding_window_view(padded, len(weights), axis=0) @ (weights / weights.sum())


def sketch(seen: np.ndarray) -> np.ndarray:
    """The clip's landmarks of the lowest hash, `(64,)` uint32, `ABSENT` where the clip has fewer.

    A landmark is 24 bits of hash, then 8 bits of time in 128 ms.

    Args:
        seen: As from `contrast`.
    """
    time, band = _peaks(seen)
    hashes, times = [np.empty(0, np.uint64)], [np.empty(0, np.int64)]
    for positions in combinations(range(1, FAN + 1), 3):
        first = np.arange(max(0, len(time) - positions[-1]))
        found = band[first].astype(np.uint64)
        for position in positions:
            distance = (time[first + position] - time[first]) // TIME_STEP
            found = _mix(found << np.uint64(20) ^ (band[first + position] << 12 | distance).astype(np.uint64))
        hashes.append(found)
        times.append(time[first])
    lowest, first_index = np.unique(np.concatenate(hashes), return_index=True)
    when = np.concatenate(times)[first_index[:SKETCH]] // (2 * TIME_STEP)
    result = np.full(SKETCH, ABSENT)
    result[: len(when)] = (lowest[:SKETCH].astype(np.uint32) << np.uint32(8)) | (when & 255).astype(np.uint32)
    return result


def _peaks(seen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Frame and band of the strongest peaks, in the order of time."""
    highest = seen
    for axis, reach in enumerate(PEAK_REACH):
        padded = np.pad(
            highest, [(reach, reach) if axis == k else (0, 0) for k in (0, 1)], constant_values=-np.inf
        )
        highest = np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1, axis=axis).max(axis=-1)
    time, band = np.nonzero((seen == highest) & (seen > PEAK_LEAST))
    most = max(8, PEAKS_PER_SECOND * len(seen) * HOP // SAMPLE_RATE)
    kept = np.sort(np.argsort(-seen[time, band], kind="stable")[:most])
    return time[kept], band[kept]


def _mix(values: np.ndarray) -> np.ndarray:
    """Values with their bits spread over all 64: a fixed permutation, the finisher of SplitMix64."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def candidates(sketches: np.ndarray) -> np.ndarray:
    """Pairs of clips that share landmarks at the same distance in time, `(pairs, 2)` int64, in order.

    The lower clip comes first.

    A recording that occurs many times is linked as a chain with its neighbours, not each with each.

    Args:
        sketches: As from `sketch`, `(clips, 64)` uint32.
    """
    clips = max(1, len(sketches))
    rounds = 1 + sketches.size // ROUND
    found = []
    for turn in range(rounds):
        votes = np.concatenate(
            [cast[cast // 256 % rounds == turn] for part in range(PARTS) for cast in _votes(sketches, part)]
        )
        votes.sort()
        enough = (
            votes[VOTES - 1 :] == votes[: len(votes) - VOTES + 1]
        )  # a vote cast often enough stands beside itself
        found.append(np.unique(votes[VOTES - 1 :][enough] // 256))
    pair = np.sort(np.concatenate(found))
    return np.stack([pair // clips, pair % clips], axis=1)


def _votes(sketches: np.ndarray, part: int) -> Iterator[np.ndarray]:
    """Arrays of int64: for each landmark that two clips share, the pair and the shift in half seconds."""
    clip, column = np.nonzero((sketches >> np.uint32(28) == part) & (sketches != ABSENT))
    landmarks = sketches[clip, column]
    order = np.argsort(landmarks, kind="stable")
    clip, landmarks = clip[order], landmarks[order]
    name = landmarks >> np.uint32(8)
    time = (landmarks & np.uint32(255)).astype(np.int64)
    starts = np.flatnonzero(np.append(True, name[1:] != name[:-1]))[: len(name)]
    crowd = np.diff(np.append(starts, len(name)))
    crowded = np.repeat(crowd > CROWD, crowd)
    for step in range(1, NEIGHBOURS + 1):
        here, there = slice(None, -step), slice(step, None)
        later = time[there] - time[here]
        linked = (name[there] == name[here]) & (clip[there] != clip[here]) & (~crowded[there] | (later <= 2))
        a, b, later = clip[here][linked], clip[there][linked], later[linked]
        shift = (np.where(a < b, later, -later) + 258) // 4  # 64 is none; at most 128
        yield (np.minimum(a, b) * len(sketches) + np.maximum(a, b)) * 256 + shift


def similarity(a: np.ndarray, b: np.ndarray) -> float:
    """How alike two clips are where they fit best, at most 1. It is the correlation of their contrasts, over
    all shifts that overlap enough.

    Args:
        a: As from `contrast`.
        b: The other's.
    """
    size = 1 << (len(a) + len(b) - 1).bit_length()

    def slide(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Sum of products of x with y moved along it, for each shift, `(size,)`; negative shifts are at the
        end.
        """
        return np.fft.irfft(
            (np.fft.rfft(x, size, axis=0) * np.fft.rfft(y, size, axis=0).conj()).sum(axis=1), size
        )

    def energy(x: np.ndarray) -> np.ndarray:
        return (x.astype(np.float64) ** 2).sum(axis=1, keepdims=True)

    over_a, over_b = np.ones((len(a), 1)), np.ones((len(b), 1))
    common = slide(over_a, over_b)
    norm = slide(energy(a), over_b) * slide(over_a, energy(b))
    least = 1e-9 * float(energy(a).sum() * energy(b).sum())
    good = (common > OVERLAP * min(len(a), len(b)) - 0.5) & (norm > least)
    if least == 0 or not good.any():
        return 0.0
    return float(min(1.0, (slide(a, b)[good] / np.sqrt(norm[good])).max()))


def groups(pairs: Iterable[Sequence[int]]) -> list[list[int]]:
    """Clips connected by pairs, each group in order, groups by their first clip."""
    leader: dict[int, int] = {}

    def find(clip: int) -> int:
        while leader.setdefault(clip, clip) != clip:
            leader[clip] = clip = leader[leader[clip]]
        return clip

    for a, b in pairs:
        low, high = sorted((find(a), find(b)))
        leader[high] = low
    together: dict[int, list[int]] = {}
    for clip in sorted(leader):
        together.setdefault(find(clip), []).append(clip)
    return list(together.values())
