"""Memory does not follow a recording's length, events included: ten minutes against an hour, of PCM and of
compressed real sound.

BEATLINE_HOURS=24 pytest tests/e2e/test_long_audio.py -s        a day in place of an hour, as MP3 too; prints
    what it took
"""

import csv
import os
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import beatline
from beatline.config import EncoderConfig
from beatline.core.labels import audioset
from beatline.model.checkpoints.own import save
from beatline.model.tagger import Tagger, initialise_tagger

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(7200),
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc"),
]
HOURS = float(os.environ.get("BEATLINE_HOURS", 1))
MOST = (
    10 + 4 * HOURS
)  # MB more than ten minutes need: each window keeps a row of scores; steps would keep 47 an hour
EVENT = 300e-6  # MB for each that is found
CONFIG = EncoderConfig(
    embed_dim=8,
    encoder_layers=1,
    encoder_embed_dim=16,
    encoder_ffn_embed_dim=16,
    encoder_attention_heads=2,
    conv_pos=8,
    conv_pos_groups=2,
    num_buckets=32,
    max_distance=60,
)
WATCHED = """
import sys
from pathlib import Path
from beatline.cli import main
code = main(sys.argv[1:])
lines = Path("/proc/self/status").read_text().splitlines()
print(*(line for line in lines if line.startswith("VmHWM")), file=sys.stderr)
sys.exit(code)
"""


def write_sparse(path, hours):
    """Silence that takes no disk, with ten loud seconds in each ten minutes."""
    noise = (3000 * np.random.default_rng(0).standard_normal(160_000)).astype("<i2").tobytes()
    samples = round(hours * 3600) * 16_000
    head = struct.pack(
        "<4sI8sIHHIIHH4sI",
        b"RIFF",
        36 + 2 * samples,
        b"WAVEfmt ",
        16,
        1,
        1,
        16_000,
        32_000,
        2,
        16,
        b"data",
        2 * samples,
    )
    with path.open("wb") as file:
        file.write(head)
        for begin in range(0, samples, 9_600_000):
            file.seek(len(head) + 2 * begin)
            file.write(noise)
        file.truncate(len(head) + 2 * samples)


def write_real(path, hours):
    """The 150 embedded test clips, which are ten minutes, over and over."""
    clips = sorted((Path(beatline.__file__).parent / "assets/mini-audioset/audio").glob("test_*"))
    samples = np.concatenate([soundfile.read(clip, dtype="int16")[0] for clip in clips])
    assert len(samples) == 9_600_000
    with soundfile.SoundFile(path, "w", 16_000, 1) as file:
        for _ in range(round(6 * hours)):
            file.write(samples)


def tag(audio, model, out):
    """Peak memory of `beatline tag`, MB, and its events."""
    words = [
        "tag",
        audio,
        "--model",
        model,
        "--engine",
        "torch",
        "--hop",
        "10",
        "--events",
        "steps",
        "--threshold",
        "0.6",
        "--low",
        "1",
        "--format",
        "csv",
        "--out",
        out,
    ]
    begun = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", WATCHED, *map(str, words)],
        capture_output=True,
        text=True,
        timeout=3600,
        env=os.environ | {"MALLOC_ARENA_MAX": "2"},
    )
    assert done.returncode == 0, done.stderr
    peak = int(done.stderr.split()[-2]) / 1024
    with out.open() as file:
        events = list(csv.DictReader(file))
    print(f"{audio.name}: {time.monotonic() - begun:.0f} s, {peak:.0f} MB, {len(events)} events")
    return peak, events


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    model = Tagger(CONFIG, 527)
    initialise_tagger(model, torch.Generator().manual_seed(0))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    folder = tmp_path_factory.mktemp("model") / "model"
    save(folder, model.eval(), audioset(), {})
    return folder


def short_and_long(write, form, model, folder):
    """Events of ten minutes and of hours, which need hardly more memory."""
    found = []
    for hours in (1 / 6, HOURS):
        audio = folder / f"{hours:.3g}h.{form}"
        write(audio, hours)
        found.append(tag(audio, model, folder / "events.csv"))
        audio.unlink()
    (short, few), (long, many) = found
    assert long - short < MOST + EVENT * len(many)
    return few, many


def test_hours_need_little_more_memory_than_minutes(model, tmp_path):
    few, many = short_and_long(write_sparse, "wav", model, tmp_path)
    loud = [row["name"] for row in few if row["onset"] == "0.000" and row["offset"] == "9.920"]
    assert loud
    for name in loud:
        assert [float(row["onset"]) for row in many if row["name"] == name] == [
            600.0 * number for number in range(round(6 * HOURS))
        ]


@pytest.mark.parametrize(
    "form",
    [
        "flac",
        pytest.param(
            "mp3",
            marks=pytest.mark.skipif(
                HOURS == 1, reason="to write it takes longer than to tag it: BEATLINE_HOURS=2"
            ),
        ),
    ],
)
def test_compressed_hours_do_too_and_every_ten_minutes_sound_alike(model, tmp_path, form):
    few, many = short_and_long(write_real, form, model, tmp_path)
    (first,), all_tens = heard(few, 1), heard(many, round(6 * HOURS))
    alike = [np.corrcoef(first, ten)[0, 1] for ten in all_tens]
    print(f"{form}: correlation with the ten minutes alone at least {min(alike):.4f}")
    assert min(alike) > 0.9


def heard(events, tens):
    """How many events begin in each five seconds, `(ten minutes, 119)`: not in the first five, where all
    begins that is heard from the start.
    """
    return np.histogram([float(event["onset"]) for event in events], 120 * tens, (0, 600 * tens))[0].reshape(
        tens, 120
    )[:, 1:]
