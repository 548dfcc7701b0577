"""Names: how the BEATs release's tensors and ours correspond, in both directions.

In: an architecture. Out: pairs of names. The table `correspondence` serves import and export. It covers
every parameter of the encoder, so a conversion is strict by construction. ESPnet uses the release's names
behind a prefix.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from beatline.config import EncoderConfig


@dataclass(frozen=True)
class Pair:
    """A tensor of ours and the release's tensors, which are several for two kinds.

    Args:
        kind: `stacked`: ours is theirs in a row (q, k, v). `shared`: each of theirs is a copy of
            ours (the position bias). `heads`: ours is `(heads,)`, theirs `(1, heads, 1, 1)`.
    """

    ours: str
    theirs: tuple[str, ...]
    kind: Literal["same", "stacked", "shared", "heads"] = "same"

    def to_ours(self, tensors: list[Tensor]) -> Tensor:
        """Our tensor of the release's, which have the order of `theirs`."""
        if self.kind == "stacked":
            return torch.cat(tensors)
        return tensors[0].flatten() if self.kind == "heads" else tensors[0]

    def to_theirs(self, tensor: Tensor) -> list[Tensor]:
        """The release's tensors of ours, in the order of `theirs`."""
        if self.kind == "stacked":
            return list(tensor.chunk(len(self.theirs)))
        return [tensor.view(1, -1, 1, 1)] if self.kind == "heads" else [tensor] * len(self.theirs)


def correspondence(config: EncoderConfig) -> Iterator[Pair]:
    """Every parameter of our encoder, by its name in a tagger (`encoder.*`), beside the release's names."""

    def linear(ours: str, theirs: str, bias: bool = True) -> Iterator[Pair]:
        for part in ("weight", "bias")[: 1 + bias]:
            yield Pair(f"encoder.{ours}.{part}", (f"{theirs}.{part}",))

    yield from linear("patches", "patch_embedding", config.conv_bias)
    yield from linear("patch_norm", "layer_norm")
    if config.embed_dim != config.encoder_embed_dim:
        yield from linear("project", "post_extract_proj")
    for part in ("bias", "weight_g", "weight_v"):
        yield Pair(f"encoder.conv_position.{part}", (f"encoder.pos_conv.0.{part}",))
    yield from linear("norm", "encoder.layer_norm")
    layers = range(config.encoder_layers)
    if config.relative_position_embedding:
        yield Pair(
            "encoder.bias.weight",
            tuple(f"encoder.layers.{i}.self_attn.relative_attention_bias.weight" for i in layers),
            "shared",
        )
    for i in layers:
        ours = f"layers.{i}"
        theirs = f"encoder.layers.{i}"
        for part in ("weight", "bias"):
            yield Pair(
                f"encoder.{ours}.attention.qkv.{part}",
                tuple(f"{theirs}.self_attn.{name}_proj.{part}" for name in "qkv"),
                "stacked",
            )
        yield from linear(f"{ours}.attention.out", f"{theirs}.self_attn.out_proj")
        if config.relative_position_embedding and config.gru_rel_pos:
            yield from linear(f"{ours}.attention.gate", f"{theirs}.self_attn.grep_linear")
            yield Pair(f"encoder.{ours}.attention.gate_scale", (f"{theirs}.self_attn.grep_a",), "heads")
        yield from linear(f"{ours}.attention_norm", f"{theirs}.self_attn_layer_norm")
        yield from linear(f"{ours}.up", f"{theirs}.fc1")
        yield from linear(f"{ours}.down", f"{theirs}.fc2")
        yield from linear(f"{ours}.norm", f"{theirs}.final_layer_norm")


def to_release(state: dict[str, Tensor], config: EncoderConfig, head: str) -> dict[str, Tensor]:
    """A tagger's tensors under the release's names; its linear head as `<head>.weight` and `<head>.bias`."""
    released = {
        name: part
        for pair in correspondence(config)
        for name, part in zip(pair.theirs, pair.to_theirs(state[pair.ours]), strict=True)
    }
    return released | {f"{head}.{part}": state[f"head.{part}"] for part in ("weight", "bias")}


def config_from_shapes(released: dict[str, Tensor]) -> EncoderConfig:
    """The architecture that tensors under the release's names have.

    What shapes do not show is as in the BEATs release (post-norm, DeepNorm).

    Raises:
        KeyError: A tensor that every BEATs encoder has is missing.
    """
    patch = released["patch_embedding.weight"]
    position = released["encoder.pos_conv.0.weight_v"]
    width = position.shape[0]
    layers = 1 + max(int(name.split(".")[2]) for name in released if name.startswith("encoder.layers."))
    table = released.get("encoder.layers.0.self_attn.relative_attention_bias.weight")
    gated = "encoder.layers.0.self_attn.grep_linear.weight" in released
    default = EncoderConfig()
    return EncoderConfig(
        input_patch_size=patch.shape[-1],
        embed_dim=patch.shape[0],
        conv_bias="patch_embedding.bias" in released,
        encoder_layers=layers,
        encoder_embed_dim=width,
        encoder_ffn_embed_dim=released["encoder.layers.0.fc1.weight"].shape[0],
        encoder_attention_heads=table.shape[1] if table is not None else default.encoder_attention_heads,
        conv_pos=position.shape[2],
        conv_pos_groups=width // position.shape[1],
        relative_position_embedding=table is not None,
        num_buckets=table.shape[0] if table is not None else default.num_buckets,
        gru_rel_pos=gated,
        max_distance=max(default.max_distance, table.shape[0] if table is not None else 0),
    )
