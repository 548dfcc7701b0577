"""A checkpoint of every family is a model everywhere: loaded, tagged with, embedded with, served, exported,
packed and converted, with the same scores.
"""

import json
import shutil
import signal
import threading
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

import beatline
from beatline import cli
from beatline.serve.app import create_app
from beatline.serve.program import Server
from beatline.tag.events import EventOptions
from beatline.tag.tagger import AudioTagger

pytestmark = pytest.mark.xdist_group("export")
ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests/golden"
CLIP = ROOT / "src/beatline/assets/mini-audioset/audio/test_bird_01.ogg"


@pytest.fixture(params=["release", "espnet", "openbeats", "beatline"])
def model(request, tmp_path: Path) -> Path:
    """A small one of each: the first two were written by their own programs."""
    place = tmp_path / request.param
    if request.param == "release":
        shutil.copy(GOLDEN / "unilm_finetuned.pt", place.with_suffix(".pt"))
        return place.with_suffix(".pt")
    if request.param == "beatline":
        assert cli.main(["convert", str(GOLDEN / "espnet_tiny"), str(place)]) == 0
        return place
    shutil.copytree(GOLDEN / "espnet_tiny", place)
    if (
        request.param == "openbeats"
    ):  # as its fine-tuned ones are laid out: one label a clip, the head under another name
        recipe = yaml.safe_load((place / "config.yaml").read_text())
        recipe["model_conf"]["classification_type"] = "multi-class"
        (place / "config.yaml").write_text(yaml.safe_dump(recipe))
        state = torch.load(place / "model.pth", weights_only=True)
        for part in ("weight", "bias"):
            state[f"classifier.{part}"] = state.pop(f"decoder.linear_out.{part}")
        torch.save(state, place / "model.pth")
    return place


def served(tagger: AudioTagger) -> dict:
    """The server's answer to the clip."""
    running = Server(create_app(tagger), "127.0.0.1", 0)
    thread = threading.Thread(target=running.listen)
    thread.start()
    try:
        while not running.started:
            assert thread.is_alive()
            time.sleep(0.01)
        body = (
            b'--x\r\nContent-Disposition: form-data; name="files"; filename="clip.ogg"\r\n\r\n'
            + CLIP.read_bytes()
            + b"\r\n--x--\r\n"
        )
        request = urllib.request.Request(
            f"{running.address}/v1/tag?top=1000",
            body,
            {"Content-Type": "multipart/form-data; boundary=x", "Accept": "application/x-ndjson"},
        )
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=20) as got:
            return json.loads(got.read().splitlines()[-1])
    finally:
        running.handle_exit(signal.SIGTERM, None)
        thread.join(20)


def test_a_checkpoint_of_every_family_is_a_model_everywhere(model, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    tagger = beatline.load(model, engine="torch")
    result = tagger(CLIP, events=EventOptions(threshold=0.0))
    assert (
        result.events and (result.scores > 0).all() and (result.scores < 1).all() and len(tagger.labels) == 7
    )
    assert tagger.embed(CLIP).shape == result.embedding.shape and tagger.embed(CLIP, level="token").shape[
        1
    ] == len(result.embedding)
    if tagger.engine.task == "single-label":
        assert result.scores.sum() == pytest.approx(1, abs=1e-5)
    wanted = {label.mid: score for label, score in result.top(None)}

    def same(tags: list[dict], within: float = 1e-5) -> None:
        assert {one["mid"]: one["score"] for one in tags} == {
            mid: pytest.approx(score, abs=within) for mid, score in wanted.items()
        }

    capsys.readouterr()
    assert (
        cli.main(
            ["tag", str(CLIP), "--model", str(model), "--engine", "torch", "--format", "jsonl", "--top", "7"]
        )
        == 0
    )
    same(json.loads(capsys.readouterr().out)["tags"])
    same(served(tagger)["tags"])
    graph = (
        [["export", str(model), "exported"]] if model.suffix == ".pt" else []
    )  # which takes its time, and sees no family any more
    for words in (
        *graph,
        ["pack", str(model), "packed", "--form", "hub"],
        ["convert", str(model), "again"],
        ["convert", str(model), "for-espnet", "--to", "espnet"],
    ):
        words[2] = str(tmp_path / words[2])
        assert cli.main(words) == 0, capsys.readouterr().err
        other = beatline.load(words[2], engine="onnx" if words[0] == "export" else "torch")(CLIP)
        np.testing.assert_allclose(other.scores, result.scores, atol=1e-5)


def test_each_carries_a_probe_and_can_be_compared(model, tmp_path, capsys):
    for name, stem in (("Beats", "drum_kit"), ("Strings", "guitar")):
        (tmp_path / "own" / name).mkdir(parents=True)
        for clip in sorted(CLIP.parent.glob(f"test_{stem}_*"))[:4]:
            shutil.copy(clip, tmp_path / "own" / name)
    labels = beatline.load(model, engine="torch").labels
    clips = sorted((tmp_path / "own").rglob("*.ogg"))
    (tmp_path / "clips.csv").write_text(
        "file,labels\n" + "".join(f"{clip},{labels.mids[i % len(labels)]}\n" for i, clip in enumerate(clips))
    )
    assert (
        cli.main(
            [
                "probe",
                str(tmp_path / "own"),
                "--model",
                str(model),
                "--to",
                str(tmp_path / "probe"),
                "--head",
                "nearest",
            ]
        )
        == 0
    )
    probed = beatline.load(tmp_path / "probe")
    assert (
        probed.labels.names == ("Beats", "Strings") and probed(clips[0]).scores[0] > 0.5
    )  # of a clip that it has stored
    np.testing.assert_allclose(
        probed.embed(clips[0]), beatline.load(model, engine="torch").embed(clips[0]), atol=1e-5
    )
    assert cli.main(["convert", str(model), str(tmp_path / "again")]) == 0
    capsys.readouterr()
    assert (
        cli.main(
            ["compare", str(model), str(tmp_path / "again"), "--clips", str(tmp_path / "clips.csv"), "--json"]
        )
        == 0
    )
    said = json.loads(capsys.readouterr().out)
    assert (
        said["common"]["clips"] == 8
        and said["common"]["mids"] == list(labels.mids)
        and said["differences"]["mAP"]["value"] == 0
    )
    assert cli.main(["compare", str(model), str(tmp_path / "probe"), "--clips", str(tmp_path / "own")]) == 3
    assert "knows none of its labels" in capsys.readouterr().err
