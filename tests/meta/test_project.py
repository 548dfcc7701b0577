"""The project itself: documented, small, true."""

import ast
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "src/beatline").rglob("*.py"))


def test_every_public_thing_has_a_docstring():
    seen = 0
    for path in SOURCES:
        tree = ast.parse(path.read_text())
        if path.stat().st_size:
            assert ast.get_docstring(tree), f"{path} has no docstring"
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                assert ast.get_docstring(node), f"{path}: {node.name}"
                seen += 1
    assert seen > 60


def test_type_checkers_are_told_that_the_package_has_types():
    assert (ROOT / "src/beatline/py.typed").exists()


@pytest.mark.xdist_group("project")
def test_groups_of_tests_stay_together(request):
    """pytest-xdist 3.8 ignores groups with pytest 9.2 (its issue 1386): every worker makes the fixtures then,
    which costs a third of the time.
    """
    assert request.node.nodeid.endswith("@project") or not request.config.getoption(
        "loadgroup", default=False
    )


def test_dangerous_calls_have_one_owner():
    owners = {
        r"\btorch\.load\(": "pickles.py",
        r"(?<!safetensors\.)\btorch\.save\(": "espnet.py",  # what ESPnet reads
        r"\bsafetensors\.": "own.py",
        r"\bsoundfile\.SoundFile\b": "sndfile.py",
        r"pickle\.(load|dump)": None,
    }
    for pattern, owner in owners.items():
        users = {
            path.name
            for path in SOURCES
            if re.search(pattern, re.sub(r'""".*?"""', "", path.read_text(), flags=re.S))
        }
        assert users == ({owner} if owner else set()), (pattern, users)


def test_arguments_are_parsed_in_cli_and_settings_alone():
    users = {
        p for p in SOURCES if re.search(r"^\s*(from|import) (jsonargparse|argparse)\b", p.read_text(), re.M)
    }
    package = ROOT / "src/beatline"
    assert users and {p.relative_to(package).parts[0] for p in users} <= {"cli", "settings.py"}, users


def test_what_builds_the_package_is_pinned():
    required = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    assert required and all(re.fullmatch(r"[\w-]+==[\d.]+", one) for one in required), (
        "constraints do not reach an isolated build"
    )


def test_every_pickle_is_read_with_weights_only():
    for path in SOURCES:
        for call in re.findall(r"torch\.load\([^\n]*", path.read_text()):
            assert "weights_only=True" in call


def test_the_package_has_few_rooms_and_the_readme_names_each_once():
    package = ROOT / "src/beatline"
    names = {p.name for p in package.iterdir() if p.suffix == ".py" or p.is_dir()} - {
        "__init__.py",
        "__main__.py",
        "__pycache__",
    }
    assert len(names) <= 17, sorted(names)
    text = (ROOT / "README.md").read_text()
    mapped = re.findall(r"^\| `([a-z_]+(?:/|\.py))` \|", text, re.M)
    assert sorted(mapped) == sorted(name if name.endswith(".py") else f"{name}/" for name in names)
    for command in ("./run.sh", "./test.sh", "conf/as20k.yaml"):
        assert command in text


def test_every_room_says_what_comes_in_what_goes_out_and_where_to_begin():
    for room in sorted(p.parent for p in (ROOT / "src/beatline").glob("*/__init__.py")):
        text = ast.get_docstring(ast.parse((room / "__init__.py").read_text())) or ""
        assert "In:" in text and "Out:" in text and "Begin with" in text, room
