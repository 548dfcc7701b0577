"""predict -> predictions -> metrics: scores and targets of clips, on disk and in ESPnet's text files.

In and out: a published folder (`scores.npy`, `targets.npy`, `clips.csv`, `labels.csv`), or ESPnet's `score`,
`text` and `token_list`. What the scores are worth is for `metrics` to say.
"""

import csv
import hashlib
import io
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from beatline.core import artefact
from beatline.core.errors import UserError
from beatline.core.labels import LabelSet, espnet_token, from_espnet_tokens

FILES = ("scores.npy", "targets.npy", "clips.csv", "labels.csv")
# the end of ESPnet's token list; its scorer takes the last two tokens for these
ESPNET_SPECIAL = ("<blank>", "<unk>")


@dataclass(frozen=True)
class Predictions:
    """Scores `(clips, labels)` float32 in [0, 1] and targets of the same shape, bool, for clips `ids` and
    `labels`.

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
            raise UserError(
                "bad-scores",
                "predictions",
                f"scores {self.scores.shape} and targets {self.targets.shape} are not {shape}",
                "make them again",
            )
        if self.scores.dtype != np.float32 or self.targets.dtype != bool:
            raise UserError(
                "bad-scores",
                "predictions",
                f"scores are {self.scores.dtype} and targets {self.targets.dtype}, not float32 and bool",
                "make them again",
            )
        if len(set(self.ids)) < len(self.ids):
            twice = Counter(self.ids).most_common(1)[0][0]
            raise UserError("duplicate-id", f"clip {twice}", "it is scored twice", "score every clip once")
        wrong = ~((self.scores >= 0) & (self.scores <= 1))
        if wrong.any():
            clip = self.ids[int(np.argwhere(wrong)[0][0])]
            raise UserError(
                "bad-scores", f"clip {clip}", "a score is not a number between 0 and 1", "score it again"
            )

    @cached_property
    def clips_hash(self) -> str:
        """SHA-256 of the sorted clip ids: equal for equal test sets, whatever the order of their clips."""
        return hashlib.sha256(_encode("\n".join(sorted(self.ids)))).hexdigest()

    def with_labels(self, labels: LabelSet) -> "Predictions":
        """The same predictions with the labels in another order.

        Raises:
            UserError: `label-mismatch` where `labels` are not the same labels.
        """
        different = sorted(set(self.labels.mids) ^ set(labels.mids))
        if different:
            raise UserError(
                "label-mismatch",
                "predictions",
                f"{len(different)} labels are in one label set only, the first is {different[0]!r}",
                "compare models of the same labels",
            )
        columns = [self.labels.index_of_mid[mid] for mid in labels.mids]
        return Predictions(self.ids, self.scores[:, columns], self.targets[:, columns], labels)

    def save(self, folder: Path, about: dict[str, Any]) -> None:
        """Publishes the folder.

        Raises:
            UserError: `disk-full` or `not-writable`.
        """
        out = io.StringIO()
        # unquoted, a carriage return in an id would be read as a line's end
        writer = csv.writer(out, lineterminator="\n", quoting=csv.QUOTE_ALL)
        writer.writerow(["id", "labels"])
        writer.writerows(
            [name, ";".join(self.labels.mids[k] for k in np.flatnonzero(row))]
            for name, row in zip(self.ids, self.targets, strict=True)
        )
        with artefact.publish(folder, about) as partial:
            np.save(partial / "scores.npy", self.scores, allow_pickle=False)
            np.save(partial / "targets.npy", self.targets, allow_pickle=False)
            (partial / "clips.csv").write_bytes(_encode(out.getvalue()))
            (partial / "labels.csv").write_bytes(_encode(self.labels.to_csv()))

    @staticmethod
    def load(folder: Path) -> "Predictions":
        """Reads a published folder.

        Raises:
            UserError: `missing-file` where it holds no predictions, `corrupt-artefact`.
        """
        if not folder.is_dir():
            raise UserError(
                "missing-file",
                f"cannot read {folder}",
                "there is no such folder",
                "give a folder that `beatline predict` made",
            )
        artefact.verify(folder)
        missing = [name for name in FILES if not (folder / name).exists()]
        if missing:
            raise UserError(
                "missing-file",
                f"cannot read {folder}",
                f"it holds no {missing[0]}",
                "give a folder that `beatline predict` made",
            )
        scores, targets = (np.load(folder / name, allow_pickle=False) for name in FILES[:2])
        clips, labels = (
            (folder / name).read_bytes().decode("utf-8", "surrogateescape") for name in FILES[2:]
        )
        ids = tuple(row["id"] for row in csv.DictReader(io.StringIO(clips)))
        return Predictions(ids, scores, targets, LabelSet.from_csv(labels, str(folder / "labels.csv")))

    @staticmethod
    def from_espnet(score_file: Path, text_file: Path, token_list: Path) -> "Predictions":
        """Reads ESPnet's text files: `<id> <score> ...` per clip, `<id> <label> ...` per clip, and a token
        per line.

        Labels are in the token list's order, which is ESPnet's: by falling training frequency. A clip with no
        label, or with the label `<blank>`, has none.

        Args:
            text_file: The reference labels (the data folder's `text`, not the file that inference wrote).

        Raises:
            UserError: `missing-file`, `empty-file`, `bad-scores`, `unknown-label`, `duplicate-id`, naming
                file and line; `bad-table` for a token list.
        """
        tokens = [token for _, token, _ in _lines(token_list, "token")]
        labels = from_espnet_tokens(tokens)
        outputs = {token: i for i, token in enumerate(token for token in tokens if not _is_special(token))}
        truth: dict[str, np.ndarray] = {}
        for line, name, names in _lines(text_file, "clip"):
            unknown = [token for token in names if token not in outputs and not _is_special(token)]
            if unknown:
                raise UserError(
                    "unknown-label",
                    line,
                    f"label {unknown[0]!r} is not in {token_list}",
                    "give the token list that belongs to it",
                )
            truth[name] = np.zeros(len(labels), bool)
            truth[name][[outputs[token] for token in names if token in outputs]] = True
        scored = {
            name: _scores_of(line, numbers, len(labels)) for line, name, numbers in _lines(score_file, "clip")
        }
        different = sorted(scored.keys() ^ truth.keys())
        if different:
            counts = (
                f"{len(scored.keys() - truth.keys())} clips are in the first only and "
                f"{len(truth.keys() - scored.keys())} in the second only, the first is {different[0]}"
            )
            raise UserError(
                "bad-scores", f"{score_file} and {text_file}", counts, "give files of the same clips"
            )
        return Predictions(
            tuple(scored), np.stack(list(scored.values())), np.stack([truth[name] for name in scored]), labels
        )

    def to_espnet(self, folder: Path, label_table: str = "") -> None:
        """Publishes the predictions as ESPnet's scorer reads them: `score`, `text` (labels over 0.5),
        `reference_text` and `token_list`.

        The token list is in the order of `labels`; ESPnet's mean_acc depends on it
        (`ranking.frequency_order`).

        Args:
            label_table: CSV that lies beside them as `labels.csv`.

        Raises:
            UserError: `bad-table` where an id or a label cannot be a word of these files; `disk-full`,
                `not-writable`.
        """
        tokens = [espnet_token(name) for name in self.labels.names]
        for kind, words in (("clip", self.ids), ("label", tokens)):
            wrong = [
                word
                for word, times in Counter(words).items()
                if times > 1 or word.split() != [word] or _is_special(word)
            ]
            if wrong:
                raise UserError(
                    "bad-table",
                    f"{kind} {wrong[0]!r}",
                    "ESPnet's files need a word without white space or <>, and no second of the same name",
                    "rename it",
                )

        with artefact.publish(folder, {"kind": "espnet-scores"}) as partial:

            def write(name: str, rows: Iterator[list[str]]) -> None:
                with (partial / name).open("w", encoding="utf-8", errors="surrogateescape") as file:
                    file.writelines(
                        " ".join([clip, *row]) + "\n" for clip, row in zip(self.ids, rows, strict=True)
                    )

            write("score", ([str(value) for value in row.tolist()] for row in self.scores))
            write("text", ([tokens[k] for k in np.flatnonzero(row)] for row in self.scores > 0.5))
            write("reference_text", ([tokens[k] for k in np.flatnonzero(row)] for row in self.targets))
            (partial / "token_list").write_bytes(_encode("\n".join([*tokens, *ESPNET_SPECIAL]) + "\n"))
            if label_table:
                (partial / "labels.csv").write_text(label_table, encoding="utf-8")


def common(a: Predictions, b: Predictions) -> tuple[Predictions, Predictions]:
    """Both predictions for the clips that both have, clips and labels in the order of `a`.

    Raises:
        UserError: `label-mismatch`; `no-clips` where the predictions share no clip.
    """
    b = b.with_labels(a.labels)
    row_in_b = {name: i for i, name in enumerate(b.ids)}
    rows = [i for i, name in enumerate(a.ids) if name in row_in_b]
    if not rows:
        raise UserError(
            "no-clips",
            "cannot compare these predictions",
            "they have no clip in common",
            "give predictions of the same test set",
        )
    ids = tuple(a.ids[i] for i in rows)
    others = [row_in_b[name] for name in ids]
    return Predictions(ids, a.scores[rows], a.targets[rows], a.labels), Predictions(
        ids, b.scores[others], b.targets[others], a.labels
    )


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")  # an id made of an undecodable file name keeps its bytes


def _is_special(token: str) -> bool:
    return token.startswith("<") and token.endswith(">")


def _scores_of(line: str, numbers: list[str], labels: int) -> np.ndarray:
    """A clip's scores, float32 as ESPnet's models give them, so that nothing is lost."""
    if len(numbers) != labels:
        remedy = (
            "run ESPnet's inference with --output_all_probabilities true, on clips long enough, and "
            "give the token list that belongs to it"
        )
        raise UserError("bad-scores", line, f"{len(numbers)} scores for {labels} labels", remedy)
    try:
        row = np.array([float(number) for number in numbers], np.float32)
    except ValueError as error:
        raise UserError("bad-scores", line, str(error), "write one number for each label") from error
    if not ((row >= 0) & (row <= 1)).all():
        raise UserError("bad-scores", line, "a score is not a number between 0 and 1", "score the clip again")
    return row


def _lines(path: Path, what: str) -> Iterator[tuple[str, str, list[str]]]:
    """Of each line with words: file and line number, the first word, and the other words. No other line has
    that first word.
    """
    seen: set[str] = set()
    try:
        with path.open(encoding="utf-8-sig", errors="surrogateescape") as file:
            for number, text in enumerate(file, 1):
                words = text.split()
                if not words:
                    continue
                line = f"{path} line {number}"
                if words[0] in seen:
                    raise UserError(
                        "duplicate-id", line, f"{what} {words[0]} occurs twice", f"list every {what} once"
                    )
                seen.add(words[0])
                yield line, words[0], words[1:]
    except OSError as error:
        raise UserError(
            "missing-file", f"cannot read {path}", error.strerror or str(error), "check the path and the file"
        ) from error
    if not seen:
        raise UserError("empty-file", f"cannot read {path}", "it has no lines", "check the path and the file")
