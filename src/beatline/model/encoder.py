"""fbank -> patches -> tokens: the BEATs encoder.

In: fbank `(batch, frames, 128)`, normalised. Out: tokens `(batch, time patches * mel patches, width)`,
time-major. Every size comes from the `EncoderConfig`. Waveforms, padding rules and heads are left to
`model/tagger`; reading checkpoints to `model/checkpoint`.
Source: BEATs (arXiv 2212.09058), DeepNorm (arXiv 2203.00555), wav2vec 2.0's convolutional position (arXiv
2006.11477).
"""

from collections.abc import Collection
from contextlib import nullcontext
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from beatline.config import EncoderConfig
from beatline.model.attention import Attention, RelativeBias
from beatline.model.geometry import MELS
from beatline.model.linear import Linear


class _ScaleGradient(torch.autograd.Function):
    """Identity forward, gradient times `ratio` backward."""

    @staticmethod
    def forward(ctx, tokens: Tensor, ratio: float) -> Tensor:
        ctx.ratio = ratio
        return tokens.view_as(tokens)

    @staticmethod
    def backward(ctx, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0] * ctx.ratio, None


class ConvPosition(nn.Module):
    """Adds GELU of a grouped convolution over the tokens: where a token stands, learned from its neighbours.

    The weight is direction `weight_v` times length `weight_g`, one length per kernel position (weight
    normalisation over the kernel axis).
    """

    def __init__(self, config: EncoderConfig):
        super().__init__()
        width = config.encoder_embed_dim
        self.kernel = config.conv_pos
        self.groups = config.conv_pos_groups
        self.weight_g = nn.Parameter(torch.empty(1, 1, self.kernel))
        self.weight_v = nn.Parameter(torch.empty(width, width // self.groups, self.kernel))
        self.bias = nn.Parameter(torch.empty(width))

    def forward(self, tokens: Tensor) -> Tensor:
        weight = self.weight_v * (self.weight_g / self.weight_v.norm(dim=(0, 1), keepdim=True))
        narrow = weight.shape[1] < 16 and torch.is_autocast_enabled(
            "cpu"
        )  # there PyTorch 2.13's bfloat16 convolution is wrong, on CPUs with AMX
        with torch.autocast("cpu", enabled=False) if narrow else nullcontext():
            position = F.conv1d(
                (tokens.float() if narrow else tokens).transpose(1, 2),
                weight,
                self.bias,
                padding=self.kernel // 2,
                groups=self.groups,
            )
        return tokens + F.gelu(position[:, :, : tokens.shape[1]]).transpose(1, 2)


class Layer(nn.Module):
    """Attention and feed-forward with residuals; post-norm with DeepNorm's scale, or pre-norm."""

    def __init__(self, config: EncoderConfig):
        super().__init__()
        width = config.encoder_embed_dim
        self.attention = Attention(config)
        self.attention_norm = nn.LayerNorm(width)
        self.up = Linear(width, config.encoder_ffn_embed_dim)
        self.down = Linear(config.encoder_ffn_embed_dim, width)
        self.norm = nn.LayerNorm(width)
        self.pre_norm = config.layer_norm_first
        self.alpha = (2 * config.encoder_layers) ** 0.25 if config.deep_norm else 1.0
        self.dropout = nn.Dropout(config.dropout)
        self.activation_dropout = nn.Dropout(config.activation_dropout)

    def feed_forward(self, tokens: Tensor) -> Tensor:
        return self.down(self.activation_dropout(F.gelu(self.up(tokens))))

    def forward(self, tokens: Tensor, bias: Tensor | None, is_padding: Tensor | None) -> Tensor:
        if self.pre_norm:
            tokens = tokens + self.dropout(self.attention(self.attention_norm(tokens), bias, is_padding))
            return tokens + self.dropout(self.feed_forward(self.norm(tokens)))
        tokens = self.attention_norm(
            self.alpha * tokens + self.dropout(self.attention(tokens, bias, is_padding))
        )
        return self.norm(self.alpha * tokens + self.dropout(self.feed_forward(tokens)))


class Encoder(nn.Module):
    """The BEATs encoder; see the module's docstring.

    Args:
        config: The architecture.
        gradient_decay: How `layer_wise_gradient_decay_ratio` below 1 acts on each layer's input: `release`
            scales the gradient there, `espnet-cut` stops it, as ESPnet 202511 does.
    """

    def __init__(self, config: EncoderConfig, gradient_decay: Literal["release", "espnet-cut"] = "release"):
        super().__init__()
        self.config = config
        self.gradient_decay = gradient_decay
        self.recompute = False
        """Whether a backward pass makes each layer's activations again; the bits are the same."""
        width = config.encoder_embed_dim
        patch = config.input_patch_size
        self.patches = nn.Conv2d(1, config.embed_dim, patch, stride=patch, bias=config.conv_bias)
        self.patch_norm = nn.LayerNorm(config.embed_dim)
        self.project = Linear(config.embed_dim, width) if config.embed_dim != width else nn.Identity()
        self.input_dropout = nn.Dropout(config.dropout_input)
        self.conv_position = ConvPosition(config)
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(config.dropout)
        self.bias = RelativeBias(config) if config.relative_position_embedding else None
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.encoder_layers))

    @property
    def mel_patches(self) -> int:
        """Tokens per time step."""
        return MELS // self.config.input_patch_size

    def token_count(self, frames: int) -> int:
        """Tokens of a clip of that many frames; a remainder of frames is dropped."""
        return frames // self.config.input_patch_size * self.mel_patches

    def _decay(self, tokens: Tensor) -> Tensor:
        ratio = self.config.layer_wise_gradient_decay_ratio
        if ratio == 1.0 or not self.training:
            return tokens
        return tokens.detach() if self.gradient_decay == "espnet-cut" else _ScaleGradient.apply(tokens, ratio)

    def forward(self, fbank: Tensor, is_padding: Tensor | None = None, skip: Collection[int] = ()) -> Tensor:
        """Tokens `(batch, tokens, width)`; those at padded positions carry no meaning.

        Args:
            fbank: `(batch, frames, 128)`, at least one patch long.
            is_padding: `(batch, tokens)` bool, or None when nothing is padded.
            skip: Layers to leave out (layerdrop).
        """
        tokens = self.patches(fbank[:, None]).flatten(2).transpose(1, 2)
        tokens = self.input_dropout(self.project(self.patch_norm(tokens)))
        if is_padding is not None:
            tokens = tokens.masked_fill(is_padding[:, :, None], 0.0)
        tokens = self.conv_position(tokens)
        if not self.config.layer_norm_first:
            tokens = self.norm(tokens)
        tokens = self.dropout(tokens)
        bias = self.bias(tokens.shape[1]) if self.bias is not None else None
        recompute = self.recompute and torch.is_grad_enabled()
        for index, layer in enumerate(self.layers):
            if index not in skip:
                inputs = (self._decay(tokens), bias, is_padding)
                tokens = checkpoint(layer, *inputs, use_reentrant=False) if recompute else layer(*inputs)
        return self.norm(tokens) if self.config.layer_norm_first else tokens


@torch.no_grad()
def initialise(encoder: Encoder, generator: torch.Generator) -> None:
    """Fills an encoder with random weights for training from nothing: normal(0, 0.02), DeepNorm's Xavier
    gains in its layers.

    Source: BEATs release (standard deviations), DeepNorm (gains: 1 for q and k, (8 layers)^(-1/4) for v, out
    and the feed-forward part).
    """
    config = encoder.config
    for module in encoder.modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            module.weight.normal_(0.0, 0.02, generator=generator)
        if isinstance(module, nn.LayerNorm):
            module.weight.fill_(1.0)
        if isinstance(module, nn.Linear | nn.LayerNorm | ConvPosition) and module.bias is not None:
            module.bias.zero_()
    nn.init.xavier_uniform_(encoder.patches.weight.view(config.embed_dim, -1), generator=generator)
    if encoder.patches.bias is not None:
        encoder.patches.bias.zero_()
    position = encoder.conv_position
    position.weight_v.normal_(
        0.0, (4.0 / (config.conv_pos * config.encoder_embed_dim)) ** 0.5, generator=generator
    )
    position.weight_g.copy_(position.weight_v.norm(dim=(0, 1), keepdim=True))
    small = (8 * config.encoder_layers) ** -0.25 if config.deep_norm else 1.0
    for layer in encoder.layers:
        assert isinstance(layer, Layer)
        for part, gain in zip(layer.attention.qkv.weight.chunk(3), (1.0, 1.0, small), strict=True):
            nn.init.xavier_normal_(part, gain, generator=generator)
        for linear in (layer.attention.out, layer.up, layer.down):
            nn.init.xavier_normal_(linear.weight, small, generator=generator)
        if layer.attention.gated:
            layer.attention.gate_scale.fill_(1.0)
