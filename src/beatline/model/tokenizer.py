"""fbank -> codes: BEATs' acoustic tokenizer, the encoder with a projection and a codebook.

In: waveforms `(batch, samples)`. Out: a code for each token. Not part of tagging; it reads the release's
tokenizer checkpoints.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from beatline.config import EncoderConfig
from beatline.model.tagger import Tagger


class Tokenizer(Tagger):
    """A BEATs encoder whose tokens are projected and matched with the nearest code by cosine.

    Args:
        config: The encoder's architecture.
        codes: Size of the codebook.
        code_width: Width of a code.
    """

    def __init__(self, config: EncoderConfig, codes: int, code_width: int, padding="exact"):
        super().__init__(config, labels=1, padding=padding)
        del self.head
        width = config.encoder_embed_dim
        self.quantize_layer = nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, code_width))
        self.codebook = nn.Embedding(codes, code_width)

    @torch.no_grad()
    def codes(self, waveforms: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Codes `(batch, tokens)` int64 of waveforms `(batch, samples)`."""
        tokens = self.encoder(self.fbank(waveforms), self.is_padding(lengths, waveforms.shape[1]))
        projected = F.normalize(self.quantize_layer(tokens), dim=-1)
        return (projected @ F.normalize(self.codebook.weight, dim=-1).T).argmax(dim=-1)
