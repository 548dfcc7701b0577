"""Configurations: shipped ones parse, errors name the setting and the nearest one."""

import ast
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from beatline import cli, config, settings
from beatline.config import Config, to_dict
from beatline.core.errors import UserError
from beatline.data import manifest


def test_every_shipped_configuration_parses_and_opens_with_its_facts():
    found = settings.shipped()
    assert {"mini", "as20k", "as20k-espnet", "esc50"} <= set(found)
    for name, path in found.items():
        assert isinstance(settings.load(name), config.Config)
        header = path.read_text().split("\n\n")[0].split("out:")[0]
        assert all(word in header for word in ("Source:", "Expected:", "Command:")) and "our" in header
        assert "/home" not in path.read_text()


def test_a_resolved_configuration_reads_back_the_same(tmp_path):
    first = settings.load(
        "mini", ["--optim.lr", "2e-4", "--optim.betas", "[0.9, 0.95]", "--data.csv", str(tmp_path / "x.csv")]
    )
    path = tmp_path / "resolved.yaml"
    path.write_text(settings.dump_yaml(first))
    assert settings.load(path) == first
    assert first.optim.lr == 2e-4 and first.optim.betas == (0.9, 0.95)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["--optim.lrr", "1"], "did you mean optim.lr"),
        (["--optim.lr", "fast"], "optim.lr"),
        (["--train.epochs", "0"], "train.epochs"),
        (["--data.audioset", "x"], "one source"),
        (["--model.encoder.encoder_attention_heads", "5"], "heads"),
        (["--augment.mixup_probability", "1.5"], "between 0 and 1"),
        (["--train.order", "sorted"], "train.order"),
        (["--model.encoder.input_patch_size", "8"], "is not 16"),
    ],
)
def test_a_wrong_setting_is_one_line(overrides, words):
    with pytest.raises(UserError, match=words) as caught:
        settings.load("mini", overrides)
    assert caught.value.code == "bad-config" and caught.value.exit_code == 2 and "\n" not in str(caught.value)


def test_an_unknown_key_in_a_file_is_an_error(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("optim: {learning_rate: 1}\n")
    with pytest.raises(UserError, match="learning_rate"):
        settings.load(path)


def test_a_missing_file_names_the_nearest():
    with pytest.raises(UserError, match="did you mean as20k"):
        settings.load("as20.yaml")


def test_a_mistyped_path_is_not_a_shipped_configuration(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert (
        settings.find("mini")
        == settings.find("mini.yaml")
        == settings.find("conf/mini.yaml")
        == settings.shipped()["mini"]
    )
    for name in ("experiments/mini.yaml", "experiments/mini", "/conf/mini.yaml", "../conf/mini.yaml"):
        with pytest.raises(UserError, match="no such file") as caught:
            settings.load(name)
        assert caught.value.code == "missing-file"


def documented() -> dict[str, str | None]:
    """The docstring of each field of each class of settings; None where there is none."""
    found = {}
    for kind in ast.parse(Path(config.__file__).read_text()).body:
        for node, after in pairwise(kind.body if isinstance(kind, ast.ClassDef) else ()):
            if isinstance(node, ast.AnnAssign):
                said = after.value if isinstance(after, ast.Expr) else None
                text = said.value if isinstance(said, ast.Constant) else None
                found[f"{kind.name}.{ast.unparse(node.target)}"] = text
    return found


def names(settings: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """The dotted name of every setting."""
    for name, value in settings.items():
        yield from names(value, f"{prefix}{name}.") if value and isinstance(value, dict) else [prefix + name]


def test_help_says_what_every_setting_is():
    shown = cli.parser_of("run").text(100)
    assert all(f"--{name} " in shown for name in names(config.to_dict(config.Config())))
    closed = "".join(shown.split())  # without white space: lines are broken anywhere
    texts = [text.rstrip(".") for text in documented().values() if text]
    assert len(texts) > 80 and [text for text in texts if "".join(text.split()) not in closed] == []


def test_every_setting_is_listed_with_its_kind_default_and_values():
    table = settings.table()
    assert list(table) == list(names(config.to_dict(config.Config()))) and len(table) > 80
    assert table["optim.lr"] == settings.Setting(
        name="optim.lr", doc="Highest learning rate, above 0", kind="float", default=3e-5
    )
    assert table["train.compile"].values == ("true", "false") and table["model.init"].kind == "path"
    assert table["augment.more"].default is None
    assert table["train.order"].values == ("fresh", "fixed-batches")


def test_a_docstring_makes_sense_without_its_neighbours():
    for setting in settings.table().values():
        words = re.findall(r"[a-z]+", setting.doc.lower())
        assert not {"this", "they", "its", "here", "it"} & set(words[:3]), setting
        assert len(setting.doc.split()) <= 20, setting
        assert setting.kind not in ("int", "float") or re.search(
            r"\d|above|below|Seed|multiple|seconds|Mean", setting.doc
        ), setting  # a range or a unit


def test_an_unknown_data_set_names_the_nearest():
    with pytest.raises(UserError, match="did you mean esc50") as caught:
        manifest.read(config.DataConfig(dataset="esc5"))
    assert caught.value.code == "bad-config"


def test_every_field_has_a_docstring_of_one_line():
    found = documented()
    assert len(found) > 60 and [name for name, text in found.items() if not text or "\n" in text] == []


@pytest.mark.parametrize("name", sorted(settings.shipped()))
def test_a_shipped_configuration_holds_only_what_differs_from_the_defaults(name):
    given = yaml.safe_load(settings.shipped()[name].read_text())
    assert list(repeated(given, to_dict(Config()))) == []


def repeated(given, defaults, prefix=""):
    for key, value in given.items():
        if isinstance(value, dict) and isinstance(defaults[key], dict):
            yield from repeated(value, defaults[key], f"{prefix}{key}.")
        elif value == defaults[key]:
            yield prefix + key
