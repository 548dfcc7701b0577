"""clips that the recipe plays and makes: General MIDI phrases, silence, noise, hum.

In: FluidR3's soundfont (MIT). Out: clips, as `clips.cut` makes them of recordings. Played by tinysoundfont.
Silence and noise teach what no recording of a game has: that nothing is heard.
"""

from pathlib import Path

import numpy as np
from clips import write
from sound import RATE, SAMPLES, finished, print_of

from beatline.train.augmentation import generator

DRUM_KITS = (0, 8, 16, 24, 25, 32, 40)
BAND = (
    0,
    4,
    16,
    19,
    24,
    25,
    27,
    29,
    30,
    32,
    33,
    34,
    38,
    40,
    42,
    48,
    50,
    52,
    56,
    57,
    61,
    65,
    66,
    71,
    73,
    80,
    81,
    88,
    89,
    104,
)
MAJOR = (0, 2, 4, 5, 7, 9, 11)
MINOR = (0, 2, 3, 5, 7, 8, 10)
Note = tuple[float, int, int, int, int]
"""Sample at which it is, 1 for on and 0 for off, channel, key, velocity."""


def play(soundfont: Path, out: Path, repeats: int = 6, bands: int = 450, drums: int = 130) -> None:
    """Writes a phrase of each of 120 programs so many times, small bands, and drums."""
    if Path(f"{out}.csv").exists():
        return
    import tinysoundfont  # of the recipe alone

    synthesiser = tinysoundfont.Synth(samplerate=RATE, gain=-3)
    font = synthesiser.sfload(str(soundfont))
    made = []
    rows = []

    def emit(name: str, notes: list[Note], rng: np.random.Generator) -> None:
        samples = _sound(synthesiser, notes)
        if np.abs(samples).max() >= 1e-3:
            made.append(finished(samples, rng))
            rows.append(("alone" if rng.random() < 0.05 else "train", "MIT", f"fluidr3:{name}"))

    for repeat in range(repeats):
        for program in range(120):
            rng = generator("program", program, repeat)
            synthesiser.sounds_off()
            synthesiser.program_select(0, font, 0, program)
            low = int(rng.choice([-12, 0, 0, 12])) if program else 0
            polyphonic = program < 32 or rng.random() < 0.2
            emit(f"program {program}", _line(rng, 0, rng.uniform(0.2, 0.6) * RATE, low, polyphonic), rng)
    for band in range(bands):
        rng = generator("band", band)
        synthesiser.sounds_off()
        beat = rng.uniform(0.2, 0.45) * RATE
        notes: list[Note] = []
        for channel in range(int(rng.integers(1, 4))):
            program = int(rng.choice(BAND))
            synthesiser.program_select(channel, font, 0, program)
            low = -12 if program in (32, 33, 34, 38, 42) else 0
            notes += _line(rng, channel, beat, low, program < 32 and rng.random() < 0.7)
        if rng.random() < 0.75:
            synthesiser.program_select(9, font, 128, int(rng.choice(DRUM_KITS)), True)
            notes += _drums(rng, beat / 2)
        emit("band", notes, rng)
    for number in range(drums):
        rng = generator("drums", number)
        synthesiser.sounds_off()
        synthesiser.program_select(9, font, 128, int(rng.choice(DRUM_KITS)), True)
        emit("drums", _drums(rng, rng.uniform(0.1, 0.17) * RATE), rng)
    write(out, made, rows, {"fluidr3": print_of(made[0] / np.float32(32768))})


def _sound(synthesiser: object, notes: list[Note]) -> np.ndarray:
    """Four seconds of notes, mono float32."""
    parts = []
    at = 0

    def generate(count: int) -> None:
        stereo = np.frombuffer(bytes(synthesiser.generate(count)), np.float32).reshape(-1, 2)  # type: ignore[attr-defined]
        parts.append(stereo.mean(1))

    for time, on, channel, key, velocity in sorted(notes):
        moment = min(int(time), SAMPLES)
        if moment > at:
            generate(moment - at)
            at = moment
        if on:
            synthesiser.noteon(channel, int(key), int(velocity))  # type: ignore[attr-defined]
        else:
            synthesiser.noteoff(channel, int(key))  # type: ignore[attr-defined]
    if at < SAMPLES:
        generate(SAMPLES - at)
    return np.concatenate(parts)[:SAMPLES]


def _line(rng: np.random.Generator, channel: int, beat: float, low: int, polyphonic: bool) -> list[Note]:
    """A melody that walks on a scale, with chords where it is polyphonic."""
    scale = MAJOR if rng.random() < 0.6 else MINOR
    root = int(rng.integers(48, 62))
    degree = int(rng.integers(0, 7))
    at = rng.uniform(0, 0.2) * RATE
    notes: list[Note] = []
    while at < SAMPLES:
        length = beat * rng.choice([0.5, 1, 1, 1.5, 2])
        degree = int(np.clip(degree + rng.integers(-3, 4), -4, 10))
        key = root + low + 12 * (degree // 7) + scale[degree % 7]
        velocity = int(rng.integers(65, 120))
        notes += [(at, 1, channel, key, velocity), (at + length * 0.95, 0, channel, key, 0)]
        if polyphonic and rng.random() < 0.5:
            bass = root - 12 + scale[int(rng.integers(0, 7))]
            for interval in (0, 4, 7):
                begin = at + rng.uniform(0, 0.09) * RATE
                notes += [
                    (begin, 1, channel, bass + interval, velocity - 15),
                    (at + 2 * length, 0, channel, bass + interval, 0),
                ]
        at += length
    return notes


def _drums(rng: np.random.Generator, step: float) -> list[Note]:
    kicks = {0, 6, 8, *rng.choice([3, 10, 11, 14], 2).tolist()}
    hat = int(rng.choice([42, 51, 54, 69, 70]))
    notes: list[Note] = []
    for number in range(int(SAMPLES / step) + 1):
        at = number * step
        beat = number % 16
        velocity = int(rng.integers(85, 120))
        if beat in kicks:
            notes.append((at, 1, 9, 36, velocity))
        if beat in (4, 12):
            notes.append((at, 1, 9, int(rng.choice([38, 40, 39])), velocity))
        if beat % 2 == 0:
            notes.append((at, 1, 9, 46 if beat == 14 and rng.random() < 0.3 else hat, velocity - 20))
        if number % 32 == 0:
            notes.append((at, 1, 9, 49, velocity))
    return notes


KINDS = ("silence", "noise", "noise", "noise", "hum", "click")
"""Of clips in which nothing happens, in turn."""


def quiet(out: Path, count: int = 600) -> None:
    """Writes clips in which nothing happens: digital silence, noise of several colours, hum, clicks."""
    if Path(f"{out}.csv").exists():
        return
    made = []
    rows = []
    for number in range(count):
        rng = generator("quiet", number)
        kind = KINDS[number % 6]
        samples = {"silence": _silence, "noise": _noise, "hum": _hum, "click": _click}[kind](rng)
        made.append((np.clip(samples, -1, 1) * 32767).astype(np.int16))
        rows.append(("train", "CC0", f"made:{kind}"))
    write(out, made, rows, {})


def _silence(rng: np.random.Generator) -> np.ndarray:
    """Digital silence, a constant, or the last bits' noise."""
    return np.full(SAMPLES, rng.choice([0, 0, 0, 0.001, -0.01])) + rng.choice([0, 1, 2]) * rng.normal(
        0, 1 / 32768, SAMPLES
    )


def _noise(rng: np.random.Generator) -> np.ndarray:
    """Noise whose spectrum falls by 0 to 9 dB an octave, at -80 to -20 dBFS."""
    spectrum = np.fft.rfft(rng.normal(0, 1, SAMPLES))
    frequency = np.maximum(np.arange(len(spectrum)), 20.0)
    samples = np.fft.irfft(spectrum * frequency ** -rng.uniform(0, 1.5), SAMPLES)
    return samples / samples.std() * 10 ** (rng.uniform(-80, -20) / 20)


def _hum(rng: np.random.Generator) -> np.ndarray:
    """Mains hum of 50 or 60 Hz with harmonics over noise."""
    time = np.arange(SAMPLES) / RATE
    base = rng.choice([50.0, 60.0])
    harmonics = sum(
        rng.uniform(0, 1) / k * np.sin(2 * np.pi * base * k * time + rng.uniform(0, 6)) for k in range(1, 9)
    )
    return np.asarray(harmonics) * 10 ** (rng.uniform(-50, -20) / 20) + rng.normal(0, 1e-4, SAMPLES)


def _click(rng: np.random.Generator) -> np.ndarray:
    """A few clicks in near silence."""
    samples = rng.normal(0, 10 ** (rng.uniform(-90, -70) / 20), SAMPLES)
    for at in rng.integers(0, SAMPLES - 32, int(rng.integers(1, 4))):
        samples[at : at + int(rng.integers(1, 32))] += rng.uniform(-0.3, 0.3)
    return samples
