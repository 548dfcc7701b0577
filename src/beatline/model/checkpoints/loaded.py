"""A model read from disk: `Loaded`, and `LoadedTagger` where it has a head.

In: tensors under our names, their architecture and labels, from a family's module. Out: a `Tagger`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from beatline.config import EncoderConfig
from beatline.core.errors import UserError
from beatline.core.labels import LabelSet
from beatline.model.heads import LINEAR, Task, neighbours
from beatline.model.tagger import Tagger

Padding = Literal["exact", "upstream"]


def bad_checkpoint(
    path: Path,
    cause: str,
    remedy: str = "give a checkpoint of the BEATs release, ESPnet, OpenBEATs or beatline",
) -> UserError:
    """The `bad-checkpoint` error for a file or folder."""
    return UserError("bad-checkpoint", f"cannot load {path}", cause, remedy)


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A model read from disk. `LoadedTagger` is the model with a head; every other model has `labels` None.

    Args:
        source: The file or folder that the model was read from.
        family: The kind of checkpoint, in words.
        config: The encoder's architecture.
        state: Tensors by our names, float32: `encoder.*`, and `head.*` where there is a head.
        padding: The rule of `token_padding` that the model was made for.
        ignored: Names of the file's tensors that were left out on purpose.
        about: What a folder of ours says of its making; empty for other families.
    """

    source: Path
    family: str
    config: EncoderConfig
    state: dict[str, Tensor]
    padding: Padding = "exact"
    ignored: tuple[str, ...] = ()
    about: dict[str, Any] = field(default_factory=dict)
    labels: LabelSet | None = field(default=None, init=False)

    def tagger(self, padding: Padding | None = None) -> Tagger:
        """The model in evaluation mode; `padding` overrides the model's own rule.

        Raises:
            UserError: `bad-checkpoint` where there is no head, or where a folder's tensors are not those of
                its configuration.
        """
        return self.need_head().tagger(padding)

    def need_head(self) -> "LoadedTagger":
        """This model, which has a head.

        Raises:
            UserError: `bad-checkpoint` where it has none.
        """
        raise bad_checkpoint(
            self.source,
            f"a {self.family} checkpoint has no head to score with",
            "fine-tune it first (model.init), or give a fine-tuned checkpoint",
        )

    def with_head(self, head: dict[str, Tensor], labels: LabelSet, task: Task) -> "LoadedTagger":
        """The same encoder with a new head, whose tensors have the names that `Tagger.head` has."""
        encoder = {name: tensor for name, tensor in self.state.items() if not name.startswith("head.")}
        return LoadedTagger(
            source=self.source,
            family=self.family,
            config=self.config,
            state=encoder | {f"head.{name}": tensor for name, tensor in head.items()},
            padding=self.padding,
            ignored=self.ignored,
            about=self.about,
            labels=labels,
            task=task,
        )


@dataclass(frozen=True, kw_only=True)
class LoadedTagger(Loaded):
    """A model with a head.

    Args:
        labels: The labels in the order of the head's outputs.
        task: How logits become scores, see `Tagger`.
        head: Settings of its head, see `heads.make_head`; None is linear, or of the examples in `state`.
    """

    labels: LabelSet = field()
    task: Task = "multi-label"
    head: Mapping[str, Any] | None = None

    def need_head(self) -> "LoadedTagger":
        """This model."""
        return self

    def tagger(self, padding: Padding | None = None) -> Tagger:
        """The model in evaluation mode; `padding` overrides the model's own rule.

        Raises:
            UserError: `bad-checkpoint` where a folder's tensors are not those of its configuration.
        """
        with torch.device("meta"):
            tagger = Tagger(
                self.config, len(self.labels), self.task, padding or self.padding, head=self._head()
            )
        try:
            tagger.load_state_dict(self.state, assign=True)
        except RuntimeError as error:  # a folder of ours, but from a stranger
            raise bad_checkpoint(self.source, "its tensors are not those of its configuration") from error
        return tagger.eval()

    def _head(self) -> Mapping[str, Any]:
        """The settings of the head; where none are given its tensors say whether it stores examples."""
        examples = self.state.get("head.examples", torch.empty(()))
        return self.head or (neighbours(len(examples)) if examples.ndim and len(examples) else LINEAR)

    def ordered(self, labels: LabelSet) -> "LoadedTagger":
        """The same model with its outputs in the order of `labels`.

        Raises:
            UserError: `label-mismatch` where `labels` are not the model's, or the head is not linear and the
                order differs.
        """
        mine = self.labels.index_of_mid
        if tuple(mine) == labels.mids:
            return self
        different = sorted(set(mine) ^ set(labels.mids))
        linear = {"head.weight", "head.bias"} == {name for name in self.state if name.startswith("head.")}
        if different or not linear:
            cause = (
                f"{different[0]} is not a label of both"
                if different
                else "its labels are in another order, and its head is not linear"
            )
            raise UserError(
                "label-mismatch",
                f"cannot use {self.source} for other labels than its own",
                cause,
                "prepare and train with the same label table",
            )
        order = [mine[mid] for mid in labels.mids]
        head = {name: self.state[f"head.{name}"][order] for name in ("weight", "bias")}
        return self.with_head(head, labels, self.task)
