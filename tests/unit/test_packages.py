"""Packages that are not installed: what is said, and that the table of extras has them all."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from beatline import cli
from beatline.core import packages

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
IMPORTED_AS = {"pyyaml": "yaml", "yt-dlp": "yt_dlp", "python-multipart": "python_multipart"}
ALONG = {"pydantic": "fastapi", "starlette": "fastapi", "fsspec": "s3fs", "markupsafe": "jinja2"}
"""Packages that another package brings."""
LIGHT = ("numpy", "soundfile", "soxr", "onnxruntime", "huggingface_hub", "httpx2")


def required(extra=""):
    """Names that are imported, of the packages that an installation with this extra asks for itself."""
    lines = PROJECT["optional-dependencies"][extra] if extra else PROJECT["dependencies"]
    names = (line.split(">")[0].split("=")[0].split("[")[0].lower() for line in lines)
    return {IMPORTED_AS.get(name, name) for name in names}


def imported():
    """Every top-level module that the package imports, wherever."""
    for path in (ROOT / "src/beatline").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                yield from (alias.name.partition(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                yield str(node.module).partition(".")[0]


def without_torch(code):
    """What a program says and returns where PyTorch and matplotlib are not installed."""
    hidden = "import sys; sys.modules.update(torch=None, matplotlib=None); "
    return subprocess.run([sys.executable, "-c", hidden + code], capture_output=True, text=True)


def test_what_is_imported_comes_with_the_light_installation_or_with_a_named_extra():
    others = set(imported()) - set(sys.stdlib_module_names) - {"beatline"}
    assert {"torch", "numpy", "jinja2"} <= others
    light = required() | {package for package, bringer in ALONG.items() if bringer in required()}
    assert others - light == set(packages.EXTRAS) & others
    for package, extra in packages.EXTRAS.items():
        assert ALONG.get(package, package) in required(extra), (package, extra)


def test_the_light_installation_has_what_tagging_takes_and_no_pytorch():
    assert set(LIGHT) <= required()
    assert not {"torch", "tensorboard", "matplotlib", "safetensors"} & required()


def test_absent_packages_are_named_with_what_installs_them():
    error = packages.missing("a page", "matplotlib", "onnx")
    assert str(error).startswith("a page: matplotlib and onnx are not installed; ")
    assert str(error).endswith("; pip install 'beatline[train,export]' [missing-package]")
    assert "numpy is not installed; pip install beatline " in str(packages.missing("a tag", "numpy"))


def test_a_module_of_beatline_that_is_missing_stays_a_bug():
    with pytest.raises(ModuleNotFoundError), packages.told("a tag"):
        raise ModuleNotFoundError("No module named 'beatline.x'", name="beatline.x")


def test_a_command_that_needs_more_than_is_installed_says_so_in_a_line(capsys, monkeypatch):
    def without_torch(arguments):
        raise ModuleNotFoundError("No module named 'torch.export'", name="torch.export")

    monkeypatch.setattr("beatline.cli.tag.tag", without_torch)
    assert cli.main(["tag", "x.wav", "--model", "run"]) == 2
    assert capsys.readouterr().err == (
        "beatline: beatline tag: torch is not installed; pip install 'beatline[train]' [missing-package]\n"
    )


@pytest.mark.parametrize("words", [["run", "mini"], ["train", "mini"], ["report", "mini"]])
def test_what_takes_long_says_so_before_it_begins(words, tmp_path):
    done = without_torch(
        f"import os; os.chdir({str(tmp_path)!r}); from beatline import cli; sys.exit(cli.main({words}))"
    )
    assert done.returncode == 2 and done.stdout == "" and done.stderr.count("\n") == 1
    assert "not installed; pip install 'beatline[train]'" in done.stderr
    assert not list(tmp_path.rglob("contents.json"))


@pytest.mark.parametrize("call", ["load", "load_checkpoint"])
def test_the_public_functions_say_so_too(call, tmp_path):
    done = without_torch(f"import beatline; beatline.{call}({str(tmp_path)!r})")
    assert "UserError: model " in done.stderr and "pip install 'beatline[train]'" in done.stderr
