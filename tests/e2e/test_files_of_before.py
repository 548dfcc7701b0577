"""What an earlier beatline wrote is read: `tests/data/before` says what it was, and what it gave then."""

import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

import beatline
from beatline.cli import main
from beatline.core.labels import LabelSet
from beatline.tag.calibration import Calibration

BEFORE = Path(__file__).parents[1] / "data/before"
EXPECTED: dict[str, Any] = json.loads((BEFORE / "expected.json").read_text())
LATER = {"torch": 1e-5, "onnx": 2e-5, "openvino": 2e-5, "int8": 0.02}  # another CPU, other libraries
LOG = ("step", "loss", "grad_norm", "mAP")


def extract(folder: Path) -> Path:
    with tarfile.open(BEFORE / "artefacts.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return folder / "artefacts"


@pytest.fixture(scope="module")
def before(tmp_path_factory) -> Path:
    """The files, which no test changes."""
    return extract(tmp_path_factory.mktemp("before"))


@pytest.fixture
def inside(tmp_path, monkeypatch) -> Path:
    """The files of a test's own, from within: runs name their store relative to the current folder."""
    root = extract(tmp_path)
    monkeypatch.chdir(root)
    return root


def name_of(case: dict[str, Any]) -> str:
    return "-".join([case["model"].replace("/", "-"), *map(str, case["options"].values())])


@pytest.mark.parametrize("case", EXPECTED["models"], ids=name_of)
def test_a_model_of_any_form_gives_the_scores_it_gave(before, case):
    tagger = beatline.load(str(before / case["model"]), **case["options"])
    assert list(tagger.labels.mids) == case["labels"]
    near = LATER[case["options"].get("precision", case["options"]["engine"])]
    for clip, scores in case["scores"].items():
        result = tagger(str(before / f"clips/{clip}.wav"))
        np.testing.assert_allclose(result.scores, scores, atol=near)
        if "embeddings" in case:
            np.testing.assert_allclose(result.embedding, case["embeddings"][clip], atol=1e-4)


def test_every_folder_is_whole(before, capsys):
    assert main(["verify", str(before)]) == 0
    said = capsys.readouterr().out.splitlines()
    found = [line.removeprefix(f"whole    {before}/") for line in said if line.startswith("whole")]
    assert sorted(found) == EXPECTED["verified"]


def test_a_byte_that_changed_since_is_found(inside):
    path = inside / "finished/model/model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert main(["verify", "finished"]) == 4


def test_a_store_holds_its_clips(before, capsys):
    assert main(["inspect", str(before / "store"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["content"], found["inputs"], found["clips"]) == (EXPECTED["content"], 11, 10)


def test_a_finished_run_is_not_trained_again(inside, capsys):
    kept = {path: path.read_bytes() for path in (inside / "finished/model").iterdir()}
    assert main(["run", "settings.yaml", "--out", "finished"]) == 0
    assert "finished/model is there already" in capsys.readouterr().out
    assert {path: path.read_bytes() for path in (inside / "finished/model").iterdir()} == kept
    assert json.loads((inside / "finished/score/figures.json").read_text())["figures"] == EXPECTED["figures"]


def test_a_run_that_was_killed_goes_on_to_its_end(inside, capsys):
    assert main(["train", "settings.yaml", "--out", "unfinished"]) == 0
    assert "resuming at step 5 of 8" in capsys.readouterr().out
    lines = [json.loads(line) for line in (inside / "unfinished/train/log.jsonl").read_text().splitlines()]
    log = [[line[name] for name in LOG if name in line] for line in lines]
    assert [line[0] for line in log] == [line[0] for line in EXPECTED["log"]]
    np.testing.assert_allclose(
        [line[-2:] for line in log], [line[-2:] for line in EXPECTED["log"]], rtol=1e-3, atol=1e-3
    )
    weights = load_file(inside / "unfinished/model/model.safetensors")
    norms = {name: float(np.linalg.norm(tensor.astype(np.float64))) for name, tensor in weights.items()}
    assert norms == pytest.approx(EXPECTED["norms"], rel=1e-3, abs=1e-3)
    assert main(["run", "settings.yaml", "--out", "unfinished"]) == 0
    assert (inside / "unfinished/report/report.html").exists()


@pytest.mark.parametrize(
    ("model", "name", "options"),
    [
        ("tagger", "calibrated", []),
        ("hub", "calibrated", []),
        ("finished", "calibrated_events", ["--events", "steps"]),
    ],
)
def test_a_calibration_gives_the_tags_it_gave(before, capsys, model, name, options):
    command = ["tag", str(before / "clips/long.wav"), "--model", str(before / model), "--engine", "torch"]
    assert main([*command, "--calibrated", "--format", "csv", *options]) == 0
    said = capsys.readouterr().out.replace(f"{before}/clips/", "").splitlines()
    expected = EXPECTED[name] if options else EXPECTED[name][model]
    found, wanted = ([line.rsplit(",", 1) for line in lines[1:]] for lines in (said, expected))
    assert said[0] == expected[0] and [line[0] for line in found] == [line[0] for line in wanted]
    assert [float(line[1]) for line in found] == pytest.approx([float(line[1]) for line in wanted], abs=2e-3)


def test_a_calibration_is_read_by_itself(before):
    labels = LabelSet.from_csv((before / "finished/model/labels.csv").read_text())
    assert len(Calibration.load(before / "finished", labels).thresholds) == len(labels)


def test_predictions_are_scored(before, capsys):
    assert main(["score", "--predictions", str(before / "finished/predictions")]) == 0
    assert "mAP              100.00" in capsys.readouterr().out
    files = {"scores": "score", "text": "reference_text", "tokens": "token_list"}
    options = [
        word for name, file in files.items() for word in (f"--{name}", str(before / "espnet-scores" / file))
    ]
    assert main(["score", *options]) == 0
    assert "mAP              100.00" in capsys.readouterr().out
