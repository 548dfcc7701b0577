"""What `beatline inspect` finds, and what it costs.

    python benchmarks/inspection.py finds     # made duplicates and made label errors on the embedded set, some 2 minutes
    python benchmarks/inspection.py pass      # measuring clips of 10 s on one thread and on two, some 1 minute
    python benchmarks/inspection.py match [CLIPS]     # comparing the fingerprints of CLIPS clips, 42 531 if not named
"""

import csv
import io
import resource
import sys
import tempfile
import time
from importlib.resources import files
from pathlib import Path

import numpy as np
import soundfile
import soxr

from beatline import fingerprint, inspection, label_noise, manifest
from beatline.config import DataConfig
from beatline.fingerprint import band_power, candidates, contrast, groups, similarity, sketch
from beatline.prepare import prepare

RATE = 16_000


def recoded(sound: np.ndarray, **options: object) -> np.ndarray:
    """The sound after a lossy coder."""
    stream = io.BytesIO()
    soundfile.write(stream, sound, RATE, **options)
    stream.seek(0)
    return soundfile.read(stream)[0]


def changes(rng: np.random.Generator) -> dict:
    """Ways to make a near-duplicate of a sound, float64 to float64."""
    return {
        "gain -9 dB": lambda s: s * 10 ** (-9 / 20),
        "Ogg Vorbis, default quality": lambda s: recoded(s, format="OGG", subtype="VORBIS"),
        "MP3, default quality": lambda s: recoded(s, format="MP3", subtype="MPEG_LAYER_III"),
        "Ogg Vorbis, lowest quality but one": lambda s: recoded(s, format="OGG", subtype="VORBIS", compression_level=0.9),
        "MP3, lowest quality but one": lambda s: recoded(s, format="MP3", subtype="MPEG_LAYER_III", compression_level=0.9),
        "starts 50 ms later": lambda s: s[800:],
        "starts 53.3 ms earlier": lambda s: np.concatenate([rng.normal(0, 1e-4, 853), s])[: len(s)],
        "noise 30 dB down": lambda s: s + rng.normal(0, 10 ** (-30 / 20) * np.sqrt((s**2).mean()), len(s)),
        "to 11 025 Hz and back": lambda s: soxr.resample(soxr.resample(s, RATE, 11_025), 11_025, RATE),
        "all: gain, 50 ms, noise, MP3": lambda s: recoded(0.4 * s[800:] + rng.normal(0, 10 ** (-38 / 20) * np.sqrt((s**2).mean()), len(s) - 800), format="MP3", subtype="MPEG_LAYER_III"),
    }


def finds() -> None:
    """Recall and precision of near-duplicates, and of planted label errors."""
    with tempfile.TemporaryDirectory() as folder:
        table = manifest.read(DataConfig(csv="mini"))
        prepare(table, Path(folder) / "store", 2)
        clips = inspection.open_store(Path(folder) / "store")
        rows = csv.DictReader((files("beatline") / "data/mini-audioset/manifest.csv").read_text().splitlines())
        sources = [set(row["source"].split("|")) for row in rows]
        count, rng = len(clips.ids), np.random.default_rng(0)
        sounds = [clips.samples(i) for i in range(count)]
        seen = [contrast(band_power(sound)) for sound in sounds]
        sketches = [sketch(one) for one in seen]

        def alike(seen: list[np.ndarray], sketches: list[np.ndarray]) -> list[tuple[int, int]]:
            return [(a, b) for a, b in candidates(np.stack(sketches)).tolist() if similarity(seen[a], seen[b]) >= fingerprint.SAME]

        own = alike(seen, sketches)
        twins = {clip: number for number, group in enumerate(groups(own)) for clip in group}
        true = [bool(sources[a] & sources[b]) for a, b in own]
        print(f"the set itself: {len(own)} pairs, {sum(true)} of them made of one source file by the set's own table")
        for name, change in changes(rng).items():
            copies = [np.clip(np.rint(32768 * change(sound / 32768)), -32768, 32767).astype(np.int16) for sound in sounds]
            others = [contrast(band_power(copy)) for copy in copies]
            pairs = alike(seen + others, sketches + [sketch(other) for other in others])
            member = {clip: number for number, group in enumerate(groups(pairs)) for clip in group}
            recall = np.mean([member.get(i, -1) == member.get(i + count, -2) for i in range(count)])
            # the set holds the same recording from two packages, which its table cannot know: a pair that the unchanged set has too says nothing of the change
            strict = [a % count == b % count or bool(sources[a % count] & sources[b % count]) for a, b in pairs]
            right = [known or twins.get(a % count, -1) == twins.get(b % count, -2) for known, (a, b) in zip(strict, pairs, strict=True)]
            print(f"{name:36} recall {recall:.3f}   precision {np.mean(strict):.3f} by the set's table, {np.mean(right):.3f} where the set's own groups count as right")

        heard = inspection._hear(clips, np.arange(count), lambda n: None)
        together = np.arange(count)
        for group in groups(own):
            together[group] = group[0]
        targets, areas, shares = clips.targets(np.arange(count)), [], []
        for seed in range(10):
            draw = np.random.default_rng(seed)
            wrong, planted = np.zeros(count, bool), targets.copy()
            wrong[draw.permutation(count)[: count // 10]] = True
            for i in np.flatnonzero(wrong):
                planted[i] = targets[draw.choice(np.flatnonzero(targets @ targets[i] == 0))]
            doubt = label_noise.suspicion(label_noise.agreement(heard.sounds, planted, together))
            rank = np.empty(count)
            rank[np.argsort(doubt)] = np.arange(count)
            areas.append((rank[wrong].mean() - (wrong.sum() - 1) / 2) / (~wrong).sum())
            shares.append(wrong[np.argsort(-doubt)[: wrong.sum()]].mean())
        print(f"a tenth of the clips given another clip's labels, 10 draws: AUC of doubt {np.mean(areas):.3f}; of the 45 most doubted {100 * np.mean(shares):.0f} % were planted (chance 10 %)")


class Stand:
    """A store's public face over sounds of 10 s made on the spot from a few of noise and tones."""

    def __init__(self, clips: int):
        rng = np.random.default_rng(0)
        self.ids, self._base = [f"clip-{i}" for i in range(clips)], rng.normal(0, 2000, (8, 20 * RATE)).astype(np.int16)

    def samples(self, clip: int) -> np.ndarray:
        """10 s of int16."""
        begin = clip * 7919 % (10 * RATE)
        return self._base[clip % 8, begin : begin + 10 * RATE]


def measure() -> None:
    """Clips a second of the pass over the sound."""
    for workers in (1, 2):
        inspection.WORKERS = workers
        clips = Stand(1000)
        begin, used = time.perf_counter(), time.process_time()
        inspection._hear(clips, np.arange(len(clips.ids)), lambda n: None)
        rate, work = len(clips.ids) / (time.perf_counter() - begin), (time.process_time() - used) / len(clips.ids)
        print(f"{workers} threads: {rate:.0f} clips of 10 s a second, {42_531 / rate / 60:.1f} minutes for 42 531; {1000 * work:.1f} ms of one core a clip; peak memory {peak()} MB")


def match(clips: int) -> None:
    """Time and memory of finding pairs among random fingerprints with one clip in fifty a copy that shares a third of its landmarks."""
    rng = np.random.default_rng(0)
    sketches = np.empty((clips, fingerprint.SKETCH), np.uint32)
    for begin in range(0, clips, 100_000):
        part = sketches[begin : begin + 100_000]
        # real landmarks fall as densely as if there were 2.8 million of equal chance (measured on the embedded set)
        part[:] = (rng.integers(0, 2_800_000, part.shape, np.uint32) * np.uint32(5)) << np.uint32(8) | rng.integers(0, 80, part.shape, np.uint32)
    copies = np.arange(0, clips - 1, 50)
    sketches[copies + 1, :20] = sketches[copies, :20]
    before, begin = peak(), time.perf_counter()
    pairs = candidates(sketches)
    seconds = time.perf_counter() - begin
    found = np.isin(copies * clips + copies + 1, pairs[:, 0] * clips + pairs[:, 1]).mean()
    print(f"{clips} clips: {seconds:.1f} s, peak memory {before} -> {peak()} MB; {len(pairs)} pairs to compare, {100 * found:.2f} % of {len(copies)} copies among them")


def peak() -> int:
    """Largest resident size so far, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


if __name__ == "__main__":
    what = sys.argv[1] if len(sys.argv) > 1 else "finds"
    if what == "match":
        match(int(sys.argv[2]) if len(sys.argv) > 2 else 42_531)
    else:
        {"finds": finds, "pass": measure}[what]()
