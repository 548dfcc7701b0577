"""What a test costs, by the names that it uses: a new test is marked without being told so."""

import re
from collections.abc import Iterator
from types import CodeType, FunctionType, ModuleType

import pytest

SIGNS = {
    "network": {
        "Server",
        "ThreadingHTTPServer",
        "serving",
        "serve_forever",
        "served",
        "server",
        "hub",
        "ftp",
        "s3",
    },
    "browser": {"Browser", "browser", "CHROMIUM"},
    "ray": {"cluster", "rays", "assassin"},
    "kill": {"SIGKILL", "SIGTERM", "SIGINT", "kill", "terminate", "in_child", "die_at"},
}  # fixtures, classes and functions of tests/helpers and of libraries
GROUPS = {"ray": "ray", "page": "browser", "load": "network", "hub": "network"}


def marks(item: pytest.Item) -> Iterator[str]:
    """The marks of a test: by what its function and its helpers name, its fixtures, and its xdist group."""
    used = (
        set(names(item.function, set())) | set(item.fixturenames)
        if isinstance(item, pytest.Function)
        else set()
    )
    groups = {GROUPS.get(mark.args[0]) for mark in item.iter_markers("xdist_group")}
    yield from (mark for mark, signs in SIGNS.items() if used & signs or mark in groups)


def names(function: FunctionType, seen: set[object]) -> Iterator[str]:
    """The names that a function uses, and those of the functions of tests that it calls."""
    if function in seen or not isinstance(function, FunctionType):
        return
    seen.add(function)
    for name in code_names(function.__code__):
        yield name
        found = function.__globals__.get(name)
        if isinstance(found, str):  # a program
            yield from re.findall(r"\w+", found)
        for called in vars(found).values() if isinstance(found, type) else (found,):
            if str(getattr(called, "__module__", "")).startswith("tests."):
                yield from names(getattr(called, "__wrapped__", called), seen)
        if isinstance(found, ModuleType) and found.__name__.startswith("tests."):
            yield found.__name__.rpartition(".")[2]


def code_names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from code_names(constant)
