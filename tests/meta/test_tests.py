"""The tests themselves: free to move, and bound to public names only."""

import ast
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

CLOCK = re.compile(r"\btime\.(monotonic|perf_counter|process_time|time)\(")
TESTS = Path(__file__).parents[1]
FILES = sorted(path for path in TESTS.rglob("*.py") if path.name != "__init__.py")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(TESTS).as_posix())
def test_no_file_takes_from_a_test_file(path):
    taken = {name for name in imported(ast.parse(path.read_text())) if name.startswith("tests.")}
    assert {name for name in taken if not name.startswith("tests.helpers")} == set()


def imported(tree: ast.Module) -> Iterator[str]:
    """The modules that a file imports, anywhere in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(TESTS).as_posix())
def test_no_test_uses_a_private_name(path):
    tree = ast.parse(path.read_text())
    assert list(private_names(tree)) == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(TESTS).as_posix())
def test_no_test_asserts_how_long_something_took(path):
    """Waiting until a deadline for what must happen is fine: `assert time.monotonic() < deadline`."""
    asserts = [node.test for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Assert)]
    spans = [
        ast.unparse(node)
        for test in asserts
        for node in ast.walk(test)
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Sub) and CLOCK.search(ast.unparse(node))
    ]
    assert spans == []


def private_names(tree: ast.Module) -> Iterator[str]:
    """Private names of beatline that a file imports, asks an object for, or names in a string.

    A program in a string counts as a file. A test's own classes may have private attributes.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("beatline"):
            yield from (name.name for name in node.names if is_private(name.name))
        elif isinstance(node, ast.Attribute) and is_private(node.attr):
            if not (isinstance(node.value, ast.Name) and node.value.id in ("self", "os")):
                yield ast.unparse(node)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("setattr"):
            yield from (word for word in strings(node.args[:2]) if is_private(word.rpartition(".")[2]))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and "import" in node.value:
            with suppress(SyntaxError):
                yield from private_names(ast.parse(node.value))


def is_private(name: str) -> bool:
    """Whether it is private: namedtuples and IPython give public names a leading underscore."""
    public = ("_fields", "_asdict", "_replace", "_repr_html_")
    return name.startswith("_") and not name.startswith("__") and name not in public


def strings(nodes: list[ast.expr]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
