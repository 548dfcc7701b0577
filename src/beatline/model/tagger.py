"""waveform -> logits: fbank, encoder, mean over the unpadded tokens, head.

In: waveforms `(batch, samples)` with lengths. Out: logits `(batch, labels)`. Owns the two padding rules.
Scores are `Tagger.score`'s; files, batches and checkpoints are left to others.
"""

from collections.abc import Collection, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from beatline.config import EncoderConfig
from beatline.model.cpu import on_cpu_in_float32
from beatline.model.encoder import Encoder, initialise
from beatline.model.fbank import fbank
from beatline.model.geometry import FRAME_HOP, FRAME_SAMPLES, TOKENS_OF_A_STEP
from beatline.model.heads import LINEAR, make_head
from beatline.model.heads.base import Head


def _all_padding(is_padding: Tensor, length: int) -> Tensor:
    """Shortens a padding mask to `length`: cut the tail, then group. A group is padding only when all of it
    is.
    """
    whole = is_padding.shape[1] // length * length
    return is_padding[:, :whole].unflatten(1, (length, -1)).all(dim=2)


def token_padding(
    lengths: Tensor, samples: int, encoder: Encoder, rule: Literal["exact", "upstream"]
) -> Tensor:
    """Which tokens of a batch are padding, `(batch, tokens)` bool.

    Args:
        lengths: Samples of each clip, `(batch,)` int64.
        samples: Samples of the padded batch.
        rule: `exact`: a token is padding unless the clip alone has it. `upstream`: the BEATs release's rule,
            which groups the sample mask into frames. Frames then form tokens as if each token had a time of
            its own.
    """
    frames = 1 + (samples - FRAME_SAMPLES) // FRAME_HOP
    tokens = encoder.token_count(frames)
    if rule == "exact":
        frames_of_clip = (1 + (lengths - FRAME_SAMPLES).div(FRAME_HOP, rounding_mode="floor")).clamp(min=0)
        tokens_of_clip = (
            frames_of_clip.div(encoder.config.input_patch_size, rounding_mode="floor") * encoder.mel_patches
        )
        return torch.arange(tokens, device=lengths.device) >= tokens_of_clip[:, None]
    past_end = torch.arange(samples, device=lengths.device) >= lengths[:, None]
    return _all_padding(_all_padding(past_end, frames), tokens)


class Tagger(nn.Module):
    """A BEATs encoder and a head.

    Args:
        config: The encoder's architecture.
        labels: Number of labels.
        task: `multi-label` scores by sigmoid, `single-label` by softmax.
        padding: The rule of `token_padding`.
        gradient_decay: See `Encoder`.
        head: Settings of the head, see `heads.make_head`.
    """

    head: Head

    def __init__(
        self,
        config: EncoderConfig,
        labels: int,
        task: Literal["multi-label", "single-label"] = "multi-label",
        padding: Literal["exact", "upstream"] = "exact",
        gradient_decay: Literal["release", "espnet-cut"] = "release",
        head: Mapping[str, Any] = LINEAR,
    ):
        super().__init__()
        self.config = config
        self.task = task
        self.padding = padding
        self.encoder = Encoder(config, gradient_decay)
        width = config.encoder_embed_dim
        self.head = make_head(head, width, labels, task)

    def fbank(self, waveforms: Tensor) -> Tensor:
        """The normalised filter bank `(batch, frames, 128)`, float32."""
        return fbank(waveforms, self.config.fbank_mean, self.config.fbank_std)

    def is_padding(self, lengths: Tensor | None, samples: int) -> Tensor | None:
        """`token_padding` of a batch, or None when no clip is shorter than the batch."""
        if lengths is None or bool((lengths == samples).all()):
            return None
        return token_padding(lengths, samples, self.encoder, self.padding)

    def pool(self, tokens: Tensor, is_padding: Tensor | None) -> Tensor:
        """Mean over the unpadded tokens, `(batch, width)`."""
        if is_padding is None:
            return tokens.mean(dim=1)
        return tokens.masked_fill(is_padding[:, :, None], 0.0).sum(dim=1) / (~is_padding).sum(
            dim=1, keepdim=True
        )

    def embed(self, fbank: Tensor, is_padding: Tensor | None = None, skip: Collection[int] = ()) -> Tensor:
        """What the head takes, `(batch, width)`, of filter banks `(batch, frames, 128)`; `skip` names layers
        to leave out.
        """
        return self.pool(self.encoder(fbank, is_padding, skip), is_padding)

    def from_fbank(
        self, fbank: Tensor, is_padding: Tensor | None = None, skip: Collection[int] = ()
    ) -> Tensor:
        """Logits `(batch, labels)` float32 of filter banks; see `embed`."""
        return self.logits(self.embed(fbank, is_padding, skip))

    def logits(self, features: Tensor) -> Tensor:
        """What the head says of features `(..., width)`: `(..., labels)`, at least float32 whatever the
        autocast, for rounded scores would tie.
        """
        with torch.autocast(features.device.type, enabled=False):
            logits: Tensor = self.head(features.to(torch.promote_types(features.dtype, torch.float32)))
            return logits

    def outputs(
        self, waveforms: Tensor, is_padding: Tensor | None = None, detail: bool = True, each: bool = True
    ) -> tuple[Tensor, ...]:
        """All that the model says of clips; what is padding is zero.

        Logits `(batch, labels)`, and the pooled tokens they come from `(batch, width)`. With `detail` also
        the tokens `(batch, tokens, width)` and the logits of each time step alone `(batch, steps, labels)`.
        With a linear head a clip's logits are the mean of its steps'.

        Args:
            waveforms: As `forward`.
            is_padding: `(batch, tokens)` bool, True where padding.
            detail: Also tokens and steps.
            each: Run the head clip by clip on a CPU, so that a clip's bits do not depend on the others.
        """
        tokens = self.encoder(self.fbank(waveforms), is_padding)
        embeddings = self.pool(tokens, is_padding)
        logits = self._logits_of_each(embeddings) if each else self.logits(embeddings)
        if not detail:
            return logits, embeddings
        if is_padding is not None:
            tokens = tokens.masked_fill(is_padding[:, :, None], 0.0)
        steps = tokens.unflatten(1, (tokens.shape[1] // TOKENS_OF_A_STEP, TOKENS_OF_A_STEP)).mean(dim=2)
        return logits, embeddings, tokens, self._logits_of_each(steps)

    def _logits_of_each(self, features: Tensor) -> Tensor:
        """The head clip by clip on a CPU. There the last bits of a product depend on the number of rows, and
        a clip's must not.
        """
        return (
            torch.cat([self.logits(clip) for clip in features.split(1)])
            if on_cpu_in_float32(features)
            else self.logits(features)
        )

    def forward(self, waveforms: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Logits `(batch, labels)` float32.

        Args:
            waveforms: `(batch, samples)` float32 in [-1, 1], zero after each clip's end; at least
                `geometry.MIN_SAMPLES` long.
            lengths: Samples of each clip, `(batch,)` int64, each at least `geometry.MIN_SAMPLES`; None when
                nothing is padded.
        """
        return self.from_fbank(self.fbank(waveforms), self.is_padding(lengths, waveforms.shape[1]))

    def score(self, logits: Tensor) -> Tensor:
        """Scores in [0, 1] of logits, `(..., labels)`."""
        return logits.sigmoid() if self.task == "multi-label" else logits.softmax(dim=-1)


def initialise_tagger(tagger: Tagger, generator: torch.Generator, encoder_too: bool = True) -> Tagger:
    """Fills a tagger with random weights: its head, and the encoder if asked."""
    if encoder_too:
        initialise(tagger.encoder, generator)
    tagger.head.initialise(generator)
    return tagger
