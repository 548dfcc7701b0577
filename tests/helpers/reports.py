"""Inputs of a report on random scores, and a reader of pages that is strict about tags."""

from html.parser import HTMLParser
from typing import Any

import numpy as np

from beatline.core.labels import Label, LabelSet
from beatline.evaluate import metrics, report_page
from beatline.evaluate.predictions import Predictions

EVIL = '<script>alert("1")</script>'
VOID = {"meta", "img", "br", "link", "input", "hr"}
LOG = [
    {"event": "start"},
    *(
        {"event": "step", "step": i, "epoch": 0, "loss": 1 / (i + 1), "lr": 1e-3, "grad_norm": 0.5}
        for i in range(20)
    ),
]
LOG += [
    {"event": "validation", "step": i, "epoch": i // 10, "loss": 0.2, "mAP": 0.3, "mean_auc": 0.6}
    for i in (9, 19)
]
SUMMARY: dict[str, Any] = {
    "inputs": 45,
    "ok": 43,
    "hours": 0.05,
    "splits": {"train": 20, "val": 3, "test": 20},
    "rejected": {"too-short": 2},
    "validation": "given",
}
SUMMARY["labels"] = [
    {"mid": "a", "name": "Kept", "present": 9, "lost": 0},
    {"mid": "b", "name": "Half", "present": 2, "lost": 2},
    {"mid": "c", "name": "Few", "present": 9, "lost": 3},
]


def rng() -> np.random.Generator:
    return np.random.Generator(np.random.Philox(1))


def make(clips=20, labels=4, ids=None, label_set=None, resamples=0, **others) -> report_page.ReportInputs:
    """Inputs of a report on random scores."""
    names = ids or tuple(f"clip-{i}" for i in range(clips))
    label_set = label_set or LabelSet(tuple(Label(f"/m/{i}", f"Label {i}, rest") for i in range(labels)))
    targets = rng().random((len(names), len(label_set))) < 0.4
    targets[:, 0] |= ~targets.any(axis=1)
    predictions = Predictions(names, rng().random(targets.shape, dtype=np.float32), targets, label_set)
    defaults = {
        "title": "a run",
        "predictions": predictions,
        "figures": metrics.figures(predictions.scores, targets, clips_hash="ab" * 32, resamples=resamples),
        "train_positives": np.arange(len(label_set)),
        "config": {"out": "runs/x", "data": {"csv": "mini"}, "optim": {"betas": [0.9, 0.98]}},
        "data_summary": SUMMARY,
        "validation_rule": "a stratified tenth of train",
        "environment": {"date": "today", "beatline version": "9"},
        "baseline": {"simple": 0.25},
        "log": LOG,
        "samples_of": lambda name: (1000 * np.sin(np.arange(16_000) * 0.3)).astype(np.int16),
    }
    return report_page.ReportInputs(**(defaults | others))


class Page(HTMLParser):
    """Tags in order, ids, links and scripts; fails on a tag that is closed out of turn."""

    def __init__(self, page: str):
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict]] = []
        self.words: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("script", "style"):
            self.words.append(data)

    def all(self, tag: str) -> list[dict]:
        return [attrs for name, attrs in self.tags if name == tag]
