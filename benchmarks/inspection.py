"""What `beatline inspect` finds, and what it costs.

./bench.sh inspection        some five minutes on two cores

Made near-duplicates and made label errors on the embedded set, whose own table says which clips share a
source; the speed of the pass over the sound; finding pairs among the fingerprints of as many clips as AS-20K
and AS-2M have.
"""

import csv
import io
import time
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import harness
import numpy as np
import soundfile
import soxr

from beatline.config import DataConfig
from beatline.data import fingerprint, inspection, label_noise, manifest
from beatline.data.fingerprint import band_power, candidates, contrast, groups, similarity, sketch
from beatline.data.prepare import prepare

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
        "Ogg Vorbis, lowest quality but one": lambda s: recoded(
            s, format="OGG", subtype="VORBIS", compression_level=0.9
        ),
        "MP3, lowest quality but one": lambda s: recoded(
            s, format="MP3", subtype="MPEG_LAYER_III", compression_level=0.9
        ),
        "starts 50 ms later": lambda s: s[800:],
        "starts 53.3 ms earlier": lambda s: np.concatenate([rng.normal(0, 1e-4, 853), s])[: len(s)],
        "noise 30 dB down": lambda s: s + rng.normal(0, 10 ** (-30 / 20) * np.sqrt((s**2).mean()), len(s)),
        "to 11 025 Hz and back": lambda s: soxr.resample(soxr.resample(s, RATE, 11_025), 11_025, RATE),
        "all: gain, 50 ms, noise, MP3": lambda s: recoded(
            0.4 * s[800:] + rng.normal(0, 10 ** (-38 / 20) * np.sqrt((s**2).mean()), len(s) - 800),
            format="MP3",
            subtype="MPEG_LAYER_III",
        ),
    }


def finds(some: int) -> Iterator[harness.Row]:
    """Recall and precision of near-duplicates by `some` of the changes, and of planted label errors."""
    with harness.scratch() as folder:
        table = manifest.read(DataConfig(csv="mini"))
        prepare(table, Path(folder) / "store", 2)
        clips = inspection.open_store(Path(folder) / "store")
        rows = csv.DictReader(
            (files("beatline") / "assets/mini-audioset/manifest.csv").read_text().splitlines()
        )
        sources = [set(row["source"].split("|")) for row in rows]
        count, rng = len(clips.ids), np.random.default_rng(0)
        sounds = [clips.samples(i) for i in range(count)]
        seen = [contrast(band_power(sound)) for sound in sounds]
        sketches = [sketch(one) for one in seen]

        def alike(seen: list[np.ndarray], sketches: list[np.ndarray]) -> list[tuple[int, int]]:
            return [
                (a, b)
                for a, b in candidates(np.stack(sketches)).tolist()
                if similarity(seen[a], seen[b]) >= fingerprint.SAME
            ]

        own = alike(seen, sketches)
        twins = {clip: number for number, group in enumerate(groups(own)) for clip in group}
        true = [bool(sources[a] & sources[b]) for a, b in own]
        yield harness.state(
            "inspection/own",
            "near-duplicate pairs in the embedded set itself",
            len(own),
            "pairs",
            of_one_source_by_its_table=sum(true),
        )
        for name, change in list(changes(rng).items())[:some]:
            copies = [
                np.clip(np.rint(32768 * change(sound / 32768)), -32768, 32767).astype(np.int16)
                for sound in sounds
            ]
            others = [contrast(band_power(copy)) for copy in copies]
            pairs = alike(seen + others, sketches + [sketch(other) for other in others])
            member = {clip: number for number, group in enumerate(groups(pairs)) for clip in group}
            recall = np.mean([member.get(i, -1) == member.get(i + count, -2) for i in range(count)])
            # the set holds the same recording from two packages, which its table cannot know: a pair that the
            # unchanged set has too says nothing of the change
            strict = [
                a % count == b % count or bool(sources[a % count] & sources[b % count]) for a, b in pairs
            ]
            right = [
                known or twins.get(a % count, -1) == twins.get(b % count, -2)
                for known, (a, b) in zip(strict, pairs, strict=True)
            ]
            facts = {
                "precision_by_the_table": float(np.mean(strict)),
                "precision_with_the_sets_own_groups": float(np.mean(right)),
            }
            yield harness.state(
                f"inspection/{name}",
                f"copies found again after: {name}",
                recall,
                "of them",
                harness.at_least(0.9),
                **facts,
            )

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
        facts = {"planted_among_the_45_most_doubted": float(np.mean(shares)), "chance": 0.1}
        yield harness.summarise(
            "inspection/label-errors",
            "a tenth of the clips given another clip's labels: AUC of the doubt, 10 draws",
            areas,
            "",
            **facts,
        )


class Stand:
    """A store's public face over sounds of 10 s made on the spot from a few of noise and tones."""

    def __init__(self, clips: int):
        rng = np.random.default_rng(0)
        self.ids, self._base = (
            [f"clip-{i}" for i in range(clips)],
            rng.normal(0, 2000, (8, 20 * RATE)).astype(np.int16),
        )

    def samples(self, clip: int) -> np.ndarray:
        """10 s of int16."""
        begin = clip * 7919 % (10 * RATE)
        return self._base[clip % 8, begin : begin + 10 * RATE]


def hearing(clips: int, pairs: int) -> Iterator[harness.Row]:
    """Clips a second of the pass over the sound."""
    stand = Stand(clips)

    def listen(workers: int) -> None:
        inspection.WORKERS = workers
        inspection._hear(stand, np.arange(clips), lambda n: None)  # type: ignore[arg-type]

    times = harness.interleave({"one": lambda: listen(1), "two": lambda: listen(2)}, pairs)
    rates = [clips / took for took in times["two"]]
    yield harness.summarise(
        "inspection/pass",
        "clips of 10 s heard (levels, spectrum, fingerprint), two threads",
        rates,
        "clips/s",
        minutes_for_42_531=42_531 / 60 / float(np.median(rates)),
    )
    yield harness.ratio("inspection/pass-two", "two threads over one", times["two"], times["one"])


def fingerprints(clips: int) -> np.ndarray:
    """Random sketches `(clips, SKETCH)` as dense as real ones, one clip in fifty a copy that shares a third
    of its landmarks.
    """
    rng = np.random.default_rng(0)
    sketches = np.empty((clips, fingerprint.SKETCH), np.uint32)
    for begin in range(0, clips, 100_000):
        part = sketches[begin : begin + 100_000]
        # real landmarks fall as densely as if there were 2.8 million of equal chance (measured on the
        # embedded set)
        part[:] = (rng.integers(0, 2_800_000, part.shape, np.uint32) * np.uint32(5)) << np.uint32(
            8
        ) | rng.integers(0, 80, part.shape, np.uint32)
    copies = np.arange(0, clips - 1, 50)
    sketches[copies + 1, :20] = sketches[copies, :20]
    return sketches


def matching(clips: int) -> Iterator[harness.Row]:
    """Time and memory of finding pairs among random fingerprints."""
    sketches, copies = fingerprints(clips), np.arange(0, clips - 1, 50)
    begin = time.perf_counter()
    pairs = candidates(sketches)
    seconds = time.perf_counter() - begin
    found = float(np.isin(copies * clips + copies + 1, pairs[:, 0] * clips + pairs[:, 1]).mean())
    del sketches, pairs
    memory = harness.memory_of("inspection:match", clips=clips)
    yield harness.state(
        f"inspection/match-{clips}",
        f"near-duplicates among the fingerprints of {clips} clips",
        seconds,
        "s",
        copies_found=found,
        memory_mb=memory.peak - memory.before,
    )


def match(clips: int) -> harness.Work:
    """For `harness.memory_of`."""
    sketches = fingerprints(clips)
    return lambda: candidates(sketches)


def rows(options: harness.Options) -> Iterator[harness.Row]:
    """What it finds, then what it costs."""
    yield from finds(1 if options.smoke else 100)
    yield from hearing(50 if options.smoke else 1000, options.pairs)
    for clips in (2000,) if options.smoke else (42_531, 2_084_320):
        yield from matching(clips)


if __name__ == "__main__":
    harness.main(rows, __doc__)
