"""The one door: models come in by `beatline.load`, and only few modules know the network."""

import ast
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "src/beatline"
DOORS = ("__init__.py", "recipe.py", "cli", "publish", "fetch")
CLIENTS = {
    "httpx2",
    "urllib3",
    "requests",
    "aiohttp",
    "huggingface_hub",
    "yt_dlp",
    "urllib.request",
    "http.client",
}


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, inside functions too, by its full name."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def users(*modules: str) -> set[str]:
    """The files of the package that import one of the modules or what is in it."""
    return {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        for name in imports(path)
        if any(f"{name}.".startswith(f"{module}.") for module in modules)
    }


def test_rooms_below_the_door_know_no_names_of_models_and_no_network():
    asking = users("beatline.fetch")
    assert "__init__.py" in asking and "recipe.py" in asking
    assert {name.split("/")[0] for name in asking} <= set(DOORS), sorted(asking)


def test_sockets_of_clients_are_opened_in_fetch_alone():
    assert {name.split("/")[0] for name in users(*CLIENTS)} == {"fetch"}, sorted(users(*CLIENTS))
