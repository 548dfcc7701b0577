"""Self-attention of BEATs: a relative position bias shared by all layers, gated in each layer by the query.

In and out: tokens `(batch, tokens, width)`. The gated bias and the padding become the additive mask of PyTorch's fused attention.
Source: BEATs (arXiv 2212.09058) section 3 and the released checkpoints; T5's buckets (arXiv 1910.10683), WavLM's gate (arXiv 2110.13900).
"""

import math
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from beatline.config import EncoderConfig


@lru_cache(maxsize=8)
def relative_buckets(tokens: int, buckets: int, max_distance: int, device: torch.device) -> Tensor:
    """The bucket of every distance key - query from -(tokens - 1) to tokens - 1, `(2 tokens - 1,)` int64.

    Half the buckets for each sign; below a quarter each distance has its own, above they grow with the logarithm up to `max_distance`.
    """
    distance = torch.arange(-(tokens - 1), tokens, device=device)
    per_sign, single = buckets // 2, buckets // 4
    far = torch.log(distance.abs().clamp(min=1).float() / single) / math.log(max_distance / single) * (per_sign - single)
    within = torch.where(distance.abs() < single, distance.abs(), (single + far.long()).clamp(max=per_sign - 1))
    return within + per_sign * (distance > 0)


@lru_cache(maxsize=8)
def _toeplitz(tokens: int, device: torch.device) -> Tensor:
    """Where distance key - query stands in a row of all distances, `(tokens, tokens)` int64."""
    position = torch.arange(tokens, device=device)
    return position[None, :] - position[:, None] + tokens - 1


class RelativeBias(nn.Embedding):
    """One learned number for each bucket of distance and head."""

    def __init__(self, config: EncoderConfig):
        super().__init__(config.num_buckets, config.encoder_attention_heads)
        self.max_distance = config.max_distance

    def forward(self, tokens: int) -> Tensor:  # type: ignore[override]
        """The bias of every query (row) and key (column), `(heads, tokens, tokens)`."""
        device = self.weight.device
        row = super().forward(relative_buckets(tokens, self.num_embeddings, self.max_distance, device)).T
        return row[:, _toeplitz(tokens, device)]


class Attention(nn.Module):
    """Multi-head self-attention with a gated relative position bias."""

    def __init__(self, config: EncoderConfig):
        super().__init__()
        width, self.heads = config.encoder_embed_dim, config.encoder_attention_heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.dropout = config.attention_dropout
        self.gated = config.relative_position_embedding and config.gru_rel_pos
        if self.gated:
            self.gate = nn.Linear(width // self.heads, 8)
            self.gate_scale = nn.Parameter(torch.ones(self.heads))

    def gate_values(self, query: Tensor) -> Tensor:
        """The factor on the bias of each query, `(batch, heads, tokens, 1)`, from unscaled queries `(batch, heads, tokens, head width)`."""
        a, b = self.gate(query).unflatten(-1, (2, 4)).sum(-1).sigmoid().chunk(2, dim=-1)
        return a * (b * self.gate_scale[:, None, None] - 1.0) + 2.0

    def forward(self, tokens: Tensor, bias: Tensor | None, is_padding: Tensor | None) -> Tensor:
        """Attended tokens `(batch, tokens, width)`.

        Args:
            bias: `(heads, tokens, tokens)` from `RelativeBias`, or None.
            is_padding: `(batch, tokens)` bool, or None when nothing is padded.
        """
        query, key, value = self.qkv(tokens).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mask = None
        if bias is not None:
            mask = self.gate_values(query) * bias if self.gated else bias[None]
            mask = mask.to(query.dtype)
        if is_padding is not None:
            keep_out = torch.zeros_like(is_padding, dtype=query.dtype).masked_fill(is_padding, -math.inf)[:, None, None, :]
            mask = keep_out if mask is None else mask + keep_out
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=self.dropout if self.training else 0.0)
        return self.out(attended.transpose(1, 2).flatten(2))
