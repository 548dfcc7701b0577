"""Tensors under the release's names -> ours, strict both ways; for the release, OpenBEATs and ESPnet.

In: what a pickle held, and the architecture it states. Out: our state, the head, what was left out on
purpose. Every tensor of a file is used or matches `IGNORED`; every parameter is filled.
"""

import dataclasses
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from beatline.config import EncoderConfig
from beatline.core.errors import UserError
from beatline.model.checkpoints.layout import config_from_shapes, correspondence
from beatline.model.checkpoints.loaded import bad_checkpoint
from beatline.model.tagger import Tagger

IGNORED = re.compile(
    r"patch_embedding_pad\..*|raw2fbank_pad\..*"  # OpenBEATs: frozen helpers that count padding
    r"|mask_emb|predictor_dropout\..*"  # pre-training only
    # tokenizer: training statistics
    r"|quantize\.cluster_size|quantize\.embedding\.(cluster_size|embed_avg|initted)"
)
HEADS = ("predictor", "decoder.linear_out", "classifier", "head", "output_layer", "decoder.output_layer")
UNSAID = {
    "deep_norm": False,
    "relative_position_embedding": False,
    "gru_rel_pos": False,
    "max_distance": 1280,
    "encoder_layerdrop": 0.0,
}
"""What the release's code takes where a checkpoint's configuration says nothing."""


def named_tensors(path: Path, value: Any) -> dict[str, Tensor]:
    """The table of tensors that a file holds, all of them finite.

    Raises:
        UserError: `bad-checkpoint`.
    """
    if (
        not isinstance(value, dict)
        or not value
        or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in value.items())
    ):
        raise bad_checkpoint(path, "it holds no table of named tensors")
    for name, tensor in value.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise bad_checkpoint(
                path,
                f"tensor {name} has values that are not finite",
                "download it again and compare its SHA-256",
            )
    return value


def encoder_config(
    path: Path, stated: dict[str, Any] | None, tensors: dict[str, Tensor], partial: bool = False
) -> EncoderConfig:
    """The architecture that a checkpoint states, checked against its tensors.

    Args:
        stated: Settings by the release's names; None gives the architecture that the shapes show.
        tensors: The encoder's, under the release's names.
        partial: Whether `stated` holds changes to what the shapes show.

    Raises:
        UserError: `bad-checkpoint`.
    """
    try:
        shown = config_from_shapes(tensors)
    except (KeyError, ValueError) as error:
        raise bad_checkpoint(path, f"it is not a BEATs encoder ({error} is missing)") from error
    if stated is None:
        return shown
    known = {f.name for f in dataclasses.fields(EncoderConfig)}
    if stated.get("activation_fn", "gelu") != "gelu":
        raise bad_checkpoint(path, f"activation {stated['activation_fn']!r} is not supported")
    figures = {name: value for name, value in stated.items() if name in known and value is not None}
    if not partial and not {"embed_dim", "encoder_layers"} <= figures.keys():
        raise bad_checkpoint(path, "its configuration states no embed_dim and encoder_layers")
    try:
        config = dataclasses.replace(shown, **figures) if partial else EncoderConfig(**(UNSAID | figures))
    except (TypeError, UserError) as error:
        raise bad_checkpoint(path, f"its configuration is not usable ({error})") from error
    if config.encoder_layers != shown.encoder_layers:
        raise bad_checkpoint(
            path,
            f"its configuration says {config.encoder_layers} layers, its tensors are of "
            f"{shown.encoder_layers}",
        )
    return config


def translate(
    path: Path, tensors: dict[str, Tensor], config: EncoderConfig
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The encoder's tensors under our names, float32; and the file's tensors that are none of them.

    Raises:
        UserError: `bad-checkpoint` for a tensor that is missing or of another shape than `config` says.
    """
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in Tagger(config, 1).state_dict().items()}
    state: dict[str, Tensor] = {}
    left = dict(tensors)
    for pair in correspondence(config):
        names = [name for name in pair.theirs if name in left] if pair.kind == "shared" else list(pair.theirs)
        missing = [name for name in names if name not in left] or ([] if names else [pair.theirs[0]])
        if missing:
            raise bad_checkpoint(path, f"tensor {missing[0]} is missing")
        parts = [left.pop(name).float() for name in names]
        if pair.kind == "shared" and not all(torch.equal(parts[0], part) for part in parts[1:]):
            raise bad_checkpoint(
                path,
                f"{names[0]} and its copies in other layers differ",
                "beatline has a single position bias for all layers, as in the release",
            )
        if pair.kind == "stacked" and len({part.shape for part in parts}) > 1:
            raise bad_checkpoint(path, f"{names[0]} and its neighbours differ in shape")
        tensor = pair.to_ours(parts)
        if tensor.shape != shapes[pair.ours]:
            raise bad_checkpoint(
                path,
                f"{names[0]} gives shape {tuple(tensor.shape)} where the configuration needs "
                f"{tuple(shapes[pair.ours])}",
                "give the configuration that belongs to it",
            )
        state[pair.ours] = tensor.contiguous()
    return state, left


def take_head(path: Path, left: dict[str, Tensor], width: int) -> dict[str, Tensor]:
    """Moves the linear head out of `left`: `head.weight` and `head.bias`, or nothing where there is none.

    Raises:
        UserError: `bad-checkpoint` for several heads, or a head that does not take `width` features.
    """
    found = [head for head in HEADS if f"{head}.weight" in left]
    if not found:
        return {}
    if len(found) > 1 or f"{found[0]}.bias" not in left:
        raise bad_checkpoint(path, f"its head is not a single linear layer ({', '.join(found)})")
    weight = left.pop(f"{found[0]}.weight").float()
    bias = left.pop(f"{found[0]}.bias").float()
    if weight.ndim != 2 or weight.shape[1] != width or bias.shape != weight.shape[:1]:
        raise bad_checkpoint(
            path, f"its head has shape {tuple(weight.shape)} where the encoder gives {width}"
        )
    return {"head.weight": weight, "head.bias": bias}


def check_left(path: Path, left: dict[str, Tensor]) -> tuple[str, ...]:
    """The names of tensors that are left out on purpose.

    Raises:
        UserError: `bad-checkpoint` for a name that `IGNORED` does not match.
    """
    unknown = [name for name in left if not IGNORED.fullmatch(name)]
    if unknown:
        raise bad_checkpoint(
            path,
            f"{len(unknown)} tensors do not belong to the model, the first is {unknown[0]}",
            "tell us which model this is",
        )
    return tuple(left)
