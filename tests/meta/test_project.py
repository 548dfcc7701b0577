"""The project itself: documented, small, true."""

import ast
import re
from pathlib import Path

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


def test_dangerous_calls_have_one_owner():
    owners = {r"\btorch\.load\(": "checkpoint.py", r"\bsafetensors\.": "checkpoint.py", r"\bsoundfile\.SoundFile\b": "audio.py", r"jsonargparse import": "config.py", r"pickle\.(load|dump)": None}
    for pattern, owner in owners.items():
        users = {path.name for path in SOURCES if re.search(pattern, re.sub(r'""".*?"""', "", path.read_text(), flags=re.S))}
        assert users == ({owner} if owner else set()), (pattern, users)


def test_every_pickle_is_read_with_weights_only():
    for path in SOURCES:
        for call in re.findall(r"torch\.load\([^\n]*", path.read_text()):
            assert "weights_only=True" in call


def test_the_readme_maps_every_room():
    text = (ROOT / "README.md").read_text()
    for path in SOURCES:
        if path.name not in ("__init__.py", "__main__.py"):
            assert f"`{path.relative_to(ROOT / 'src/beatline').as_posix()}`" in text, f"README has no line for {path.name}"
    for command in ("./run.sh", "./test.sh", "conf/as20k.yaml"):
        assert command in text
