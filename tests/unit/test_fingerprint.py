"""Near-duplicates are found whatever was done to them, others are not, and the cost stays linear."""

import io
from importlib.resources import files
from itertools import pairwise

import numpy as np
import pytest
import soundfile
import soxr

from beatline.audio.media import decode
from beatline.data import fingerprint
from beatline.data.fingerprint import (
    ABSENT,
    SAME,
    SKETCH,
    band_power,
    candidates,
    contrast,
    groups,
    similarity,
    sketch,
)

CHANGES = {
    "gain": lambda s: 0.2 * s,
    "ogg": lambda s: recoded(s, format="OGG", subtype="VORBIS"),
    "mp3": lambda s: recoded(s, format="MP3", subtype="MPEG_LAYER_III"),
    "50 ms": lambda s: s[800:],
    "53 ms": lambda s: np.concatenate([np.zeros(853), s]),
    "noise": lambda s: (
        s + np.random.default_rng(0).normal(0, 10 ** (-30 / 20) * np.sqrt((s**2).mean()), len(s))
    ),
    "resampled": lambda s: soxr.resample(soxr.resample(s, 16_000, 11_025), 11_025, 16_000),
}


def recoded(sound, **options):
    stream = io.BytesIO()
    soundfile.write(stream, sound, 16_000, **options)
    stream.seek(0)
    return soundfile.read(stream)[0]


def whole(sound) -> np.ndarray:
    return np.clip(np.rint(32_768 * sound), -32_768, 32_767).astype(np.int16)


@pytest.fixture(scope="module")
def sounds() -> list[np.ndarray]:
    """One clip of each of 22 sounds of the embedded set."""
    folder = files("beatline") / "assets/mini-audioset/audio"
    names = sorted(
        p.name for p in folder.iterdir() if not p.name.startswith("test_") and p.name.endswith("_05.ogg")
    )
    return [decode(folder / name).samples for name in names]


def seen(samples) -> np.ndarray:
    return contrast(band_power(samples))


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_copy_is_found_and_nothing_else(sounds, change):
    copies = [whole(CHANGES[change](sound / 32_768)) for sound in sounds]
    everything = [seen(sound) for sound in sounds + copies]
    pairs = [
        (a, b)
        for a, b in candidates(np.stack([sketch(one) for one in everything])).tolist()
        if similarity(everything[a], everything[b]) >= SAME
    ]
    found = [a for a, b in pairs if b == a + len(sounds)]
    assert len(found) >= len(sounds) - 1 and len(found) == len(pairs)


def test_gain_leaves_the_landmarks_alone(sounds):
    for sound in sounds[:5]:
        assert len(np.intersect1d(sketch(seen(sound)), sketch(seen(whole(sound / 65_536))))) > 0.9 * SKETCH


def test_landmarks_move_with_the_sound(sounds):
    one = seen(sounds[0])
    later = sketch(np.vstack([np.zeros((64, one.shape[1]), np.float32), one]))
    assert np.array_equal(later, sketch(one) + np.uint32(8))  # 64 frames of 16 ms are eight units of 128 ms


def test_power_is_power():
    tone = whole(0.5 * np.sin(2 * np.pi * 1000 * np.arange(16_000) / 16_000))
    power = band_power(tone)
    assert power.shape == (59, 24) and (power.argmax(axis=1) == power[0].argmax()).all()
    assert np.allclose(band_power(whole(tone / 65_536)), power / 4, rtol=1e-2, atol=1e-9)


def test_a_long_clip_is_measured_in_blocks(sounds, monkeypatch):
    expected = band_power(sounds[0])
    monkeypatch.setattr(fingerprint, "BLOCK", 7)
    assert np.allclose(band_power(sounds[0]), expected, rtol=1e-5)


@pytest.mark.parametrize(
    "samples",
    [
        np.zeros(64_000, np.int16),
        np.zeros(1, np.int16),
        np.full(900, -32_768, np.int16),
        np.ones(1500, np.int16),
    ],
)
def test_what_has_no_features_has_no_fingerprint(samples):
    one = seen(samples)
    assert np.isfinite(one).all() and (sketch(one) == ABSENT).all() and similarity(one, one) in (0.0, 1.0)
    assert candidates(np.stack([sketch(one)] * 3)).shape == (0, 2)


def test_similarity_finds_the_shift(sounds):
    a = seen(sounds[0])
    assert similarity(a, a) == pytest.approx(1) and similarity(a, 3 * a) == pytest.approx(1)
    assert similarity(a[60:], a[:-40]) == pytest.approx(1) and similarity(a[:-40], a[60:]) == pytest.approx(1)
    assert similarity(a, seen(sounds[7])) < 0.6
    assert similarity(a, np.zeros_like(a)) == 0
    assert similarity(a[:100], a[90:190]) < SAME < similarity(a[:100], a[45:145])  # the first two only touch


def test_candidates_are_those_of_a_slow_search(monkeypatch):
    rng = np.random.default_rng(0)
    sketches = np.full((60, SKETCH), ABSENT)
    sketches[:, :20] = rng.integers(0, 40, (60, 20)) << 8 | rng.integers(0, 3, (60, 20))
    slow = set()
    for a in range(60):
        for b in range(a + 1, 60):
            shared = [
                (x, y)
                for x in sketches[a, :20].tolist()
                for y in sketches[b, :20].tolist()
                if x >> 8 == y >> 8
            ]
            shifts = [((y & 255) - (x & 255) + 258) // 4 for x, y in shared]
            if max(map(shifts.count, shifts), default=0) >= fingerprint.VOTES:
                slow.add((a, b))
    monkeypatch.setattr(fingerprint, "NEIGHBOURS", 60)
    monkeypatch.setattr(fingerprint, "CROWD", 60)
    assert {tuple(pair) for pair in candidates(sketches).tolist()} == slow
    monkeypatch.setattr(fingerprint, "ROUND", 1000)
    assert {tuple(pair) for pair in candidates(sketches).tolist()} == slow


def test_a_sound_that_occurs_a_thousand_times_is_a_chain(sounds):
    copies = np.tile(sketch(seen(sounds[0])), (1000, 1))
    pairs = candidates(copies)
    assert len(pairs) <= fingerprint.NEIGHBOURS * 1000
    assert groups(pairs.tolist()) == [list(range(1000))]


def test_few_clips_have_no_pairs():
    for clips in (0, 1):
        assert candidates(np.full((clips, SKETCH), ABSENT)).shape == (0, 2)
        assert candidates(np.arange(clips * SKETCH, dtype=np.uint32).reshape(clips, SKETCH)).shape == (0, 2)


def test_groups_join_whatever_is_connected():
    assert groups([]) == []
    assert groups([(5, 1), (2, 3), (1, 9), (7, 7)]) == [[1, 5, 9], [2, 3], [7]]
    assert groups(pairwise(range(500))) == [list(range(500))]
