"""Temperature and thresholds are those of the definition, and are used by nothing but the model they were
learned for.
"""

import numpy as np
import pytest
import soundfile

from beatline.cli import main
from beatline.core.errors import UserError
from beatline.evaluate import calibrate as calibration
from beatline.model.checkpoints.own import save
from beatline.tag import tagger
from beatline.tag.calibration import Calibration
from tests.helpers.models import LABELS, make_tagger


def sigmoid(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(logits, -80, 80)))


def test_the_temperature_that_made_the_labels_is_found():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 6, (4000, 3)).astype(np.float32)
    targets = rng.random(logits.shape) < sigmoid(logits / 2.5)
    evidence = calibration.Evidence([row[None] for row in logits], targets, np.ones(3, bool), sigmoid)
    found = calibration.fit_temperature(evidence)
    assert found == pytest.approx(2.5, rel=0.06)
    errors = [
        calibration.expected_error(calibration.reliability(evidence.scores(t), targets, "multi-label"))
        for t in (1.0, found)
    ]
    assert errors[1] < 0.02 < errors[0]


def test_thresholds_are_the_best_there_are():
    rng = np.random.default_rng(1)
    scores, targets = rng.random((60, 4)).astype(np.float32).round(2), rng.random((60, 4)) < 0.3
    targets[:, 3] = False

    def f1(threshold: float, k: int) -> float:
        return calibration.decided(scores[:, k] >= threshold, targets[:, k])["f1"]

    thresholds, states = calibration.fit_thresholds(scores, targets)
    for k in range(3):
        assert f1(thresholds[k], k) == pytest.approx(max(f1(t, k) for t in np.unique(scores[:, k])))
    assert thresholds[3] == calibration.DEFAULT and states == ("learned", "learned", "learned", "default")
    wanted, states = calibration.fit_thresholds(scores, targets, precision=0.4)
    for k in np.flatnonzero(np.array(states) == "learned"):
        good = [
            t
            for t in np.unique(scores[:, k])
            if calibration.decided(scores[:, k] >= t, targets[:, k])["precision"] >= 0.4
        ]
        assert (scores[:, k] >= wanted[k]).sum() == (scores[:, k] >= min(good)).sum()


def test_the_program_learns_and_tags_with_it(tmp_path, capsys, monkeypatch):
    save(tmp_path / "run/model", make_tagger(), LABELS, {})
    rng, rows = np.random.default_rng(2), ["file,labels"]
    for i in range(12):
        soundfile.write(tmp_path / f"{i}.wav", rng.uniform(0.01, 0.5) * rng.standard_normal(9000), 16_000)
        rows.append(f"{i}.wav,{LABELS.mids[i % 2]}")
    (tmp_path / "clips.csv").write_text("\n".join(rows) + "\n")
    run = str(tmp_path / "run")
    assert main(["calibrate", "--model", run, "--csv", str(tmp_path / "clips.csv")]) == 0
    said = capsys.readouterr().out
    assert (
        "2 of 3 labels learned" in said
        and str(tmp_path / "run/calibration/reliability.html") in said
        and "error 0." in said
    )
    shown = (tmp_path / "run/calibration/reliability.html").read_text()
    assert (
        "12 labelled clips" in shown
        and all(f">{name}<" in shown for name in LABELS.names)
        and "(5 parts, each left out once)" in shown
    )
    learned = Calibration.load(run, LABELS)
    assert learned.states == ("learned", "learned", "default") and learned.about["clips"] == 12
    plain = tagger.load(run)
    raw = plain(tmp_path / "0.wav").scores
    plain.calibration = learned
    np.testing.assert_allclose(
        plain(tmp_path / "0.wav").scores, sigmoid(np.log(raw / (1 - raw)) / learned.temperature), atol=1e-5
    )
    assert main(["tag", str(tmp_path / "0.wav"), "--model", run, "--calibrated"]) == 0
    capsys.readouterr()
    assert (
        main(["calibrate", "--model", run]) == 2 and "missing-stage" in capsys.readouterr().err
    )  # no store beside it
    (tmp_path / "run/model/below").mkdir()
    for number, (here, name) in enumerate(
        (("run/model", "."), ("run", "."), ("run", "model"), ("run/model/below", ".."))
    ):
        monkeypatch.chdir(tmp_path / here)
        assert main(["tag", str(tmp_path / "0.wav"), "--model", name, "--calibrated"]) == 0
        assert (
            main(["pack", name, str(tmp_path / f"packed{number}"), "--form", "hub"]) == 0
            and (tmp_path / f"packed{number}/calibration").is_dir()
        )
    (tmp_path / "run/model/below").rmdir()
    capsys.readouterr()
    (tmp_path / "run/model").rename(tmp_path / "old")
    other = make_tagger()
    other.head.bias.data += 1
    save(tmp_path / "run/model", other, LABELS, {})
    with pytest.raises(UserError, match="another model"):
        Calibration.load(run)
