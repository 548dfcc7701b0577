"""labelled embeddings -> a head: fitted at each strength, and the strength chosen.

In: embeddings of clips with their labels. Out: the tensors of a linear head, or of a head of stored examples.
The clips that judge a strength are never in the fit that they judge.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from beatline.evaluate import calibrate
from beatline.evaluate.labelled import folds
from beatline.model.engines import base
from beatline.model.heads import Task
from beatline.model.heads.neighbours import Neighbours
from beatline.train import logistic

Kind = Literal["linear", "nearest"]
Head = dict[str, Tensor]
"""Tensors of `Tagger.head`, by name."""

STRENGTHS: dict[str, tuple[float, ...]] = {
    "linear": tuple(float(f"{value:.3g}") for value in np.geomspace(10, 1e-4, 11)),
    "nearest": tuple(float(f"{value:.3g}") for value in np.geomspace(1, 0.02, 11)),
}
"""What is tried: penalties of the squared weights, temperatures of cosines; from the smoothest head to the
sharpest.
"""
DEFAULT = {"linear": 0.1, "nearest": 0.1}  # where no clip can be held out
FOLDS = 5


@dataclass(frozen=True)
class Examples:
    """Labelled embeddings."""

    embeddings: np.ndarray
    """`(clips, width)` float32."""
    targets: np.ndarray
    """`(clips, labels)` bool."""
    recordings: tuple[str, ...]
    """What each was cut from."""

    def part(self, rows: np.ndarray) -> "Examples":
        """The examples of these rows."""
        return Examples(self.embeddings[rows], self.targets[rows], tuple(self.recordings[i] for i in rows))


def fit(kind: Kind, examples: Examples, strengths: Sequence[float], task: Task) -> Iterator[Head]:
    """The head of each strength, in this order.

    Args:
        strengths: Of `STRENGTHS`' kind; falling strengths are found fastest.
    """
    if kind == "nearest":
        centre = examples.embeddings.mean(axis=0, dtype=np.float64)
        directions = torch.from_numpy(examples.embeddings - centre).double()
        stored = torch.nn.functional.normalize(directions, dim=1).float()
        for temperature in strengths:
            yield {
                "examples": stored,
                "targets": torch.from_numpy(examples.targets).float(),
                "centre": torch.from_numpy(centre).float(),
                "temperature": torch.tensor(temperature),
            }
        return
    features = torch.from_numpy(examples.embeddings).double()
    targets = torch.from_numpy(examples.targets).double()
    centre = features.mean(dim=0)
    spread = (features - centre).square().mean(dim=0)
    scale = (
        (spread + spread.mean()).sqrt().clamp_min(1e-12)
    )  # with few clips a feature may hardly vary by accident: it is not blown up
    start = None
    for penalty in strengths:
        start = logistic.fit((features - centre) / scale, targets, penalty, task, start)
        weight, bias = start[0] / scale[:, None], start[1]
        yield {"weight": weight.t().float().contiguous(), "bias": (bias - centre @ weight).float()}


def logits(head: Head, embeddings: np.ndarray, task: Task) -> np.ndarray:
    """What a head says of embeddings `(clips, width)`, `(clips, labels)` float32."""
    given = torch.from_numpy(embeddings)
    if "weight" in head:
        return torch.nn.functional.linear(given, head["weight"], head["bias"]).numpy()
    (count, width), labels = head["examples"].shape, head["targets"].shape[1]
    module = Neighbours(width, labels, task, count)
    module.load_state_dict(head)
    return module(given).numpy()


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """How strong the regularisation is, and why."""

    strength: float
    how: str
    """In words."""
    held_out: np.ndarray | None = field(default=None, repr=False)
    """Of cross-validation with that strength: what the heads that have not seen a clip say of it, `(clips,
    labels)` logits.
    """


def choose(kind: Kind, train: Examples, validation: Examples | None, task: Task) -> Chosen:
    """The strength of the least loss on validation clips, or else on train clips that are held out,
    recordings whole.

    A label counts where a clip is judged by examples that have it.
    """
    tried = STRENGTHS[kind]
    if validation is not None and len(validation.targets):
        found = [logits(head, validation.embeddings, task) for head in fit(kind, train, tried, task)]
        losses = [
            _loss(
                found_logits,
                validation.targets,
                np.broadcast_to(train.targets.any(axis=0), validation.targets.shape),
                task,
            )
            for found_logits in found
        ]
        return Chosen(
            strength=tried[int(np.argmin(losses))],
            how=f"least loss on {len(validation.targets)} validation clips",
        )
    parts = folds(train.recordings, train.targets, FOLDS)
    known = np.stack([train.targets[parts != part].any(axis=0) for part in parts])
    if not (known & train.targets).any():
        return Chosen(
            strength=DEFAULT[kind], how="the default: no label has a second recording that could be held out"
        )
    held_out = np.zeros((len(tried), *train.targets.shape), np.float32)
    for part in np.unique(parts):
        inside = np.flatnonzero(parts == part)
        for k, head in enumerate(fit(kind, train.part(np.flatnonzero(parts != part)), tried, task)):
            held_out[k, inside] = logits(head, train.embeddings[inside], task)
    best = int(np.argmin([_loss(part_logits, train.targets, known, task) for part_logits in held_out]))
    return Chosen(
        strength=tried[best],
        how=f"least loss in cross-validation, {parts.max() + 1} parts",
        held_out=held_out[best],
    )


def _loss(found: np.ndarray, targets: np.ndarray, known: np.ndarray, task: Task) -> float:
    """`calibration.loss` where labels are known, `(clips, labels)` bool."""
    scores = base.score(found, task)
    if task == "multi-label":
        return calibrate.loss(scores[known], targets[known], task)
    own = (known & targets).any(axis=1)
    return calibrate.loss(scores[own], targets[own], task)
