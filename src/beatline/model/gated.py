"""Attention with a gated bias and its gradients, in fewer operations than PyTorch's autograd makes.

In: queries, keys and values of all heads, the bias of each distance and a gate for each query. Out: attended
values. For training on a CPU: PyTorch has no fused attention whose mask has a gradient. Last bits differ from
PyTorch's own.
"""

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class GatedAttention(torch.autograd.Function):
    """softmax(query key^T / sqrt(width of a head) + gate bias) value; `(batch, tokens, heads, width)`."""

    @staticmethod
    def forward(ctx, qkv: Tensor, bias: Tensor, gate: Tensor, is_padding: Tensor | None) -> Tensor:
        """The attended values.

        Args:
            qkv: `(batch, tokens, 3, heads, width)`.
            bias: `(heads, tokens, tokens)` in the same type.
            gate: `(batch, heads, tokens, 1)` in the same type.
            is_padding: `(batch, tokens)` bool.
        """
        query, key, value = _by_head(qkv.unbind(2))
        mask = gate * bias
        if is_padding is not None:
            mask.masked_fill_(is_padding[:, None, None, :], -torch.inf)
        scale = qkv.shape[-1] ** -0.5
        weights = torch.baddbmm(mask.flatten(0, 1), query, key.mT, alpha=scale).softmax(-1)
        ctx.save_for_backward(query, key, value, weights, bias, gate)
        ctx.scale = scale
        return torch.bmm(weights, value).unflatten(0, gate.shape[:2]).transpose(1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        query, key, value, weights, bias, gate = ctx.saved_tensors
        (of_output,) = _by_head([gradient])
        of_weights = torch.bmm(of_output, value.mT)
        of_logits = torch._softmax_backward_data(of_weights, weights, -1, weights.dtype)
        of_qkv = gradient.new_empty(*gradient.shape[:2], 3, *gradient.shape[2:])
        none = query.new_zeros(())
        of_parts = (
            torch.baddbmm(none, of_logits, key, beta=0, alpha=ctx.scale),
            torch.baddbmm(none, of_logits.mT, query, beta=0, alpha=ctx.scale),
            torch.bmm(weights.mT, of_output),
        )
        for part, of_part in zip(of_qkv.unbind(2), of_parts, strict=True):
            part.copy_(of_part.unflatten(0, gate.shape[:2]).transpose(1, 2))
        of_mask = of_logits.unflatten(0, gate.shape[:2])
        return of_qkv, (of_mask * gate).sum(0), (of_mask * bias).sum(-1, keepdim=True), None


def _by_head(parts: "list[Tensor] | tuple[Tensor, ...]") -> list[Tensor]:
    """Each `(batch, tokens, heads, width)` as a dense `(batch * heads, tokens, width)`."""
    return [part.transpose(1, 2).reshape(-1, part.shape[1], part.shape[3]).contiguous() for part in parts]
