"""A head fitted to one's own clips is the head of its definition, judged by clips it has not seen, and a
tagger like any other.
"""

import json
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import soundfile
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

from beatline.cli import main
from beatline.config import DataConfig
from beatline.core import artefact
from beatline.core.labels import LabelSet
from beatline.evaluate import compare as comparison
from beatline.evaluate import ranking
from beatline.evaluate.labelled import of_data
from beatline.evaluate.predictions import Predictions
from beatline.model.checkpoints.load import load_checkpoint
from beatline.model.checkpoints.own import save
from beatline.model.engines import base, export
from beatline.model.engines.onnx import INT8, ONNX
from beatline.model.engines.pytorch import TorchEngine
from beatline.model.heads.neighbours import Neighbours
from beatline.publish import hub
from beatline.tag import tagger as tag
from beatline.tag.calibration import Calibration
from beatline.train import logistic, probe, probe_heads
from tests.helpers.models import LABELS, make_tagger
from tests.helpers.stores import contents, die_at, in_child, refused

pytestmark = pytest.mark.xdist_group("export")


def examples(count=40, width=6, labels=3, single=False, seed=0, recordings=None):
    rng = np.random.default_rng(seed)
    centres, own = 2 * rng.standard_normal((labels, width)), rng.integers(labels, size=count)
    targets = np.eye(labels, dtype=bool)[own]
    if not single:
        targets |= rng.random(targets.shape) < 0.2
    embeddings = (5 + centres[own] + rng.standard_normal((count, width))).astype(np.float32)
    return probe_heads.Examples(embeddings, targets, tuple(recordings or map(str, range(count))))


# --- the two heads


@pytest.mark.parametrize("task", ["multi-label", "single-label"])
def test_the_linear_fit_is_that_of_scikit_learn(task):
    some = examples(single=task == "single-label")
    features, penalty = some.embeddings.astype(np.float64) - some.embeddings.mean(axis=0), 0.03
    weight, bias = logistic.fit(
        torch.from_numpy(features), torch.from_numpy(some.targets).double(), penalty, task
    )
    ours = features @ weight.numpy() + bias.numpy()
    peer = {"C": 1 / (2 * penalty * len(features)), "tol": 1e-10, "max_iter": 5000}
    if task == "single-label":
        wanted = LogisticRegression(**peer).fit(features, some.targets.argmax(axis=1)).predict_proba(features)
    else:
        wanted = np.stack(
            [
                LogisticRegression(**peer).fit(features, column).predict_proba(features)[:, 1]
                for column in some.targets.T
            ],
            axis=1,
        )
    np.testing.assert_allclose(base.score(ours, task), wanted, atol=2e-4)


def test_the_linear_head_is_folded_without_loss():
    some = examples()
    (head,) = probe_heads.fit("linear", some, [0.01], "multi-label")
    centred = some.embeddings.astype(np.float64) - some.embeddings.mean(axis=0, dtype=np.float64)
    spread = (centred**2).mean(axis=0)
    features = torch.from_numpy(centred / np.sqrt(spread + spread.mean()))
    weight, bias = logistic.fit(features, torch.from_numpy(some.targets).double(), 0.01)
    np.testing.assert_allclose(
        probe_heads.logits(head, some.embeddings, "multi-label"),
        (features @ weight + bias).numpy(),
        atol=1e-4,
    )


@pytest.mark.parametrize("task", ["multi-label", "single-label"])
def test_a_score_is_the_share_of_the_neighbours_weight(task):
    some, queries = examples(single=task == "single-label"), examples(seed=1).embeddings
    centre = some.embeddings.mean(axis=0)
    unit = [
        (x - centre) / np.linalg.norm(x - centre, axis=1, keepdims=True) for x in (queries, some.embeddings)
    ]
    (head, cold) = probe_heads.fit("nearest", some, [0.2, 0.002], task)
    weights = np.exp(unit[0] @ unit[1].T / 0.2)
    wanted = weights @ some.targets / weights.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(base.score(probe_heads.logits(head, queries, task), task), wanted, atol=1e-5)
    nearest = (
        KNeighborsClassifier(1, metric="cosine")
        .fit(some.embeddings - centre, some.targets)
        .predict(queries - centre)
    )
    decided = base.score(probe_heads.logits(cold, queries, task), task) > 0.5
    assert (decided == nearest).mean() > 0.98  # but where two are as near
    assert (
        np.isfinite(probe_heads.logits(cold, queries, task)).all()
        and np.isfinite(probe_heads.logits(cold, np.tile(centre, (1, 1)), task)).all()
    )


# --- what decides about the strength


@pytest.mark.parametrize("kind", ["linear", "nearest"])
def test_what_judges_a_head_was_not_in_its_fit(kind):
    rng = np.random.default_rng(0)
    twice = np.repeat(
        np.arange(30), 2
    )  # two clips of each recording, the same sound, and labels that nothing says
    some = probe_heads.Examples(
        rng.standard_normal((30, 8)).astype(np.float32)[twice],
        np.eye(2, dtype=bool)[rng.integers(2, size=30)][twice],
        tuple(map(str, twice)),
    )
    chosen = probe_heads.choose(kind, some, None, "single-label")
    own = ranking.top1_hits(base.score(chosen.held_out, "single-label"), some.targets).mean()
    assert (
        0.2 < own < 0.75 and chosen.strength >= probe_heads.STRENGTHS[kind][3]
    )  # and so the smoothest heads are best
    validation = examples(24, 8, 2, single=True, seed=3)
    by_validation = probe_heads.choose(
        kind, examples(24, 8, 2, single=True, seed=3), validation, "single-label"
    )  # the same clips: the sharpest is best
    assert by_validation.held_out is None and by_validation.strength <= probe_heads.STRENGTHS[kind][6]


def test_with_one_clip_of_each_label_there_is_a_default():
    some = probe_heads.Examples(np.eye(3, dtype=np.float32), np.eye(3, dtype=bool), ("a", "b", "c"))
    for kind in ("linear", "nearest"):
        chosen = probe_heads.choose(kind, some, None, "single-label")
        assert chosen.strength == probe_heads.DEFAULT[kind] and chosen.held_out is None
        (head,) = probe_heads.fit(kind, some, [chosen.strength], "single-label")
        assert probe_heads.logits(head, some.embeddings, "single-label").argmax(axis=1).tolist() == [0, 1, 2]


# --- from clips to a tagger


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """An encoder without a head, and a folder for each of three classes, with splits and without."""
    folder = tmp_path_factory.mktemp("probe")
    save(folder / "run/model", make_tagger(), LABELS, {})
    rng = np.random.default_rng(0)
    for split, count in (("train", 4), ("test", 3)):
        for number in range(count):
            seconds = 0.6 + 0.1 * number if number != 1 else 11.0
            time = np.arange(round(seconds * 16_000)) / 16_000
            for name, sound in (
                ("Tone", np.sin(2 * np.pi * rng.uniform(300, 600) * time)),
                ("Noise", rng.standard_normal(len(time))),
                ("Click", (time % 0.1 < 0.002).astype(float)),
            ):
                for path in (folder / "split" / split / name, folder / "few" / name):
                    path.mkdir(parents=True, exist_ok=True)
                    soundfile.write(path / f"{split}{number}.wav", 0.2 * sound, 16_000)
    (folder / "split/train/Tone/bad.wav").write_bytes(b"RIFF0000WAVEjunk")
    return folder


@pytest.fixture(scope="module", params=["linear", "nearest"])
def made(request, place):
    out = place / f"made-{request.param}"
    assert (
        main(
            [
                "probe",
                str(place / "split"),
                "--model",
                str(place / "run"),
                "--to",
                str(out),
                "--head",
                request.param,
            ]
        )
        == 0
    )
    return SimpleNamespace(out=out, kind=request.param)


def test_what_is_said_of_the_test_clips_is_what_the_tagger_says(place, made):
    predictions, tagger = Predictions.load(made.out / "predictions"), tag.load(made.out, "torch")
    assert (
        tagger.engine.task == "single-label"
        and tagger.labels.names == ("Click", "Noise", "Tone")
        and len(predictions.ids) == 9
    )
    for name, scores in zip(predictions.ids, predictions.scores, strict=True):
        result = tagger(place / "split" / name)
        np.testing.assert_allclose(result.scores, scores, atol=1e-5)
    figures = json.loads((made.out / "score/figures.json").read_text())["figures"]
    assert figures["top1_hit_rate"] > 0.8 and figures["n_instances"] == 9
    about = load_checkpoint(made.out).about["probe"]
    assert (
        about["head"] == made.kind
        and about["clips"] == {"train": 12, "val": 0, "test": 9}
        and str(place) not in json.dumps(about)
    )
    ledger = [json.loads(line) for line in (made.out / "ledger.jsonl").read_text().splitlines()]
    assert [line["input"] for line in ledger if line["status"] == "rejected"] == [
        "train/Tone/bad.wav"
    ] and len(ledger) == 22
    untouched = load_checkpoint(place / "run").state
    assert all(
        torch.equal(tensor, untouched[name])
        for name, tensor in load_checkpoint(made.out).state.items()
        if name.startswith("encoder.")
    )


def test_it_is_a_tagger_like_any_other(place, made, tmp_path, capsys):
    sound = place / "split/test/Tone/test1.wav"
    assert main(["tag", str(sound), "--model", str(made.out), "--events", "steps", "--format", "jsonl"]) == 0
    assert json.loads(capsys.readouterr().out)["tags"][0]["name"] == "Tone"
    assert main(["calibrate", "--model", str(made.out), "--csv", str(place / "few")]) == 0
    assert len(Calibration.load(made.out).thresholds) == 3
    assert main(["compare", str(made.out), str(made.out)]) == 0
    hub.pack(made.out, tmp_path / "packed")
    card = (tmp_path / "packed/README.md").read_text()
    assert (
        "## Results" in card
        and "on 9 test clips" in card.lower()
        and ("stored examples" in card) == (made.kind == "nearest")
    )
    np.testing.assert_array_equal(
        tag.load(tmp_path / "packed", "torch")(sound).scores, tag.load(made.out, "torch")(sound).scores
    )
    assert main(["doctor", str(made.out)]) == 0 and main(["verify", str(made.out / "model")]) == 0
    code = main(["convert", str(made.out), str(tmp_path / "espnet"), "--to", "espnet"])
    assert (code, (tmp_path / "espnet").exists()) == ((0, True) if made.kind == "linear" else (2, False))


@pytest.mark.slow
def test_stored_examples_are_exported_and_stay_float32(place, tmp_path):
    some = examples(50, 32, 5)
    loaded = load_checkpoint(place / "run")
    (head,) = probe_heads.fit("nearest", some, [0.05], "multi-label")
    tagger = loaded.with_head(head, LabelSet.from_names("abcde"), "multi-label").tagger()
    differences = export.export(tagger, LabelSet.from_names("abcde"), tmp_path / "onnx", int8=True)
    assert differences[ONNX]["worst"] < 1e-5
    graph = onnx.load(tmp_path / "onnx" / INT8).graph
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    quantised = [shapes.get(node.input[1]) for node in graph.node if node.op_type == "MatMulInteger"]
    assert len(quantised) > 10 and not {(32, 50), (50, 5)} & set(quantised)
    sound = place / "split/test/Noise/test1.wav"
    got, wanted = (
        tag.load(tmp_path / "onnx", "onnx")(sound),
        tag.AudioTagger(TorchEngine(tagger, loaded.labels))(sound),
    )
    np.testing.assert_allclose(got.scores, wanted.scores, atol=1e-5)


def test_few_clips_without_splits_and_the_same_bits_again(place, tmp_path, capsys, monkeypatch):
    words = ["probe", str(place / "few"), "--model", str(place / "run"), "--to"]
    for name in ("a", "b"):
        assert main([*words, str(tmp_path / name)]) == 0
    assert "on the train clips, each by a head that has not seen it" in capsys.readouterr().out
    assert contents(tmp_path / "a") == contents(tmp_path / "b") and not (tmp_path / "a/predictions").exists()
    assert main([*words, str(tmp_path / "held"), "--data.test_fraction", "0.3"]) == 0
    assert "on the test clips" in capsys.readouterr().out
    clips = of_data(DataConfig(folder=place / "few", test_fraction=0.0, validation_fraction=0.0))
    for point in (1, 4):
        monkeypatch.setattr(artefact, "checkpoint_hook", die_at(point))
        assert in_child(lambda: probe.learn(place / "run", clips, tmp_path / "killed", "nearest")) == -9
        monkeypatch.undo()
        assert not (tmp_path / "killed").exists()
    for name in ("killed", "whole"):
        assert main([*words, str(tmp_path / name), "--head", "nearest"]) == 0
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


def test_one_clip_of_each_label(place, tmp_path, capsys):
    table = "file,labels\n" + "".join(f"{place}/few/{name}/train0.wav,{name}\n" for name in ("Tone", "Noise"))
    (tmp_path / "two.csv").write_text(table)
    assert (
        main(
            [
                "probe",
                str(tmp_path / "two.csv"),
                "--model",
                str(place / "run"),
                "--to",
                str(tmp_path / "out"),
                "--head",
                "nearest",
            ]
        )
        == 0
    )
    assert "the default" in capsys.readouterr().out
    tagger = tag.load(tmp_path / "out", "torch")
    assert [tagger(place / f"few/{name}/train0.wav").top(1)[0][0].name for name in ("Tone", "Noise")] == [
        "Tone",
        "Noise",
    ]


def test_kaldi_folders_and_validation_clips(place, tmp_path, capsys):
    for split, stem in (("train", "train"), ("val", "test"), ("test", "test")):
        (tmp_path / split).mkdir()
        names = [
            (name, f"{stem}{number}")
            for name in ("Tone", "Noise")
            for number in ((0, 2) if split != "test" else (1,))
        ]
        (tmp_path / split / "wav.scp").write_text(
            "".join(f"{split}-{name}-{file} {place}/few/{name}/{file}.wav\n" for name, file in names)
        )
        (tmp_path / split / "text").write_text(
            "".join(f"{split}-{name}-{file} {name}\n" for name, file in names)
        )
    assert (
        main(
            [
                "probe",
                "--data.kaldi",
                str(tmp_path),
                "--model",
                str(place / "run"),
                "--to",
                str(tmp_path / "out"),
            ]
        )
        == 0
    )
    heard = capsys.readouterr().out
    assert "least loss on 4 validation clips" in heard and "train 4, val 4, test 2" in heard


def test_refusals_are_one_line(place, tmp_path, capsys):
    (tmp_path / "one/Tone").mkdir(parents=True)
    soundfile.write(tmp_path / "one/Tone/a.wav", np.zeros(8000), 16_000)
    (tmp_path / "broken").mkdir()
    for name in ("Tone", "Noise"):
        (tmp_path / "broken" / name).mkdir()
        (tmp_path / "broken" / name / "a.wav").write_bytes(b"junk")
    (tmp_path / "empty").mkdir()
    (tmp_path / "several.csv").write_text(
        f"file,labels\n{place}/few/Tone/train0.wav,a;b\n{place}/few/Tone/train2.wav,b\n"
    )
    (tmp_path / "file").write_text("")
    model, to, few = ["--model", str(place / "run")], ["--to", str(tmp_path / "out")], str(place / "few")
    for words, code, exit_code in (
        ([str(tmp_path / "one"), *model, *to], "no-clips", 3),
        ([str(tmp_path / "broken"), *model, *to], "no-clips", 3),
        ([str(tmp_path / "empty"), *model, *to], "no-clips", 3),
        ([str(tmp_path / "none.csv"), *model, *to], "missing-file", 3),
        ([str(tmp_path / "several.csv"), *model, *to, "--task", "single-label"], "bad-config", 2),
        ([few, "--model", str(tmp_path / "none"), *to], "missing-file", 3),
        ([few, *model, "--to", str(place / "run")], "not-writable", 5),
        ([few, *model, "--to", str(tmp_path / "file/out")], "not-writable", 5),
        ([few, *model, *to, "--data.folds", "1"], "bad-config", 2),
        ([*model, *to], "bad-config", 2),
    ):
        assert main(["probe", *words]) == exit_code, words
        heard = capsys.readouterr().err
        assert heard.count("\n") == 1 and f"[{code}]" in heard, heard
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.partial").exists()


def test_a_stranger_s_head_is_refused_by_its_shape(place, made, tmp_path):
    loaded = load_checkpoint(made.out)
    name = "head.weight" if made.kind == "linear" else "head.examples"
    wrong = loaded.with_head({name.removeprefix("head."): torch.zeros(3)}, loaded.labels, "single-label")
    assert "its tensors" in refused("bad-checkpoint", wrong.tagger)
    assert comparison.find_predictions(made.out).labels.hash == loaded.labels.hash
    assert isinstance(loaded.tagger().head, Neighbours) == (made.kind == "nearest")
