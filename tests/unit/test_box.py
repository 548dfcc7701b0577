"""The model that comes with beatline: it answers when none is named, or says in a line what it lacks."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

import beatline
from beatline import UserError, cli
from beatline.core import artefact
from beatline.core.labels import audioset
from beatline.fetch import checkpoints, known
from beatline.model.checkpoints.load import load_tagger
from beatline.model.checkpoints.loaded import LoadedTagger
from beatline.model.engines.graphs import GraphEngine
from beatline.publish import box
from tests.helpers.models import CONFIG, LABELS, make_tagger

BOX = known.box_folder()
CLIP = BOX.parent / "mini-audioset/audio/test_bird_01.ogg"
PAPERS = {"MODEL_CARD.md": "# A card\n", "LICENSE": "free\n", "attribution.csv": "source,author,licence\n"}
IS_STAND_IN = bool(json.loads((BOX / "config.json").read_text())["about"].get("stand_in"))
real = pytest.mark.skipif(IS_STAND_IN, reason="the box is a stand-in: recipes/box makes the real weights")


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A box of the tests' tiny tagger, and how far its graph is from PyTorch."""
    folder = tmp_path_factory.mktemp("box") / "box"
    state = make_tagger().state_dict()
    loaded = LoadedTagger(source=folder, family="beatline", config=CONFIG, state=state, labels=LABELS)
    return folder, box.write(loaded, folder, PAPERS, {"figure": "none"})


@pytest.fixture
def damaged(tmp_path, monkeypatch):
    """A copy of the box, which is taken for the box."""
    shutil.copytree(BOX, tmp_path / "box")
    monkeypatch.setattr(known, "box_folder", lambda: tmp_path / "box")
    monkeypatch.setattr(artefact, "__file__", str(tmp_path / "core/artefact.py"))
    return tmp_path / "box"


def test_the_box_comes_with_the_package_and_is_whole():
    assert artefact.verify(BOX)["kind"] == "model"
    assert {"model.safetensors", "model.onnx", *box.PAPERS} <= {path.name for path in BOX.iterdir()}
    assert sum(path.stat().st_size for path in BOX.iterdir()) <= 12e6


def test_without_a_name_the_box_answers_without_pytorch_and_says_once_what_it_is(tmp_path):
    code = (
        "import sys, beatline; beatline.load(); tagger = beatline.load(); "
        f"print(len(tagger({str(CLIP)!r}).scores)); assert 'torch' not in sys.modules"
    )
    home = {"HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | home)
    assert done.returncode == 0 and done.stdout == "521\n", done.stderr
    assert done.stderr.count("\n") == 1 and "the box answers" in done.stderr
    assert "--model beats is better" in done.stderr and list(tmp_path.rglob("*")) == []


def test_named_the_box_says_nothing_and_pytorch_says_the_same(capsys):
    scores = [beatline.load("box", engine=engine)(CLIP).scores for engine in ("auto", "torch")]
    np.testing.assert_allclose(*scores, atol=1e-5)
    assert capsys.readouterr().err == ""


def test_a_folder_that_is_called_box_is_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert checkpoints.locate("box") == BOX
    (tmp_path / "box").mkdir()
    assert checkpoints.locate("box") == Path("box")


def test_its_graph_says_what_pytorch_says_with_weights_stored_once(written):
    folder, worst = written
    assert worst <= 1e-5
    graph, tagger = GraphEngine(folder, "onnx"), beatline.load(folder, engine="torch").engine
    clip = np.random.default_rng(0).uniform(-0.5, 0.5, (1, 30_000)).astype(np.float32)
    np.testing.assert_allclose(graph.scores(clip), tagger.scores(clip), atol=1e-5)
    assert (folder / "model.onnx").stat().st_size < 300_000
    (folder / "model.safetensors").rename(folder / "elsewhere")
    try:
        with pytest.raises(Exception, match=r"model\.safetensors"):
            GraphEngine(folder, "onnx")
    finally:
        (folder / "elsewhere").rename(folder / "model.safetensors")


def test_it_is_a_model_folder_as_any_other(written):
    loaded = load_tagger(written[0])
    assert loaded.labels == LABELS and loaded.about == {"figure": "none"}
    assert {str(tensor.dtype) for tensor in loaded.state.values()} == {"torch.float32"}
    assert (written[0] / "MODEL_CARD.md").read_text() == PAPERS["MODEL_CARD.md"]


@pytest.mark.parametrize("name", sorted(path.name for path in BOX.iterdir()))
@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_a_damaged_file_is_named_with_the_remedy(name, damage, damaged):
    file = damaged / name
    content = file.read_bytes()
    file.unlink() if damage == "missing" else file.write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError) as refused:
        beatline.load("box")
    assert refused.value.code == "corrupt-artefact" and str(file) in str(refused.value)
    assert "install beatline again" in str(refused.value)


def test_a_flipped_bit_is_named_too(damaged):
    for name in ("model.onnx", "model.safetensors", "labels.csv"):
        content = bytearray((BOX / name).read_bytes())
        content[len(content) // 2] ^= 1
        (damaged / name).write_bytes(content)
        with pytest.raises(UserError, match="install beatline again") as refused:
            beatline.load("box")
        assert str(damaged / name) in str(refused.value)
        shutil.copy(BOX / name, damaged / name)


# --- the commands


def test_every_command_that_takes_a_model_takes_none_but_calibrate():
    for name in cli.COMMANDS:
        option = cli.parser_of(name).actions.get("--model")
        assert option is None or option.required == (name == "calibrate"), name


def test_tag_and_embed_need_no_model(tmp_path, capsys):
    assert cli.main(["tag", str(CLIP)]) == 0
    assert cli.main(["embed", str(CLIP), "--to", str(tmp_path / "out")]) == 0
    assert np.load(tmp_path / "out/embeddings.npy").shape[0] == 1
    assert capsys.readouterr().out.count("\n") > 5


def test_probe_learns_on_the_box(tmp_path):
    for i, label in enumerate("ab" * 3):
        (tmp_path / f"clips/{label}").mkdir(parents=True, exist_ok=True)
        sound = np.random.default_rng(i).uniform(-0.5, 0.5, 16_000)
        soundfile.write(tmp_path / f"clips/{label}/{i}.wav", sound, 16_000)
    assert cli.main(["probe", str(tmp_path / "clips"), "--to", str(tmp_path / "own")]) == 0
    assert beatline.load(tmp_path / "own").labels.names == ("a", "b")


def test_a_calibration_does_not_go_into_the_installation(capsys):
    assert cli.main(["calibrate", "--model", "box"]) == 5
    assert "beatline convert box FOLDER" in capsys.readouterr().err


def test_convert_copies_the_box(tmp_path):
    assert cli.main(["convert", "box", str(tmp_path / "copy")]) == 0
    scores = [beatline.load(model, engine="torch")(CLIP).scores for model in ("box", tmp_path / "copy")]
    np.testing.assert_array_equal(*scores)


def test_verify_names_what_is_damaged(damaged, capsys):
    assert cli.main(["verify"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"whole    {damaged} (model)"
    (damaged / "model.onnx").write_bytes(b"cut")
    for words in (["verify"], ["verify", str(damaged)]):
        assert cli.main(words) == 4
        said = capsys.readouterr()
        assert f"damaged  {damaged}/model.onnx" in said.out and said.err.count("\n") == 1
        assert "install beatline again" in said.err


def test_models_are_listed_with_what_is_known_of_them(capsys):
    assert cli.main(["models"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["name", "labels", "size", "licence", "published", "here"]
    assert lines[1].startswith("box ") and lines[1].endswith(" yes")
    best = next(line for line in lines if "(beats)" in line)
    assert re.search(
        r"BEATs_iter3_plus_AS2M_finetuned_on_AS2M_cpt2 .* 527 +363 MB  MIT +AudioSet 48\.6 mAP", best
    )
    assert cli.main(["models", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["box"]["path"] == str(BOX) and rows["BEATs_iter3"]["labels"] == 0
    assert len(rows) == len(lines) - 1 and rows["espnet/BEATs-AS20K"]["bytes"] is None


def test_the_table_of_the_release_is_in_order():
    assert len(known.RELEASE) == len({model.sha256 for model in known.RELEASE.values()}) == 15
    for name, model in known.RELEASE.items():
        assert re.fullmatch("[0-9a-f]{64}", model.sha256) and model.labels == (
            527 if "finetuned" in name else 0
        )
    assert set(known.ALIASES.values()) <= set(known.RELEASE)


def test_a_model_whose_labels_are_out_of_order_fails_the_check(tmp_path, capsys):
    assert cli.main(["models", "--check", "box"]) == (3 if IS_STAND_IN else 0)
    said = capsys.readouterr()
    assert ("do not trust it" in said.err) == IS_STAND_IN and ("are right" in said.out) != IS_STAND_IN


# --- what it says of difficult sound


SECOND = np.arange(16_000) / 16_000
SOUNDS = {
    "silence": np.zeros(16_000),
    "noise": np.random.default_rng(0).uniform(-1, 1, 48_000),
    "three samples": np.array([0.5, -0.5, 0.5]),
    "clipped": np.clip(20 * np.sin(2 * np.pi * 440 * SECOND), -1, 1),
    "as loud as integers": 32_768 * np.sin(2 * np.pi * 440 * SECOND),
    "as faint as a millionth": 1e-6 * np.sin(2 * np.pi * 440 * SECOND),
}


NOTES = {
    "silence": "every sample is 0",
    "clipped": "it is clipped, or of another scale",
    "as loud as integers": "it is clipped, or of another scale",
    "as faint as a millionth": "far too faint",
}


@pytest.mark.parametrize("rate", [8000, 16_000, 44_100])
@pytest.mark.parametrize("name", SOUNDS)
def test_scores_of_difficult_sound_are_finite_and_a_note_says_why_to_doubt_them(name, rate):
    result = beatline.load("box")(SOUNDS[name], rate)
    assert np.isfinite(result.scores).all() and result.scores.min() >= 0 and result.scores.max() <= 1
    assert NOTES.get(name, "") in result.note
    assert ("nothing above 4 kHz is there to hear" in result.note) == (rate == 8000)


def test_a_single_sample_is_scored_too():
    assert np.isfinite(beatline.load("box")(np.array([0.5]), 16_000).scores).all()


@pytest.mark.parametrize("law", ["ULAW", "ALAW", "GSM610", "G721_32"])
def test_a_telephone_s_codecs_are_scored_with_a_note(law, tmp_path):
    soundfile.write(tmp_path / "call.wav", 0.3 * np.sin(2 * np.pi * 440 * SECOND), 8000, subtype=law)
    result = beatline.load("box")(tmp_path / "call.wav")
    assert np.isfinite(result.scores).all() and "8000 Hz" in result.note


def test_ordinary_sound_has_no_note():
    assert beatline.load("box")(CLIP).note == ""


@real
@pytest.mark.parametrize("seconds", [0.01, 0.5, 4.0, 10.0, 23.0])
def test_nothing_is_tagged_in_digital_silence_but_silence(seconds):
    best = beatline.load("box")(np.zeros(round(seconds * 16_000)), 16_000).top(521)
    assert {label.name for label, score in best if score > 0.3} <= {"Silence"}


@real
def test_a_known_clip_has_its_label_on_top():
    thunder = CLIP.with_name("test_thunder_01.ogg")
    assert beatline.load("box")(thunder).top(1)[0][0].name in {"Thunder", "Thunderstorm"}


@real
def test_its_labels_are_audiosets():
    assert set(beatline.load("box").labels.mids) <= set(audioset().mids)
