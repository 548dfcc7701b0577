"""ESPnet's packed form: what `meta.yaml` says is there, and is the model. ESPnet itself unpacks and runs one
in tests/e2e/test_docs.py.
"""

import zipfile

import pytest
import torch
import yaml

from beatline import cli
from beatline.core.errors import UserError
from beatline.model.checkpoints.load import load_checkpoint
from beatline.model.checkpoints.own import save
from beatline.publish import espnet_zip
from tests.helpers.models import LABELS, make_tagger


def test_meta_names_the_files_by_the_arguments_of_espnet_s_class(tmp_path):
    espnet_zip.write(tmp_path / "model.zip", make_tagger(), LABELS)
    assert [path.name for path in tmp_path.iterdir()] == ["model.zip"]
    with zipfile.ZipFile(tmp_path / "model.zip") as archive:
        assert archive.namelist()[0] == "meta.yaml"
        about = yaml.safe_load(archive.read("meta.yaml"))
        archive.extractall(tmp_path / "there")
    assert about.keys() == {"espnet", "files", "python", "timestamp", "torch", "yaml_files"} and about[
        "torch"
    ] == str(torch.__version__)
    config, model = (
        about["yaml_files"]["classification_train_config"],
        about["files"]["classification_model_file"],
    )
    loaded = load_checkpoint(tmp_path / "there" / model)
    assert (tmp_path / "there" / config).with_name(
        "model.pth"
    ) == tmp_path / "there" / model and loaded.family == "ESPnet"
    clip = torch.linspace(-0.5, 0.5, 8000)[None]
    with torch.no_grad():
        assert torch.equal(loaded.tagger()(clip), make_tagger()(clip)) and [
            label.name for label in loaded.labels.labels
        ] == list(LABELS.names)


def test_nothing_is_left_of_a_write_that_fails(tmp_path, monkeypatch):
    def fail(*_):
        raise UserError("disk-full", "no", "space", "left")

    monkeypatch.setattr(espnet_zip, "write_espnet", fail)
    with pytest.raises(UserError):
        espnet_zip.write(tmp_path / "model.zip", make_tagger(), LABELS)
    assert list(tmp_path.iterdir()) == []


def test_the_command(tmp_path, capsys):
    save(tmp_path / "model", make_tagger(), LABELS, {})
    assert cli.main(
        ["pack", str(tmp_path / "model"), str(tmp_path / "m.zip"), "--form", "espnet"]
    ) == 0 and zipfile.is_zipfile(tmp_path / "m.zip")
    assert cli.main(["pack", str(tmp_path / "model"), str(tmp_path / "m.zip"), "--form", "espnet"]) == 5
    assert (
        cli.main(
            ["pack", str(tmp_path / "model"), str(tmp_path / "n.zip"), "--form", "espnet", "--license", "mit"]
        )
        == 2
    )
    assert not (tmp_path / "n.zip").exists() and capsys.readouterr().err.count("\n") == 2
