"""what the model says of a recording -> the JSON of an answer; and errors as JSON.

In: a `tag.result.Result` and what the client asked for. Out: plain values; the classes here describe them in
`/openapi.json`. Scores are written with the digits that give the same float32 when read. Imports no torch.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, Field

from beatline.core.errors import EXIT_CODES, RESOURCE, UserError
from beatline.core.labels import Label, LabelSet
from beatline.core.ontology import label_indices, ontology
from beatline.tag import result as tag_result
from beatline.tag.events import EventOptions

STATUS = {
    "too-large": 413,
    "too-long": 413,
    "not-audio": 415,
    "upload-timeout": 408,
    "server-busy": 429,
    "missing-file": 404,
}
"""HTTP statuses of codes; 503 for others of the class `RESOURCE`, 422 for the rest."""

PASSING = (429, 503)
"""Statuses that come with Retry-After."""


class Error(BaseModel):
    """Why something could not be done; `code` is for programs."""

    code: str
    what: str
    cause: str
    remedy: str


class Refusal(BaseModel):
    """The answer to a request that was not served."""

    request_id: str
    error: Error


class Tag(BaseModel):
    """A label with its score."""

    mid: str
    name: str
    score: float = Field(ge=0, le=1)


class Row(BaseModel):
    """A label's score in each window."""

    mid: str
    name: str
    scores: list[float]


class Timeline(BaseModel):
    """Scores over time; windows overlap."""

    window: float = Field(description="length of the longest window, seconds")
    starts: list[float] = Field(description="where each window begins, seconds")
    ends: list[float]
    labels: list[Row] = Field(description="those with the highest scores in any window, and those of `tags`")


class Event(BaseModel):
    """A label from its onset to its offset, seconds."""

    mid: str
    name: str
    onset: float
    offset: float
    score: float = Field(ge=0, le=1)


class Result(BaseModel):
    """What the model says of a file; or the error, and nothing else."""

    file: str
    seconds: float | None = None
    tags: list[Tag] | None = None
    note: str | None = None
    timeline: Timeline | None = None
    events: list[Event] | None = None
    error: Error | None = None


class Answer(BaseModel):
    """A result for each file, in order."""

    request_id: str
    results: list[Result]


class Node(BaseModel):
    """A class of AudioSet's ontology, label of the model or not."""

    mid: str
    name: str
    children: list[str]


class LabelEntry(Node):
    """A label of the model; parents and children are mids of the ontology."""

    index: int
    parents: list[str]


class Labels(BaseModel):
    """The model's labels, and the part of the ontology that they are in."""

    labels: list[LabelEntry]
    nodes: list[Node]


class State(BaseModel):
    """How the server is."""

    status: Literal["ok", "starting", "stopping"]


@dataclass(frozen=True)
class Wanted:
    """What a client asked to be told."""

    top: int
    threshold: float
    labels: list[int]
    """Indices of the labels asked for, in order of the model."""
    timeline: bool
    events: EventOptions | None


def status_of(error: UserError) -> int:
    """The HTTP status that goes with an error."""
    return _status(error.code)


def _status(code: str) -> int:
    return STATUS.get(code, 503 if EXIT_CODES[code] == RESOURCE else 422)


def status_of_all(codes: list[str]) -> int:
    """The HTTP status of an answer to several files: 200 where a file is tagged."""
    statuses = {_status(code) if code else 200 for code in codes}
    if 200 in statuses:
        return 200
    return statuses.pop() if len(statuses) == 1 else 422


def mistake(request_id: str) -> dict[str, str]:
    """As `Error`, of what is no `UserError`."""
    return {
        "code": "internal-error",
        "what": "cannot serve the request",
        "cause": "a mistake of the server",
        "remedy": f"tell who runs it the id {request_id}",
    }


def error_values(error: UserError) -> dict[str, str]:
    """As `Error`."""
    return {"code": error.code, "what": error.what, "cause": error.cause, "remedy": error.remedy}


def chosen(labels: LabelSet, words: list[str]) -> list[int]:
    """Indices of the labels that words name, as `ontology.label_indices`; all where there are no words.

    Raises:
        UserError: `unknown-label`.
    """
    return label_indices(labels, words) if words else list(range(len(labels)))


def encoded(value: Any) -> Iterator[str]:
    """The JSON of a value, a piece at a time. An iterator in it is written as a list, each element when it is
    its turn.
    """
    if isinstance(value, dict):
        opening = "{"
        for key, inner in value.items():
            yield f"{opening}{json.dumps(key)}: "
            yield from encoded(inner)
            opening = ", "
        yield "}" if value else "{}"
    elif isinstance(value, Iterator):
        opening = ""
        yield "["
        for inner in value:
            yield opening
            yield from encoded(inner)
            opening = ", "
        yield "]"
    else:
        yield json.dumps(value, ensure_ascii=False)


def result(tagged: tag_result.Result, wanted: Wanted) -> dict[str, Any]:
    """As `Result`; what grows with the recording's length is an iterator, for `encoded`."""
    shown = tagged.select(wanted.labels)
    values: dict[str, Any] = {
        "file": shown.source,
        "seconds": round(shown.seconds, 3),
        "tags": tags(shown.top(wanted.top, wanted.threshold)),
    }
    if shown.note:
        values["note"] = shown.note
    if wanted.timeline:
        values["timeline"] = _timeline(shown, wanted)
    if shown.events is not None:
        values["events"] = (
            _label(event.label) | {"onset": event.onset, "offset": event.offset, "score": number(event.score)}
            for event in shown.events
        )
    return values


def tags(best: list[tuple[Label, float]]) -> list[dict[str, Any]]:
    """As `Tag`s."""
    return [_label(label) | {"score": number(score)} for label, score in best]


def best(labels: LabelSet, scores: np.ndarray, wanted: Wanted) -> list[tuple[Label, float]]:
    """The wanted labels with the highest scores, best first, as `tag.result.Result.top` gives them."""
    own = scores[wanted.labels]
    order = [i for i in np.argsort(-own, kind="stable")[: wanted.top] if own[i] >= wanted.threshold]
    return [(labels.labels[wanted.labels[i]], float(own[i])) for i in order]


def number(score: float) -> float:
    """The shortest number that is this float32."""
    return float(str(np.float32(score)))


def _label(label: Label) -> dict[str, str]:
    return {"mid": label.mid, "name": label.name}


def _timeline(shown: tag_result.Result, wanted: Wanted) -> dict[str, Any]:
    """As `Timeline`."""
    peaks = replace(shown, scores=shown.window_scores.max(axis=0))
    labels = [
        label
        for label, _ in (*peaks.top(wanted.top, wanted.threshold), *shown.top(wanted.top, wanted.threshold))
    ]
    rows = (
        _label(label)
        | {
            "scores": [
                number(score) for score in shown.window_scores[:, shown.labels.index_of_mid[label.mid]]
            ]
        }
        for label in dict.fromkeys(labels)
    )
    return {
        "window": shown.window,
        "starts": shown.starts.tolist(),
        "ends": shown.ends.tolist(),
        "labels": rows,
    }


def label_table(labels: LabelSet) -> dict[str, Any]:
    """As `Labels`; `nodes` are the model's labels and all classes above them."""
    nodes = ontology()
    parents: dict[str, list[str]] = {}
    for node in nodes.values():
        for child in node.children:
            parents.setdefault(child, []).append(node.mid)
    near: set[str] = set()
    waiting = list(labels.mids)
    while waiting:
        mid = waiting.pop()
        if mid not in near:
            near.add(mid)
            waiting += parents.get(mid, [])
    entries = [
        {
            "index": i,
            "mid": label.mid,
            "name": label.name,
            "parents": parents.get(label.mid, []),
            "children": [child for child in _children(label.mid) if child in near],
        }
        for i, label in enumerate(labels.labels)
    ]
    kinds = [
        {"mid": node.mid, "name": node.name, "children": [child for child in node.children if child in near]}
        for node in nodes.values()
        if node.mid in near
    ]
    alone = [
        {"mid": label.mid, "name": label.name, "children": []}
        for label in labels.labels
        if label.mid not in nodes
    ]
    return {"labels": entries, "nodes": kinds + alone}


def _children(mid: str) -> tuple[str, ...]:
    node = ontology().get(mid)
    return node.children if node else ()
