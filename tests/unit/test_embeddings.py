"""Embeddings on disk are those of the library, in order, whole or not there; a bad file costs a line."""

import csv
import io
import json

import numpy as np
import pyarrow.parquet
import pytest
import soundfile
import torch

from beatline.cli import main
from beatline.core import artefact
from beatline.model.checkpoints.own import save
from beatline.model.engines.pytorch import TorchEngine
from beatline.tag import embeddings, recordings
from beatline.tag import tagger as tag
from tests.helpers.models import GOLDEN, LABELS, make_tagger
from tests.helpers.stores import contents, die_at, in_child

SECONDS = (0.05, 0.5, 3.0, 12.0, 16.0, 5.3)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("embed")
    save(folder / "run/model", make_tagger(), LABELS, {})
    rng = np.random.default_rng(0)
    (folder / "sounds").mkdir()
    for number, seconds in enumerate(SECONDS):
        soundfile.write(
            folder / f"sounds/{number}.wav", 0.1 * rng.standard_normal(round(seconds * 16_000)), 16_000
        )
    (folder / "sounds/2b.wav").write_bytes(b"RIFF0000WAVEjunk")
    return folder


def command(place, out, *options):
    return main(
        [
            "embed",
            str(place / "sounds"),
            "--model",
            str(place / "run"),
            "--engine",
            "torch",
            "--window",
            "4",
            "--hop",
            "2",
            "--to",
            str(out),
            *options,
        ]
    )


def good(place):
    return [place / f"sounds/{number}.wav" for number in range(len(SECONDS))]


@pytest.mark.parametrize("level", ["clip", "window", "token"])
def test_both_forms_hold_what_the_library_gives(place, tmp_path, capsys, level, monkeypatch):
    monkeypatch.setattr(recordings, "WINDOWS_AT_ONCE", 5)  # long recordings come in parts
    wanted = tag.load(place / "run", "torch", window=4, hop=2).embed(good(place), level=level)
    assert command(place, tmp_path / "npy", "--level", level) == 3  # of the broken file
    heard = capsys.readouterr()
    assert (
        "6 of 7 recordings" in heard.out
        and heard.err.count("\n") == 1
        and "2b.wav" in heard.err
        and "broken-audio" in heard.err
    )
    artefact.verify(tmp_path / "npy")
    rows, times = np.load(tmp_path / "npy/embeddings.npy", mmap_mode="r"), np.load(tmp_path / "npy/times.npy")
    with (tmp_path / "npy/clips.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["file"] for line in lines] == [str(path) for path in good(place)] and len(rows) == len(
        times
    ) == int(lines[-1]["end"])
    for line, embedding, seconds in zip(lines, wanted, SECONDS, strict=True):
        some = slice(int(line["begin"]), int(line["end"]))
        np.testing.assert_allclose(
            rows[some], embedding.reshape(-1, 32), atol=1e-6
        )  # which windows share a pass depends on what is there besides
        assert (
            float(line["seconds"]) == pytest.approx(seconds)
            and times[some][0, 0] == 0
            and times[some].max() <= seconds + 0.16
        )
    ledger = [json.loads(line) for line in (tmp_path / "npy/ledger.jsonl").read_text().splitlines()]
    assert [(line["status"], line.get("code")) for line in ledger] == [("ok", None)] * 3 + [
        ("rejected", "broken-audio")
    ] + [("ok", None)] * 3
    monkeypatch.setattr(embeddings, "AT_ONCE", 24)
    assert command(place, tmp_path / "parquet", "--level", level, "--format", "parquet") == 3
    table = pyarrow.parquet.read_table(tmp_path / "parquet/embeddings.parquet")
    assert sorted(contents(tmp_path / "parquet")) == ["contents.json", "embeddings.parquet", "ledger.jsonl"]
    np.testing.assert_array_equal(np.stack(table["embedding"].to_numpy()), rows)
    np.testing.assert_array_equal(np.stack([table["onset"], table["offset"]], axis=1), times)
    assert table["file"].to_pylist() == [
        line["file"] for line in lines for _ in range(int(line["end"]) - int(line["begin"]))
    ]
    assert ("band" in table.column_names) == (level == "token")
    if level == "token":
        assert table["band"].to_pylist()[:25] == [*range(8)] * 3 + [0] and table["onset"].to_pylist()[
            :25:8
        ] == [0, 0, 0.16, 0.32]  # the first recording has one step


def test_the_same_sources_give_the_same_bits(place, tmp_path):
    wanted = tag.load(place / "run", "torch", window=4, hop=2).embed(good(place)[3:])
    words = [
        "embed",
        *map(str, good(place)[3:]),
        "--model",
        str(place / "run"),
        "--engine",
        "torch",
        "--window",
        "4",
        "--hop",
        "2",
        "--to",
    ]
    for name in ("a", "b"):
        assert main([*words, str(tmp_path / name)]) == 0
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    np.testing.assert_array_equal(np.load(tmp_path / "a/embeddings.npy"), np.stack(wanted))


@pytest.mark.parametrize("level", ["window", "token"])
def test_a_recording_that_breaks_off_leaves_no_row(place, tmp_path, capsys, monkeypatch, level):
    monkeypatch.setattr(recordings, "windows_at_once", lambda engine: 2)
    tagger = tag.load(place / "run", "torch", window=4, hop=2)
    paths = good(place)[2:]
    parts = list(tagger.embeddings(paths, level))
    last = next(
        k for k, part in enumerate(parts) if part.source == str(paths[1]) and part.seconds is not None
    )
    assert sum(part.source == str(paths[1]) for part in parts) > 1
    parts[last] = tag.Refused(
        str(paths[1]), tag.UserError("broken-audio", "cannot use it", "it breaks off", "mend it")
    )
    written = embeddings.write(iter(parts), tmp_path / level, "npy", level, {})
    assert (written.recordings, written.refused.code) == (3, "broken-audio")
    for name, values in (("embeddings", "rows"), ("times", "times")):
        wanted = np.concatenate([getattr(part, values) for part in parts if part.source != str(paths[1])])
        np.testing.assert_array_equal(np.load(tmp_path / level / f"{name}.npy"), wanted)

    def read(source, seconds):  # the library says so too
        yield from list(tag.media.blocks(source, seconds))[:1]
        raise tag.UserError("broken-audio", "cannot use it", "it breaks off", "mend it")

    assert isinstance(list(tagger.embeddings(paths[:1], level, read))[-1], tag.Refused)


def test_a_model_without_a_head_embeds(place, tmp_path, capsys):
    model = str(GOLDEN / "unilm_pretrained.pt")
    assert (
        main(["tag", str(place / "sounds/1.wav"), "--model", model]) == 3
        and "no head" in capsys.readouterr().err
    )
    assert main(["embed", str(place / "sounds/1.wav"), "--model", model, "--to", str(tmp_path / "out")]) == 0
    bare = tag.load(model, head=False)
    np.testing.assert_array_equal(
        np.load(tmp_path / "out/embeddings.npy")[0], bare.embed(place / "sounds/1.wav")
    )
    with torch.no_grad():
        samples = torch.from_numpy(soundfile.read(place / "sounds/1.wav", dtype="float32")[0])[None]
        np.testing.assert_allclose(
            bare.embed(place / "sounds/1.wav"),
            bare.engine.tagger.embed(bare.engine.tagger.fbank(samples))[0],
            atol=1e-5,
        )


def test_a_pipe_and_refusals_are_one_line(place, tmp_path, capsys, monkeypatch):
    model = ["--model", str(place / "run"), "--engine", "torch"]
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO((place / "sounds/1.wav").read_bytes())))
    assert main(["embed", "-", *model, "--to", str(tmp_path / "pipe")]) == 0
    np.testing.assert_array_equal(
        np.load(tmp_path / "pipe/embeddings.npy")[0],
        tag.load(place / "run", "torch").embed(place / "sounds/1.wav"),
    )
    (tmp_path / "file").write_text("")
    capsys.readouterr()
    sound = str(place / "sounds/1.wav")
    for words, code, exit_code in (
        ([sound, *model, "--to", str(tmp_path / "pipe")], "not-writable", 5),
        ([sound, *model, "--to", str(tmp_path / "file/out")], "not-writable", 5),
        ([sound, "--model", str(tmp_path / "none"), "--to", str(tmp_path / "new")], "missing-file", 3),
        ([str(place / "run"), *model, "--to", str(tmp_path / "new")], "missing-file", 3),
        ([sound, *model], "bad-usage", 2),
    ):
        assert main(["embed", *words]) == exit_code
        heard = capsys.readouterr().err
        assert heard.count("\n") == 1 and f"[{code}]" in heard, heard
    assert (
        main(["embed", str(place / "sounds/2b.wav"), *model, "--to", str(tmp_path / "new")]) == 3
    )  # nothing to publish
    assert "[no-clips]" in capsys.readouterr().err and not (tmp_path / "new").exists()


def test_killed_at_any_point_it_is_not_there(place, tmp_path, monkeypatch):
    tagger = tag.AudioTagger(TorchEngine(make_tagger(), LABELS))
    parts = list(tagger.embeddings(good(place)[:2]))
    embeddings.write(parts, tmp_path / "whole", "npy", "clip", {})
    for point in (1, 2, 3, 4):
        monkeypatch.setattr(artefact, "checkpoint_hook", die_at(point))
        in_child(lambda: embeddings.write(parts, tmp_path / "out", "npy", "clip", {}))
        monkeypatch.undo()
        assert (tmp_path / "out").exists() == (point == 4)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
