"""How much arithmetic the encoder needs, counted from its architecture; a multiplication with its addition is
two operations.

Counted are the matrix products and convolutions of the architecture, patches to head; not the filter bank,
not softmax, norms and other element-wise work, nor what an implementation computes twice.
"""

from collections.abc import Iterator

from beatline.config import EncoderConfig
from beatline.model.geometry import MELS, SAMPLE_RATE, frame_count


def layer_products(config: EncoderConfig, rows: int) -> Iterator[tuple[int, int, int]]:
    """The products with weights in one layer: `(rows, inputs, outputs)` each."""
    width, inner = config.encoder_embed_dim, config.encoder_ffn_embed_dim
    yield from ((rows, width, 3 * width), (rows, width, width), (rows, width, inner), (rows, inner, width))


def token_count(config: EncoderConfig, seconds: float) -> int:
    """Tokens of a clip of that length."""
    return (
        frame_count(round(seconds * SAMPLE_RATE))
        // config.input_patch_size
        * (MELS // config.input_patch_size)
    )


def operations(
    config: EncoderConfig, clips: int, seconds: float, labels: int = 527, training: bool = False
) -> float:
    """Operations of a forward pass of `clips` clips, or of a training step (the backward pass does twice the
    forward's).
    """
    tokens, width = token_count(config, seconds), config.encoder_embed_dim
    patches = (
        tokens * config.embed_dim * (config.input_patch_size**2 + (width if width != config.embed_dim else 0))
    )
    position = tokens * width * (width // config.conv_pos_groups) * config.conv_pos
    weights = sum(rows * inputs * outputs for rows, inputs, outputs in layer_products(config, tokens))
    attention = 2 * tokens * tokens * width
    forward = (
        2.0 * clips * (patches + position + config.encoder_layers * (weights + attention) + width * labels)
    )
    return forward * (3 if training else 1)
