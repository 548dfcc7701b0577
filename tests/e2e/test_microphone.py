"""`beatline listen` hears a microphone through the real PortAudio, ALSA and PulseAudio; what it hears is what
a virtual speaker plays.
"""

import ctypes.util
import json
import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import soundfile

from beatline.model.checkpoints.own import save
from tests.helpers.models import LABELS, make_tagger
from tests.helpers.processes import until

RATE, SECONDS = 16_000, 4
HEAR = """
import sys
import numpy as np
from beatline.audio import stream as pcm
blocks = pcm.microphone(16_000, 1).blocks
np.save(sys.argv[1], np.concatenate([next(blocks) for _ in range(20 * int(sys.argv[2]))]))
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("microphone"),
    pytest.mark.skipif(
        not shutil.which("pulseaudio") or not ctypes.util.find_library("portaudio"),
        reason="no PulseAudio or PortAudio: apt-get install pulseaudio pulseaudio-utils libportaudio2 "
        "libasound2-plugins",
    ),
]


@pytest.fixture
def sound(tmp_path):
    """The variables of a sound system of its own, whose microphone hears its speaker."""
    home = tmp_path / "home"
    (home / "run").mkdir(parents=True)
    (home / ".asoundrc").write_text("pcm.!default { type pulse }\nctl.!default { type pulse }\n")
    env = os.environ | {
        "HOME": str(home),
        "XDG_RUNTIME_DIR": str(home / "run"),
        "PULSE_RUNTIME_PATH": str(home / "run"),
        "OMP_NUM_THREADS": "1",
        "PYTHONWARNINGS": "ignore",
    }
    modules = ["module-native-protocol-unix", f"module-null-sink sink_name=speaker rate={RATE} channels=1"]
    command = [
        "pulseaudio",
        "--daemonize=no",
        "--exit-idle-time=-1",
        "-n",
        *(word for module in modules for word in ("-L", module)),
    ]
    with subprocess.Popen(command, env=env, stderr=subprocess.DEVNULL) as server:
        until(
            lambda: (
                subprocess.run(
                    ["pactl", "set-default-source", "speaker.monitor"], env=env, capture_output=True
                ).returncode
                == 0
            )
        )
        yield env, server
        server.kill()


@pytest.fixture
def clip(tmp_path):
    samples = (6000 * np.random.default_rng(0).standard_normal(RATE)).clip(-32768, 32767).astype(np.int16)
    soundfile.write(tmp_path / "clip.wav", samples, RATE)
    return tmp_path / "clip.wav", samples


def test_what_is_played_is_heard_sample_by_sample(sound, clip, tmp_path):
    env, _ = sound
    path, played = clip
    with subprocess.Popen(
        [sys.executable, "-c", HEAR, str(tmp_path / "heard.npy"), str(SECONDS)], env=env
    ) as hearing:
        while hearing.poll() is None:
            subprocess.run(["paplay", str(path)], env=env, check=True)
    heard = np.load(tmp_path / "heard.npy")[:, 0]
    assert hearing.returncode == 0 and len(heard) == SECONDS * RATE
    part = played[RATE // 2 : RATE // 2 + 1000]
    places = np.flatnonzero(heard[: -len(part)] == part[0])
    assert any(np.array_equal(heard[place : place + len(part)], part) for place in places)


def test_the_program_hears_it_until_it_goes_away(sound, clip, tmp_path):
    env, server = sound
    save(tmp_path / "model", make_tagger(), LABELS, {})
    command = [
        sys.executable,
        "-m",
        "beatline",
        "listen",
        "--model",
        str(tmp_path / "model"),
        "--window",
        "0.5",
        "--hop",
        "0.25",
        "--format",
        "jsonl",
        "--threshold",
        "0",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env) as program:
        try:
            silence = [json.loads(program.stdout.readline())["tags"] for _ in range(2)]
            subprocess.run(["paplay", str(clip[0])], env=env, check=True)
            heard = [json.loads(program.stdout.readline())["tags"] for _ in range(4)]
            assert silence[0] == silence[1] and any(tags != silence[0] for tags in heard)
            server.kill()
            out, errors = program.communicate(timeout=60)
        finally:
            program.kill()
    assert program.returncode == 3, errors
    lines = errors.decode().splitlines()
    assert (
        all(json.loads(line)["tags"] for line in out.splitlines())
        and "missing-file" in errors.decode()
        and not any("Traceback" in line for line in lines)
    ), errors


def test_the_program_is_stopped(sound, tmp_path):
    env, _ = sound
    save(tmp_path / "model", make_tagger(), LABELS, {})
    command = [
        sys.executable,
        "-m",
        "beatline",
        "listen",
        "--model",
        str(tmp_path / "model"),
        "--window",
        "0.5",
        "--format",
        "jsonl",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env) as program:
        try:
            first = program.stdout.readline()
            program.send_signal(signal.SIGINT)
            out, errors = program.communicate(timeout=20)
        finally:
            program.kill()
    assert program.returncode == 130 and b"Traceback" not in errors, errors
    assert all(json.loads(line)["time"] for line in (first + out).splitlines())
