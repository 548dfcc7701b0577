"""Predictions survive the disk and ESPnet's text files, and whatever is wrong with them is named."""

import csv
import io
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from beatline.core import artefact
from beatline.core.errors import UserError
from beatline.core.labels import Label, LabelSet, audioset
from beatline.evaluate.predictions import Predictions, common

SOUNDS = LabelSet(
    audioset().labels[:4]
)  # Speech; Male speech, man speaking; Female speech, woman speaking; Child speech, kid speaking


def make(ids=("a", "b", "c"), labels=SOUNDS, seed=0):
    rng = np.random.default_rng(seed)
    shape = len(ids), len(labels)
    return Predictions(tuple(ids), rng.random(shape, dtype=np.float32), rng.random(shape) < 0.5, labels)


def same(a, b):
    assert a.ids == b.ids and a.labels == b.labels
    assert a.scores.dtype == b.scores.dtype == np.float32 and a.targets.dtype == b.targets.dtype == bool
    assert (a.scores == b.scores).all() and (a.targets == b.targets).all()


def test_save_and_load(tmp_path):
    p = make()
    p.save(tmp_path / "p", {"kind": "predictions"})
    same(Predictions.load(tmp_path / "p"), p)
    assert artefact.read_contents(tmp_path / "p") == {"kind": "predictions"}
    rows = list(csv.DictReader(io.StringIO((tmp_path / "p/clips.csv").read_text(encoding="utf-8"))))
    assert [row["id"] for row in rows] == ["a", "b", "c"]
    assert [row["labels"].split(";") if row["labels"] else [] for row in rows] == [
        [SOUNDS.mids[k] for k in np.flatnonzero(t)] for t in p.targets
    ]


# any id a file name can give: line ends, separators, quotes, and bytes that are no UTF-8 (lone surrogates)
ANY_ID = st.text(
    st.one_of(
        st.characters(exclude_categories=["Cs"], exclude_characters="\0"),
        st.sampled_from("\r\n\u2028\x85\"',; \udce9\udcff"),
    ),
    max_size=6,
)


@settings(max_examples=60, deadline=None)
@example(["x\r", "\r\n", "y\n", "", '"', "caf\udce9", "a,b"])
@given(st.lists(ANY_ID, unique=True, min_size=1, max_size=5))
def test_any_id_survives_the_disk(ids):
    with tempfile.TemporaryDirectory() as folder:
        p = make(ids)
        p.save(Path(folder) / "p", {})
        again = Predictions.load(Path(folder) / "p")
    same(again, p)
    assert again.clips_hash == p.clips_hash


def test_the_hash_depends_on_the_clips_and_not_on_their_order():
    assert make(["a", "b"]).clips_hash == make(["b", "a"], seed=1).clips_hash != make(["a", "c"]).clips_hash


@pytest.mark.parametrize("name", ["scores.npy", "targets.npy", "clips.csv", "labels.csv"])
def test_a_flipped_bit_is_found(tmp_path, name):
    make().save(tmp_path / "p", {})
    path = tmp_path / "p" / name
    data = bytearray(path.read_bytes())
    data[-2] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match=name) as caught:
        Predictions.load(tmp_path / "p")
    assert caught.value.code == "corrupt-artefact"


def test_a_folder_without_predictions_is_named(tmp_path):
    with artefact.publish(tmp_path / "score", {"kind": "score"}) as partial:
        (partial / "figures.json").write_text("{}")
    for folder, words in (("score", "holds no scores.npy"), ("nowhere", "no such folder")):
        with pytest.raises(UserError, match=words) as caught:
            Predictions.load(tmp_path / folder)
        assert caught.value.code == "missing-file" and folder in str(caught.value)


GOOD = np.full((2, 4), 0.5, np.float32)


@pytest.mark.parametrize(
    ("ids", "scores", "targets", "code", "words"),
    [
        (["a", "a"], GOOD, GOOD > 1, "duplicate-id", "clip a"),
        (["a"], GOOD, GOOD > 1, "bad-scores", r"not \(1, 4\)"),
        (["a", "b"], GOOD[:, :3], GOOD > 1, "bad-scores", r"\(2, 3\)"),
        (["a", "b"], GOOD, GOOD, "bad-scores", "targets float32"),
        (["a", "b"], GOOD.astype(np.float64), GOOD > 1, "bad-scores", "scores are float64"),
        (
            ["a", "b"],
            np.where(np.eye(2, 4) * [[0], [1]], np.nan, GOOD).astype(np.float32),
            GOOD > 1,
            "bad-scores",
            "clip b",
        ),
        (["a", "b"], GOOD * 3, GOOD > 1, "bad-scores", "clip a"),
        (["a", "b"], -GOOD, GOOD > 1, "bad-scores", "clip a"),
    ],
)
def test_wrong_predictions_are_refused(ids, scores, targets, code, words):
    with pytest.raises(UserError, match=words) as caught:
        Predictions(tuple(ids), scores, targets, SOUNDS)
    assert caught.value.code == code


def test_labels_in_another_order():
    p = make()
    order = [2, 0, 3, 1]
    q = p.with_labels(LabelSet(tuple(SOUNDS.labels[i] for i in order)))
    assert (q.scores == p.scores[:, order]).all() and (q.targets == p.targets[:, order]).all()
    same(q.with_labels(SOUNDS), p)
    with pytest.raises(UserError, match="1 labels are in one label set only, the first is '/m/09x0r'"):
        p.with_labels(LabelSet(SOUNDS.labels[1:]))


def test_common_clips():
    a, b = make(["a", "b", "c"]), make(["d", "c", "a"], LabelSet(SOUNDS.labels[::-1]), seed=1)
    x, y = common(a, b)
    assert x.ids == y.ids == ("a", "c") and x.labels == y.labels == SOUNDS
    assert (x.scores == a.scores[[0, 2]]).all() and (x.targets == a.targets[[0, 2]]).all()
    assert (y.scores == b.scores[[2, 1], ::-1]).all() and (y.targets == b.targets[[2, 1], ::-1]).all()
    with pytest.raises(UserError, match="no-clips"):
        common(a, make(["x"]))


# --- ESPnet's files


def test_to_espnet_and_back(tmp_path):
    rng = np.random.default_rng(0)
    scores = np.concatenate([rng.random((30, 4), dtype=np.float32), np.float32([[0, 1, 1e-30, 1e-45]])])
    p = Predictions(tuple(f"as20k-eval-{i}" for i in range(31)), scores, rng.random((31, 4)) < 0.3, SOUNDS)
    p.to_espnet(tmp_path / "e")
    same(
        Predictions.from_espnet(
            tmp_path / "e/score", tmp_path / "e/reference_text", tmp_path / "e/token_list"
        ),
        p,
    )
    artefact.verify(tmp_path / "e")


def test_espnets_files_as_its_scorer_reads_them(tmp_path):
    p = Predictions(
        ("x", "y"),
        np.float32([[0.5, 0.75, 0, 1], [0.25, 0.5, 0, 0]]),
        np.array([[1, 1, 0, 0], [0, 0, 0, 0]], bool),
        SOUNDS,
    )
    p.to_espnet(tmp_path / "e")
    texts = {path.name: path.read_text() for path in (tmp_path / "e").iterdir()}
    assert texts["score"] == "x 0.5 0.75 0.0 1.0\ny 0.25 0.5 0.0 0.0\n"
    assert (
        texts["text"] == "x Male_speech,_man_speaking Child_speech,_kid_speaking\ny\n"
    )  # over 0.5, not from it on
    assert texts["reference_text"] == "x Speech Male_speech,_man_speaking\ny\n"
    tokens = texts["token_list"].splitlines()
    assert tokens[-2:] == ["<blank>", "<unk>"] and len(tokens) - 2 == len(
        SOUNDS
    )  # their scorer counts labels like this


def write(
    folder, score="x 0.1 0.2\ny 0.3 0.4\n", text="x Dog\ny dog Dog\n", tokens="Dog\ndog\n<blank>\n<unk>\n"
):
    for name, content in (("score", score), ("text", text), ("token_list", tokens)):
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return folder / "score", folder / "text", folder / "token_list"


def test_from_espnet_maps_names_to_mids_and_matches_clips_by_id(tmp_path):
    p = Predictions.from_espnet(*write(tmp_path, text="y dog\n\nx Dog dog\n"))
    assert p.ids == ("x", "y") and p.labels == LabelSet((Label("/m/0bt9lr", "Dog"), Label("dog", "dog")))
    assert p.targets.tolist() == [[True, True], [False, True]]
    assert p.scores.tolist() == np.float32([[0.1, 0.2], [0.3, 0.4]]).tolist()


@pytest.mark.parametrize("text", ["x\ny <blank>\n", "x <unk>\ny\n"])
def test_a_clip_without_labels(tmp_path, text):
    assert not Predictions.from_espnet(*write(tmp_path, text=text)).targets.any()


@pytest.mark.parametrize("tokens", ["Dog\ndog\n<unk>\n", "Dog 12\ndog 3\n", "\ufeffDog\r\ndog\r\n<unk>\r\n"])
def test_token_lists_of_other_versions(tmp_path, tokens):
    assert Predictions.from_espnet(*write(tmp_path, tokens=tokens)).labels.names == ("Dog", "dog")


def test_an_id_of_odd_bytes_is_kept(tmp_path):
    p = Predictions.from_espnet(*write(tmp_path, score=b"caf\xe9 0.1 0.2\n", text=b"caf\xe9 Dog\n"))
    p.to_espnet(tmp_path / "e")
    assert (tmp_path / "e/score").read_bytes().startswith(b"caf\xe9 ") and len(p.clips_hash) == 64


@pytest.mark.parametrize(
    ("files", "code", "words"),
    [
        ({"score": "x 0.1 0.2\n\ny 0.3 z\n"}, "bad-scores", "score line 3: .*'z'"),
        ({"score": "x 0.1 0.2\ny 0.3 nan\n"}, "bad-scores", "score line 2: .*between 0 and 1"),
        ({"score": "x 0.1 1.2\ny 0.3 0.1\n"}, "bad-scores", "score line 1: .*between 0 and 1"),
        (
            {"score": "x 0.1 0.2\ny 0\n"},
            "bad-scores",
            "score line 2: 1 scores for 2 labels; .*--output_all_probabilities",
        ),
        ({"score": "x 0.1 0.2\nx 0.1 0.2\n"}, "duplicate-id", "score line 2: clip x"),
        ({"text": "x Dog\ny Dog\nx dog\n"}, "duplicate-id", "text line 3: clip x"),
        ({"text": "x Dog\ny Cat\n"}, "unknown-label", "text line 2: label 'Cat' .*token_list"),
        (
            {"text": "x Dog\n"},
            "bad-scores",
            "score and .*text: 1 clips are in the first only and 0 in the second only, the first is y",
        ),
        (
            {"text": "x Dog\ny Dog\nw Dog\nz Dog\n"},
            "bad-scores",
            "0 clips are in the first only and 2 in the second only, the first is w",
        ),
        ({"tokens": "Dog\nDog\n"}, "duplicate-id", "token_list line 2: token Dog"),
        ({"tokens": "<blank>\n<unk>\n"}, "bad-table", "label set"),
        ({"score": " \n"}, "empty-file", "score"),
        ({"text": ""}, "empty-file", "text"),
        ({"score": b"\x93NUMPY\x01\x00\xff\xfe\n\x00"}, "bad-scores", "score line 1"),
    ],
)
def test_bad_espnet_files_are_named_with_their_line(tmp_path, files, code, words):
    with pytest.raises(UserError, match=words) as caught:
        Predictions.from_espnet(*write(tmp_path, **files))
    assert caught.value.code == code


def test_missing_espnet_files_are_named(tmp_path):
    paths = write(tmp_path)
    for k, other in ((0, tmp_path / "none"), (1, tmp_path), (2, tmp_path / "score/x")):
        with pytest.raises(UserError) as caught:
            Predictions.from_espnet(*paths[:k], other, *paths[k + 1 :])
        assert caught.value.code == "missing-file" and str(other) in str(caught.value)


@pytest.mark.parametrize(
    ("ids", "labels"),
    [
        (["a b"], ["x", "y"]),
        ([""], ["x", "y"]),
        (["a\u2028"], ["x", "y"]),
        (["a"], ["x\ty", "y"]),
        (["a"], ["x y", "x_y"]),
        (["a"], ["<x>", "y"]),
    ],
)
def test_what_espnets_files_cannot_hold_is_refused(tmp_path, ids, labels):
    with pytest.raises(UserError) as caught:
        make(ids, LabelSet.from_names(labels)).to_espnet(tmp_path / "e")
    assert caught.value.code == "bad-table" and not list(tmp_path.iterdir())
