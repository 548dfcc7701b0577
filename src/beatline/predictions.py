"""predict -> predictions -> metrics: scores and targets of a list of clips, on disk and from ESPnet's text files.

In and out: a published folder (`scores.npy`, `targets.npy`, `clips.txt`, `labels.csv`), or ESPnet's `score`, `text` and `token_list`.
"""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from beatline import artefact
from beatline.errors import UserError
from beatline.labels import LabelSet, espnet_token, from_espnet_tokens


@dataclass(frozen=True)
class Predictions:
    """Scores `(clips, labels)` float32 in [0, 1] and targets of the same shape, bool, for clips `ids` and `labels`.

    Raises:
        UserError: `bad-scores`, `duplicate-id`.
    """

    ids: tuple[str, ...]
    scores: np.ndarray
    targets: np.ndarray
    labels: LabelSet

    def __post_init__(self) -> None:
        shape = (len(self.ids), len(self.labels))
        if self.scores.shape != shape or self.targets.shape != shape:
            raise UserError("bad-scores", "predictions", f"scores {self.scores.shape} and targets {self.targets.shape} are not {shape}", "make them again")
        if len(set(self.ids)) < len(self.ids):
            twice = next(name for name in self.ids if self.ids.count(name) > 1)
            raise UserError("duplicate-id", f"clip {twice}", "it is scored twice", "score every clip once")
        wrong = ~((self.scores >= 0) & (self.scores <= 1))
        if wrong.any():
            clip = self.ids[int(np.argwhere(wrong)[0][0])]
            raise UserError("bad-scores", f"clip {clip}", "a score is not a number between 0 and 1", "score it again")

    @cached_property
    def clips_hash(self) -> str:
        """SHA-256 of the sorted clip ids: equal for equal test sets."""
        return hashlib.sha256("\n".join(sorted(self.ids)).encode()).hexdigest()

    def save(self, folder: Path, about: dict[str, Any]) -> None:
        """Publishes the folder."""
        with artefact.publish(folder, about) as partial:
            np.save(partial / "scores.npy", self.scores, allow_pickle=False)
            np.save(partial / "targets.npy", self.targets, allow_pickle=False)
            (partial / "clips.txt").write_text("".join(f"{name}\n" for name in self.ids), encoding="utf-8")
            (partial / "labels.csv").write_text(self.labels.to_csv(), encoding="utf-8")

    @staticmethod
    def load(folder: Path) -> "Predictions":
        """Reads a published folder.

        Raises:
            UserError: `corrupt-artefact`.
        """
        artefact.verify(folder)
        scores, targets = (np.load(folder / f"{name}.npy", allow_pickle=False) for name in ("scores", "targets"))
        ids = tuple((folder / "clips.txt").read_text(encoding="utf-8").splitlines())
        return Predictions(ids, scores, targets, LabelSet.from_csv((folder / "labels.csv").read_text(encoding="utf-8")))

    @staticmethod
    def from_espnet(score_file: Path, text_file: Path, token_list: Path) -> "Predictions":
        """Reads ESPnet's text files: `<id> <score> ...` per clip, `<id> <label> ...` per clip, and one token per line.

        Labels are in the token list's order, which is ESPnet's: by falling training frequency.

        Raises:
            UserError: `missing-file`, `bad-table`, `bad-scores`, `unknown-label`, `duplicate-id`.
        """
        tokens = [line.split()[0] for line in _lines(token_list)]
        labels = from_espnet_tokens(tokens)
        outputs = [token for token in tokens if not (token.startswith("<") and token.endswith(">"))]
        index = {token: i for i, token in enumerate(outputs)}
        truth: dict[str, np.ndarray] = {}
        for number, line in enumerate(_lines(text_file), 1):
            name, *names = line.split()
            row = np.zeros(len(labels), bool)
            for token in names:
                if token not in index:
                    raise UserError("unknown-label", f"{text_file} line {number}", f"label {token!r} is not in {token_list}", "give the token list that belongs to it")
                row[index[token]] = True
            if name in truth:
                raise UserError("duplicate-id", f"{text_file} line {number}", f"clip {name} occurs twice", "list every clip once")
            truth[name] = row
        ids, rows = [], []
        for number, line in enumerate(_lines(score_file), 1):
            name, *numbers = line.split()
            try:
                row = np.array([float(value) for value in numbers], np.float32)
            except ValueError as error:
                raise UserError("bad-scores", f"{score_file} line {number}", str(error), "write one number for each label") from error
            if len(row) != len(labels):
                raise UserError("bad-scores", f"{score_file} line {number}", f"{len(row)} scores for {len(labels)} labels", "give the token list that belongs to it")
            ids.append(name)
            rows.append(row)
        different = sorted(set(ids) ^ set(truth))
        if different:
            raise UserError("bad-scores", f"{score_file} and {text_file}", f"{len(different)} clips are in one only, the first is {different[0]}", "give files of the same clips")
        return Predictions(tuple(ids), np.stack(rows), np.stack([truth[name] for name in ids]), labels)

    def to_espnet(self, folder: Path) -> None:
        """Publishes the predictions as ESPnet's files: `score`, `text` (labels over 0.5), `reference_text` and `token_list`."""
        tokens = [espnet_token(name) for name in self.labels.names]

        def listed(table: np.ndarray) -> str:
            return "".join(" ".join([name, *(tokens[i] for i in np.flatnonzero(row))]) + "\n" for name, row in zip(self.ids, table, strict=True))

        with artefact.publish(folder, {"kind": "espnet-scores"}) as partial:
            (partial / "score").write_text("".join(" ".join([name, *map(repr, row.tolist())]) + "\n" for name, row in zip(self.ids, self.scores, strict=True)))
            (partial / "text").write_text(listed(self.scores > 0.5))
            (partial / "reference_text").write_text(listed(self.targets))
            (partial / "token_list").write_text("\n".join([*tokens, "<unk>"]) + "\n")


def _lines(path: Path) -> list[str]:
    """The lines of a text file that hold something."""
    try:
        lines = [line for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError("missing-file" if isinstance(error, OSError) else "bad-table", f"cannot read {path}", str(error), "check the path and the file") from error
    if not lines:
        raise UserError("empty-file", f"cannot read {path}", "it has no lines", "check the path and the file")
    return lines
