"""Self-attention of BEATs: a relative position bias shared by all layers, gated in each layer by the query.

In and out: tokens `(batch, tokens, width)`. The gated bias and the padding become the additive mask of
PyTorch's fused attention.
Source: BEATs (arXiv 2212.09058) section 3 and the released checkpoints; T5's buckets (arXiv 1910.10683),
WavLM's gate (arXiv 2110.13900).
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from beatline.config import EncoderConfig
from beatline.model.gated import GatedAttention
from beatline.model.linear import Linear, linear


def relative_buckets(buckets: int, max_distance: int) -> Tensor:
    """The bucket of every distance key - query from -max_distance to max_distance, `(2 max_distance + 1,)`
    int64. Beyond, the last bucket goes on.

    Each sign has half the buckets. Below a quarter each distance has its own bucket. Above, buckets grow with
    the logarithm up to `max_distance`.
    """
    distance = torch.arange(-max_distance, max_distance + 1)
    per_sign = buckets // 2
    single = buckets // 4
    far = (
        torch.log(distance.abs().clamp(min=1).float() / single)
        / math.log(max_distance / single)
        * (per_sign - single)
    )
    within = torch.where(
        distance.abs() < single, distance.abs(), (single + far.long()).clamp(max=per_sign - 1)
    )
    return within + per_sign * (distance > 0)


class RelativeBias(nn.Embedding):
    """One learned number for each bucket of distance and head."""

    def __init__(self, config: EncoderConfig):
        super().__init__(config.num_buckets, config.encoder_attention_heads)
        self.max_distance = config.max_distance
        with torch.device("cpu"):
            self.buckets = relative_buckets(config.num_buckets, config.max_distance)

    def forward(self, tokens: int) -> Tensor:  # type: ignore[override]
        """The bias of every query (row) and key (column), `(heads, tokens, tokens)`."""
        positions = torch.arange(tokens, device=self.weight.device)
        distance = (positions[None, :] - positions[:, None]).clamp(-self.max_distance, self.max_distance)
        if self.buckets.device != self.weight.device:
            self.buckets = self.buckets.to(self.weight.device)
        return super().forward(self.buckets).T[:, distance + self.max_distance]


class Attention(nn.Module):
    """Multi-head self-attention with a gated relative position bias."""

    def __init__(self, config: EncoderConfig):
        super().__init__()
        width = config.encoder_embed_dim
        self.heads = config.encoder_attention_heads
        self.qkv = Linear(width, 3 * width)
        self.out = Linear(width, width)
        self.dropout = config.attention_dropout
        self.own_steps = False
        """Whether training takes `GatedAttention`; the last bits differ."""
        self.gated = config.relative_position_embedding and config.gru_rel_pos
        if self.gated:
            self.gate = nn.Linear(width // self.heads, 8)
            self.gate_scale = nn.Parameter(torch.ones(self.heads))

    def gate_values(self, tokens: Tensor) -> Tensor:
        """The factor on the bias of each query, `(batch, heads, tokens, 1)`, of tokens `(batch, tokens,
        width)`.
        """
        # Eight outputs of a query, summed in two groups of four, are two outputs of summed weights. As a
        # query is linear in its token, so are these two.
        width = tokens.shape[-1]
        of_query = (self.heads, -1)
        weight, bias = (
            self.gate.weight.unflatten(0, (2, 4)).sum(1),
            self.gate.bias.unflatten(0, (2, 4)).sum(1),
        )
        of_tokens = weight @ self.qkv.weight[:width].unflatten(0, of_query)
        constant = F.linear(self.qkv.bias[:width].unflatten(0, of_query), weight, bias)
        a, b = (
            linear(tokens, of_tokens.flatten(0, 1), constant.flatten())
            .sigmoid()
            .unflatten(-1, (self.heads, 2))
            .unbind(-1)
        )
        return (a * (b * self.gate_scale - 1.0) + 2.0).transpose(1, 2)[..., None]

    def forward(self, tokens: Tensor, bias: Tensor | None, is_padding: Tensor | None) -> Tensor:
        """Attended tokens `(batch, tokens, width)`.

        Args:
            bias: `(heads, tokens, tokens)` from `RelativeBias`, or None.
            is_padding: `(batch, tokens)` bool, or None when nothing is padded.
        """
        qkv = self.qkv(tokens)
        if self.own_steps and self.training and not self.dropout and bias is not None and self.gated:
            parts = qkv.unflatten(-1, (3, self.heads, -1))
            of_query = self.gate_values(tokens)
            own: Tensor = GatedAttention.apply(parts, bias.to(qkv.dtype), of_query.to(qkv.dtype), is_padding)
            return self.out(own.flatten(2))
        query, key, value = qkv.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        gate = self.gate_values(tokens) if bias is not None and self.gated else None
        dropout = self.dropout if self.training else 0.0
        mask = None
        if bias is not None:
            bias = bias.to(query.dtype)[None]
            mask = (
                bias if gate is None else gate.to(query.dtype) * bias
            )  # the largest tensor of a layer: never made in a wider type than it is read in
        if is_padding is not None:
            keep_out = torch.zeros_like(is_padding, dtype=query.dtype).masked_fill(is_padding, -math.inf)[
                :, None, None, :
            ]
            mask = keep_out if mask is None else mask + keep_out
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout)
        return self.out(attended.transpose(1, 2).reshape(tokens.shape))
