"""Distillation: a teacher's scores of each clip and of its patches, and the teacher's embeddings.

The loss of a clip is the sum of three terms: binary cross-entropy of its logits to the mean of the teacher's
patch scores; the same of each patch, whose features are the mean of the encoder's steps in it; and the
squared error of a linear map of these features to the teacher's standardised embeddings. The map is thrown
away when the model is published.
"""

from collections.abc import Collection

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from beatline.config import Config
from beatline.core.errors import UserError
from beatline.data.store import Store
from beatline.model.geometry import TOKENS_OF_A_STEP
from beatline.model.tagger import Tagger
from beatline.train.augmentation import generator
from beatline.train.batches import Batch
from beatline.train.objectives.clips import Clips
from beatline.train.teacher import TeacherTable

SCALE = 0.1
"""On cross-entropies summed over labels, so that they weigh about as much as the embeddings' error."""
SAMPLE = 3000
"""Clips from which the embeddings' mean and deviation are taken."""
RARE = 1e-5
"""Least share that the head's first bias gives a label."""


class Map(nn.Module):
    """From features to the teacher's standardised embeddings."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, width: int, embeddings: int):
        super().__init__()
        self.linear = nn.Linear(width, embeddings)
        self.register_buffer("mean", torch.zeros(embeddings))
        self.register_buffer("deviation", torch.ones(embeddings))


class Teacher(Clips):
    """What `train.teacher` says; judged, as `clips` is, by the store's labels."""

    def __init__(self, config: Config, store: Store) -> None:
        super().__init__(config, store)
        if config.train.teacher is None:
            raise UserError(
                "bad-config",
                "setting train.teacher",
                "the objective teacher needs a teacher's table",
                "give its folder with --train.teacher",
            )
        if self.task != "multi-label":
            raise UserError(
                "bad-config", "setting model.task", "the objective teacher knows multi-label only", "leave it out"
            )
        self.table = TeacherTable(config.train.teacher, store)
        self.crop_hop = self.table.hop

    def extend(self, tagger: Tagger, fresh: bool) -> None:
        train = self.store.splits["train"]
        sample = np.sort(generator(self.settings.seed, "teacher").permutation(train)[:SAMPLE])
        first = np.zeros(len(sample), np.int64)
        if fresh:
            means = self.table.scores_of(sample, first, self.table.patches).mean((0, 1))
            share = torch.from_numpy(means).clamp(RARE, 0.5)
            with torch.no_grad():
                tagger.head.bias.copy_(share.logit())  # type: ignore[union-attr,operator]
                tagger.head.weight.mul_(0.2)  # type: ignore[union-attr,operator]
        if self.table.embeddings is None:
            return
        embeddings = self.table.embeddings_of(sample, first, self.table.patches)
        flat = embeddings.reshape(-1, embeddings.shape[2])
        added = Map(tagger.config.encoder_embed_dim, flat.shape[1])
        random = torch.Generator().manual_seed(self.settings.seed)
        with torch.no_grad():
            nn.init.xavier_normal_(added.linear.weight, generator=random)
            added.linear.bias.zero_()
            added.mean.copy_(torch.from_numpy(flat.mean(0)))
            added.deviation.copy_(torch.from_numpy(flat.std(0) + 0.05))
        tagger.add_module("objective", added)
        self.added = added

    def outputs(
        self, tagger: Tagger, fbank: Tensor, is_padding: Tensor | None, skip: Collection[int]
    ) -> Tensor:
        """Logits of the clip and of its patches, with the mapped features behind them where the teacher has
        embeddings: `(rows, 1 + patches, labels + width)`.
        """
        tokens = tagger.encoder(fbank, is_padding, skip)
        clip = tagger.pool(tokens, is_padding).float()
        steps = tokens.float().unflatten(1, (-1, TOKENS_OF_A_STEP)).mean(dim=2)
        size = min(self.table.patch_steps, steps.shape[1])
        patches = steps.unfold(1, size, self.table.hop_steps).mean(dim=3)
        features = torch.cat([clip[:, None], patches], 1)
        logits = tagger.logits(features)
        added = getattr(tagger, "objective", None)
        if added is None:
            return logits
        with torch.autocast(features.device.type, enabled=False):
            return torch.cat([logits, added.linear(features)], 2)

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        count = outputs.shape[1] - 1
        labels = self.table.scores.shape[2]
        device = outputs.device
        first = batch.begins // self.table.hop
        scores = batch.mixed(self.table.scores_of(batch.clips, first, count)).to(device)
        whole = F.binary_cross_entropy_with_logits(outputs[:, 0, :labels], scores.mean(1), reduction="none")
        each = F.binary_cross_entropy_with_logits(outputs[:, 1:, :labels], scores, reduction="none")
        loss = SCALE * (whole.sum() + self.settings.teacher_patches * each.mean(1).sum())
        if outputs.shape[2] == labels:
            return loss
        added = self.added
        wanted = batch.mixed(self.table.embeddings_of(batch.clips, first, count)).to(device)
        wanted = (wanted - added.mean) / added.deviation
        errors = (outputs[:, 1:, labels:] - wanted).square().mean(dim=(1, 2))
        return loss + self.settings.teacher_embeddings * errors.sum()
