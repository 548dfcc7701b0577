"""A model's calibration: what turns its scores into probabilities and decisions.

In: a folder that `evaluate.calibrate` learned and published. Out: a `Calibration`: a temperature, and a
threshold for each label. NumPy only.
"""

import json
import math
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from numbers import Real
from pathlib import Path
from typing import Any, Literal

import numpy as np

from beatline.core import artefact
from beatline.core.errors import UserError, expect
from beatline.core.labels import Label, LabelSet

FILE = "calibration.json"
DEFAULT = 0.5  # threshold of a label without positives

State = Literal["learned", "default", "unreached"]
"""Of a threshold: learned; the default, for want of positives; or above every score, because none reached the
precision wanted.
"""


@dataclass(frozen=True)
class Calibration:
    """How a model's scores become probabilities, and the score from which each label counts as heard.

    Raises:
        UserError: `bad-usage` for values that do not fit the labels, or a temperature that is not above 0.
    """

    labels: LabelSet = field(repr=False)
    thresholds: np.ndarray = field(repr=False)
    """`(labels,)` float32: a label counts from this score on, the temperature applied."""
    temperature: float
    """What logits are divided by before they become scores, above 0."""
    states: tuple[State, ...] = field(repr=False)
    """How each threshold came about."""
    positives: np.ndarray = field(repr=False)
    """Clips that had each label, `(labels,)` int64."""
    about: dict[str, Any] = field(default_factory=dict, repr=False)
    """JSON facts: goal, clips and their hash, the model's hash, what it gains."""

    def __post_init__(self) -> None:
        expect(self.labels, LabelSet, "labels of a calibration", "give those of the tagger")
        for name in ("thresholds", "positives"):
            values = getattr(self, name)
            expect(
                values, np.ndarray, f"{name} of a calibration", "give an array with a number for each label"
            )
            if values.shape != (len(self.labels),) or values.dtype.kind not in "fiu":
                raise UserError(
                    "bad-usage",
                    f"{name} of a calibration",
                    f"{values.dtype} of shape {values.shape} for {len(self.labels)} labels",
                    "give an array with a number for each label",
                )
        if len(self.states) != len(self.labels):
            cause = f"{len(self.states)} for {len(self.labels)} labels"
            raise UserError("bad-usage", "states of a calibration", cause, "give a state for each label")
        expect(self.temperature, Real, "temperature of a calibration", "give a number above 0")
        if not 0 < self.temperature < math.inf:
            cause = f"{self.temperature} is not above 0"
            raise UserError("bad-usage", "temperature of a calibration", cause, "give a number above 0")

    def save(self, folder: Path, page: Callable[[Path], object] = lambda partial: None) -> None:
        """Publishes the folder; `page` may add to it.

        Raises:
            UserError: `disk-full` or `not-writable`.
        """
        columns = (self.labels.labels, self.thresholds.tolist(), self.positives.tolist(), self.states)
        rows = [
            {"mid": label.mid, "name": label.name, "threshold": threshold, "positives": count, "state": state}
            for label, threshold, count, state in zip(*columns, strict=True)
        ]
        with artefact.publish(folder, {"kind": "calibration", "labels_hash": self.labels.hash}) as partial:
            (partial / FILE).write_text(
                json.dumps({"temperature": self.temperature, "labels": rows, "about": self.about}, indent=1)
                + "\n"
            )
            page(partial)

    @staticmethod
    def load(source: Path | str, labels: LabelSet | None = None) -> "Calibration":
        """The calibration in a folder, or the calibration of a model.

        Args:
            source: A calibration folder. Or a model folder, run folder, checkpoint file or export; its
                calibration is read from its `calibration_folder`.
            labels: The model's labels, which the calibration must have; None checks nothing.

        Raises:
            UserError: `missing-file`, `corrupt-artefact`; `label-mismatch` where the calibration is for other
                labels; `missing-stage` where it is for the model that `source` was before.
        """
        expect(source, (str, Path), "a calibration's source", "give a path")
        source = Path(source)
        own = _is_calibration(source)
        folder = source if own else calibration_folder(source)
        if not _is_calibration(folder):
            raise UserError(
                "missing-file",
                f"no calibration in {folder}",
                "nothing was learned there" if not folder.exists() else "it is no folder of a calibration",
                "run `beatline calibrate` for this model first",
            )
        artefact.verify(folder)
        content = json.loads((folder / FILE).read_text())
        rows = content["labels"]
        about = content["about"]
        found = LabelSet(tuple(Label(row["mid"], row["name"]) for row in rows))
        if labels is not None and labels.hash != found.hash:
            raise UserError(
                "label-mismatch",
                f"cannot use {folder}",
                "it is for a model of other labels",
                "run `beatline calibrate` for this model",
            )
        if not own and about.get("model_hash") != model_hash(source):
            raise UserError(
                "missing-stage",
                f"cannot use {folder}",
                f"it was made for another model than what {source} is now",
                "run `beatline calibrate` again",
            )
        return Calibration(
            labels=found,
            thresholds=np.array([row["threshold"] for row in rows], np.float32),
            temperature=content["temperature"],
            states=tuple(row["state"] for row in rows),
            positives=np.array([row["positives"] for row in rows], np.int64),
            about=about,
        )


def _is_calibration(folder: Path) -> bool:
    return (artefact.read_contents(folder) or {}).get("kind") == "calibration"


def _model(source: Path) -> Path:
    return source / "model" if (source / "model").is_dir() else source


def calibration_folder(source: Path) -> Path:
    """The folder of a model's calibration, whether it exists or not.

    A run has `RUN/calibration`, a model packed for a hub `MODEL/calibration`. Any other folder or file has
    `MODEL.calibration` beside it.
    """
    model = _model(source)
    if _is_calibration(model / "calibration"):
        return model / "calibration"
    if model.name in ("", ".."):  # a relative path without a name of its own
        model = Path(os.path.abspath(model))
    return model.with_name("calibration" if model.name == "model" else f"{model.name}.calibration")


def model_hash(source: Path) -> str:
    """SHA-256 that changes with what a model folder, export, checkpoint file or folder of checkpoint files
    holds.
    """
    model = _model(source)
    manifest = artefact.contents_file(model)
    if model.is_file() or manifest.exists():
        return artefact.sha256_file(manifest if manifest.exists() else model)
    return artefact.hash_json(
        sorted((path.name, artefact.sha256_file(path)) for path in model.iterdir() if path.is_file())
    )
