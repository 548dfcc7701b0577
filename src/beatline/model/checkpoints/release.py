"""The BEATs release's `.pt` files and OpenBEATs', which are of the same form; the release's tokenizers too.

In: what `read_pickle` gives: `model` (tensors), `cfg` (settings), `label_dict` where fine-tuned. Out: a
`Loaded` model or a `Tokenizer`.
"""

from pathlib import Path
from typing import Any

from beatline.core.labels import Label, LabelSet, audioset
from beatline.model.checkpoints.loaded import Loaded, LoadedTagger, Padding, bad_checkpoint
from beatline.model.checkpoints.pickles import read_pickle
from beatline.model.checkpoints.translate import (
    check_left,
    encoder_config,
    named_tensors,
    take_head,
    translate,
)
from beatline.model.tokenizer import Tokenizer

CODEBOOK = "quantize.embedding.weight"


def read(path: Path, content: Any, architecture: Path | None = None) -> Loaded | None:
    """The model, a `LoadedTagger` where it is fine-tuned; None where `content` is of another family.

    Args:
        path: The file, for messages.
        content: What the file holds.
        architecture: Not used: such a file states its own.

    Raises:
        UserError: `bad-checkpoint`.
    """
    if not isinstance(content, dict) or not {"cfg", "model"} <= set(content):
        return None
    if not isinstance(content["cfg"], dict):
        return None
    tensors = named_tensors(path, content["model"])
    if CODEBOOK in tensors:
        raise bad_checkpoint(
            path, "it is a tokenizer", "give an encoder checkpoint; load_tokenizer reads tokenizers"
        )
    config = encoder_config(path, content["cfg"], tensors)
    state, left = translate(path, tensors, config)
    head = take_head(path, left, config.encoder_embed_dim)
    ignored = check_left(path, left)
    if not head:
        return Loaded(
            source=path, family="BEATs release, pre-trained", config=config, state=state, ignored=ignored
        )
    return LoadedTagger(
        source=path,
        family="BEATs release, fine-tuned",
        config=config,
        state=state | head,
        ignored=ignored,
        labels=_labels(path, content.get("label_dict"), len(head["head.bias"])),
    )


def _labels(path: Path, label_dict: Any, outputs: int) -> LabelSet:
    """The labels in the file's own order, named by AudioSet's table."""
    try:
        mids = [str(label_dict[i]) for i in range(outputs)]
    except (KeyError, TypeError, IndexError) as error:
        raise bad_checkpoint(path, f"its label_dict does not name all {outputs} outputs") from error
    known = audioset()
    return LabelSet(
        tuple(
            known.labels[known.index_of_mid[mid]] if mid in known.index_of_mid else Label(mid, mid)
            for mid in mids
        )
    )


def load_tokenizer(path: Path | str, padding: Padding = "exact") -> Tokenizer:
    """Reads a tokenizer checkpoint of the BEATs release.

    Raises:
        UserError: `missing-file`, `empty-file`, `bad-checkpoint`.
    """
    path = Path(path)
    content = read_pickle(path)
    if not isinstance(content, dict) or CODEBOOK not in content.get("model", {}):
        raise bad_checkpoint(path, "it is not a tokenizer of the BEATs release")
    tensors = named_tensors(path, content["model"])
    config = encoder_config(path, content["cfg"], tensors)
    state, left = translate(path, tensors, config)
    state["codebook.weight"] = left.pop(CODEBOOK)
    for name in [name for name in left if name.startswith("quantize_layer.")]:
        state[name] = left.pop(name)
    check_left(path, left)
    codes, width = state["codebook.weight"].shape
    tokenizer = Tokenizer(config, codes, width, padding)
    tokenizer.load_state_dict(state)
    return tokenizer.eval()
