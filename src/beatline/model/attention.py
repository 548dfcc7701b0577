"""Self-attention of BEATs: a relative position bias shared by all layers, gated in each layer by the query.

In and out: tokens `(batch, tokens, width)`. The gated bias and the padding become the additive mask of
PyTorch's fused attention.
Source: BEATs (arXiv 2212.09058) section 3 and the released checkpoints; T5's buckets (arXiv 1910.10683),
WavLM's gate (arXiv 2110.13900).
"""

import itertools
import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from beatline.config import EncoderConfig
from beatline.model.cpu import on_cpu_in_float32, product, product_into
from beatline.model.linear import Linear, linear

KEPT_WEIGHTS = (
    2**21
    # attention weights of a layer and batch, 8 MB: so many fit a CPU's cache together, and are not worth
    # making again
)


def relative_buckets(buckets: int, max_distance: int) -> Tensor:
    """The bucket of every distance key - query from -max_distance to max_distance, `(2 max_distance + 1,)`
    int64; beyond, the last one goes on.

    Half the buckets for each sign; below a quarter each distance has its own, above they grow with the
    logarithm up to `max_distance`.
    """
    distance = torch.arange(-max_distance, max_distance + 1)
    per_sign, single = buckets // 2, buckets // 4
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
        place = torch.arange(tokens, device=self.weight.device)
        distance = (place[None, :] - place[:, None]).clamp(-self.max_distance, self.max_distance)
        if self.buckets.device != self.weight.device:
            self.buckets = self.buckets.to(self.weight.device)
        return super().forward(self.buckets).T[:, distance + self.max_distance]


class Recomputed(torch.autograd.Function):
    """Attention on a CPU, a head of a clip at a time, so that its weights stay in the cache; the backward
    pass makes them again.
    """

    @staticmethod
    def weights(
        at: tuple[int, int],
        query: Tensor,
        key: Tensor,
        gate: Tensor | None,
        bias: Tensor | None,
        is_padding: Tensor | None,
    ) -> Tensor:
        """The attention weights of one clip's head, `(tokens, tokens)`."""
        clip, head = at
        logits = product(query[at] * query.shape[-1] ** -0.5, key[at])
        if gate is not None and bias is not None:
            logits.addcmul_(gate[at], bias[head])
        elif bias is not None:
            logits.add_(bias[head])
        if is_padding is not None:
            logits.masked_fill_(is_padding[clip], -math.inf)
        return torch.softmax(logits, -1)

    @staticmethod
    def dropped(packed: Tensor, at: tuple[int, int], tokens: int) -> Tensor:
        """Which weights of one clip's head are dropped, `(tokens, tokens)` bool, from eight to a byte."""
        return torch.from_numpy(np.unpackbits(packed[at].numpy(), axis=-1, count=tokens)).view(torch.bool)

    @staticmethod
    def heads(qkv: Tensor, heads: int) -> Tensor:
        """Queries, keys and values, `(3, batch, heads, tokens, head width)`, as they lie in `(batch, tokens,
        3 width)`.
        """
        return qkv.unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)

    @staticmethod
    def forward(
        ctx,
        qkv: Tensor,
        gate: Tensor | None,
        bias: Tensor | None,
        is_padding: Tensor | None,
        heads: int,
        dropout: float,
    ) -> Tensor:
        query, key, value = Recomputed.heads(qkv, heads)
        clips, _, tokens, _ = query.shape
        dropped = (
            torch.empty(clips, heads, tokens, tokens, dtype=torch.bool).bernoulli_(dropout)
            if dropout
            else None
        )
        packed = (
            None if dropped is None else torch.from_numpy(np.packbits(dropped.numpy(), axis=-1))
        )  # one of the largest things to keep
        attended = qkv.new_empty(clips, tokens, qkv.shape[-1] // 3)
        by_head = attended.unflatten(-1, (heads, -1)).transpose(1, 2)
        for at in itertools.product(range(clips), range(heads)):
            weights = Recomputed.weights(at, query, key, gate, bias, is_padding)
            if dropped is not None:
                weights.masked_fill_(dropped[at], 0.0)
            product_into(by_head[at], weights, value[at].t())
        if dropout:
            attended /= 1 - dropout
        ctx.save_for_backward(qkv, gate, bias, is_padding, packed, attended)
        ctx.heads, ctx.dropout = heads, dropout
        return attended

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        qkv, gate, bias, is_padding, packed, attended = ctx.saved_tensors
        query, key, value = Recomputed.heads(qkv, ctx.heads)
        scale = query.shape[-1] ** -0.5
        to_qkv = torch.empty_like(qkv)
        to_query, to_key, to_value = Recomputed.heads(to_qkv, ctx.heads)
        to_gate = None if gate is None else torch.empty_like(gate)
        to_bias = None if bias is None else torch.zeros_like(bias)
        gradient, attended = (
            tensor.unflatten(-1, (ctx.heads, -1)).transpose(1, 2) for tensor in (gradient, attended)
        )
        through = (gradient * attended).sum(-1, keepdim=True)  # what the softmax takes off each row
        if ctx.dropout:
            gradient = gradient / (1 - ctx.dropout)
        for at in itertools.product(range(query.shape[0]), range(query.shape[1])):
            weights = Recomputed.weights(at, query, key, gate, bias, is_padding)
            to_weights = product(gradient[at], value[at])
            used = weights
            if packed is not None:
                dropped = Recomputed.dropped(packed, at, query.shape[2])
                used = weights.masked_fill(dropped, 0.0)
                to_weights.masked_fill_(dropped, 0.0)
            product_into(to_value[at].t(), gradient[at].t(), used.t())
            to_logits = to_weights.sub_(through[at]).mul_(weights)
            product_into(to_query[at], to_logits, key[at].t())
            product_into(to_key[at].t(), query[at].t(), to_logits.t())
            if to_gate is not None and to_bias is not None:
                to_gate[at] = (to_logits * bias[at[1]]).sum(-1, keepdim=True)
                to_bias[at[1]].addcmul_(to_logits, gate[at])
            elif to_bias is not None:
                to_bias[at[1]].add_(to_logits)
        to_qkv[..., : 2 * qkv.shape[-1] // 3].mul_(scale)
        return to_qkv, to_gate, to_bias, None, None, None


class Attention(nn.Module):
    """Multi-head self-attention with a gated relative position bias."""

    def __init__(self, config: EncoderConfig):
        super().__init__()
        width, self.heads = config.encoder_embed_dim, config.encoder_attention_heads
        self.qkv = Linear(width, 3 * width)
        self.out = Linear(width, width)
        self.dropout = config.attention_dropout
        self.gated = config.relative_position_embedding and config.gru_rel_pos
        if self.gated:
            self.gate = nn.Linear(width // self.heads, 8)
            self.gate_scale = nn.Parameter(torch.ones(self.heads))

    def gate_values(self, tokens: Tensor) -> Tensor:
        """The factor on the bias of each query, `(batch, heads, tokens, 1)`, of tokens `(batch, tokens,
        width)`.
        """
        # eight outputs of a query, summed in two groups of four: two outputs of summed weights; and as a
        # query is linear in its token, so are they
        width, of_query = tokens.shape[-1], (self.heads, -1)
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
        query, key, value = Recomputed.heads(qkv, self.heads)
        gate = self.gate_values(tokens) if bias is not None and self.gated else None
        dropout = self.dropout if self.training else 0.0
        # sizes are asked last: an exported graph leaves them open
        if (
            torch.is_grad_enabled()
            and on_cpu_in_float32(query)
            and query.shape[:3].numel() * query.shape[2] > KEPT_WEIGHTS
        ):
            return self.out(Recomputed.apply(qkv, gate, bias, is_padding, self.heads, dropout))
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
