"""What tests ask of run folders."""

from pathlib import Path

import pytest


def newest(out: Path) -> Path:
    """The last published checkpoint."""
    return sorted(p for p in (out / "train/checkpoints").glob("step-*") if p.suffix == "")[-1]


def assert_same_figures(one: list[dict], other: list[dict], rel: float = 1e-4) -> None:
    """The logs of two runs say the same but for rounding."""
    assert len(one) == len(other) > 6
    for a, b in zip(one, other, strict=True):
        assert a.keys() == b.keys() and a["event"] == b["event"]
        for key in a.keys() - {"event"}:
            assert b[key] == pytest.approx(a[key], rel=rel, abs=1e-6), (a, b)
