"""A head, a runtime and a format from outside the package: each a file or a function, and a name."""

import numpy as np
import pytest
import soundfile
import torch

import beatline
from beatline import cli
from beatline.model.checkpoints.load import load_tagger
from beatline.model.checkpoints.own import save
from beatline.model.engines import graphs
from beatline.model.engines.export import export
from beatline.model.engines.load import engine_names
from beatline.model.heads import HEADS, make_head
from beatline.model.tagger import Tagger, initialise_tagger
from beatline.tag import formats
from tests.helpers.models import CONFIG, LABELS, make_tagger

SOUND = (0.1 * np.random.default_rng(0).standard_normal(20_000)).astype(np.float32)


@pytest.fixture
def gained(monkeypatch):
    monkeypatch.setitem(HEADS, "gained", "tests.helpers.toys.head")
    tagger = Tagger(CONFIG, len(LABELS), head={"name": "gained", "start": 2.0})
    return initialise_tagger(tagger, torch.Generator().manual_seed(0)).eval()


def test_a_head_of_a_stranger_is_saved_loaded_and_tags(gained, tmp_path):
    save(tmp_path / "model", gained, LABELS, {})
    again = load_tagger(tmp_path / "model").tagger()
    assert torch.equal(again.head.gain, gained.head.gain) and again.head.settings() == gained.head.settings()
    scores = beatline.load(tmp_path / "model", engine="torch")(SOUND, 16_000).scores
    with torch.no_grad():
        wanted = gained.score(gained(torch.from_numpy(SOUND)[None]))[0].numpy()
    np.testing.assert_allclose(scores, wanted, atol=1e-6)


def test_a_head_that_nobody_knows_is_one_line():
    with pytest.raises(beatline.UserError, match="linear, neighbours") as error:
        make_head({"name": "no-such"}, 32, 3, "multi-label")
    assert error.value.code == "bad-checkpoint"


@pytest.mark.slow
def test_a_runtime_of_a_stranger_writes_checks_and_runs(monkeypatch, tmp_path):
    monkeypatch.setitem(graphs.RUNTIMES, "toy", "tests.helpers.toys.engine")
    differences = export(make_tagger(), LABELS, tmp_path / "exported", to="toy")
    assert "toy" in engine_names() and differences["model.toy"]["worst"] < 1e-5
    tagger = beatline.load(tmp_path / "exported", engine="toy")
    save(tmp_path / "model", make_tagger(), LABELS, {})
    wanted = beatline.load(tmp_path / "model", engine="torch")(SOUND, 16_000)
    np.testing.assert_allclose(tagger(SOUND, 16_000).scores, wanted.scores, atol=1e-5)


def test_a_format_of_a_stranger_is_a_choice_of_the_command(monkeypatch, tmp_path, capsys):
    def best(results, choice):
        for result in results:
            yield f"{result.top(1)[0][0].name}!\n"

    monkeypatch.setitem(formats.TEXTS, "best", best)
    save(tmp_path / "model", make_tagger(), LABELS, {})
    soundfile.write(tmp_path / "a.wav", SOUND, 16_000)
    words = ["tag", str(tmp_path / "a.wav"), "--model", str(tmp_path / "model"), "--engine", "torch"]
    assert cli.main([*words, "--format", "best"]) == 0
    wanted = beatline.load(tmp_path / "model", engine="torch")(tmp_path / "a.wav").top(1)[0][0].name
    assert capsys.readouterr().out == f"{wanted}!\n"
