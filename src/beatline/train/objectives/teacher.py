"""Distillation: a teacher's scores of each clip and of its patches, and the teacher's embeddings.

The loss of a clip has three terms. Binary cross-entropy compares its scores with the mean of the teacher's
patches, and each patch's scores with the teacher's; a patch's features are the mean of the encoder's time
steps in it. The squared error compares a linear map of these features with the teacher's standardised
embeddings. The map is thrown away when the model is published.
"""

from collections.abc import Collection

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from beatline.config import Config
from beatline.core.errors import UserError
from beatline.data.store import Store
from beatline.evaluate import ranking
from beatline.model.geometry import TOKENS_OF_A_STEP, step_count
from beatline.model.heads.linear import Linear
from beatline.model.tagger import Tagger
from beatline.train.augmentation import generator
from beatline.train.batches import Batch
from beatline.train.objective import ADDED
from beatline.train.objectives.clips import Clips, known_mean
from beatline.train.parallel import Processes
from beatline.train.teacher import TeacherTable, is_table

SCALE = 0.1
"""On cross-entropies summed over labels: they then weigh about as much as the error of embeddings."""
SAMPLE = 3000
"""Clips from which scores' means, and embeddings' means and deviations, are taken."""
RAREST = 1e-5
"""The least share of clips that the head's first bias gives a label."""
HEARD = 0.5
"""A clip is a positive of a label where the teacher scores a patch above this."""
POSITIVES = 3
"""Positives that a label needs to count in validation, where a label has so many."""


class Map(nn.Linear):
    """From the student's features to the teacher's embeddings, standardised by `mean` and `deviation`."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, width: int, embeddings: np.ndarray, generator: torch.Generator):
        super().__init__(width, embeddings.shape[1])
        nn.init.xavier_normal_(self.weight, generator=generator)
        nn.init.zeros_(self.bias)
        self.register_buffer("mean", torch.from_numpy(embeddings.mean(0)))
        self.register_buffer("deviation", torch.from_numpy(embeddings.std(0) + 0.05))


class Teacher(Clips):
    """What `train.teacher` says of the clips, the store's labels aside."""

    @classmethod
    def check(cls, config: Config) -> None:
        if config.train.teacher is None:
            cause = "the objective teacher needs a teacher, and none is given"
            remedy = "give a model, or the folder of a teacher's table"
            raise UserError("bad-config", "setting train.teacher", cause, remedy)
        if config.model.task != "multi-label":
            cause = "the objective teacher has several labels a clip"
            raise UserError("bad-config", "setting model.task", cause, "set it to multi-label")

    def __init__(self, config: Config, store: Store) -> None:
        super().__init__(config, store)
        given = config.train.teacher
        made = config.out / "teacher"
        self.table = TeacherTable(given if given is not None and is_table(given) else made, store)
        self.crop_hop = self.table.hop

    def begin(self, tagger: Tagger, is_new: bool) -> None:
        train = self.store.splits["train"]
        sample = np.sort(generator(self.settings.seed, "teacher").permutation(train)[:SAMPLE])
        if is_new and isinstance(tagger.head, Linear):
            shares = torch.from_numpy(np.nanmean(self.table.scores(sample), axis=(0, 1)))
            with torch.no_grad():
                tagger.head.bias.copy_(shares.clamp(RAREST, 0.5).logit())
                tagger.head.weight.mul_(0.2)
        if self.table.width and self.settings.teacher_embeddings:
            embeddings = self.table.embeddings(sample).reshape(-1, self.table.width)
            embeddings = embeddings[~np.isnan(embeddings).any(1)]
            random = torch.Generator().manual_seed(self.settings.seed)
            self.map = Map(tagger.config.encoder_embed_dim, embeddings, random)
            tagger.add_module(ADDED, self.map)

    def outputs(
        self, tagger: Tagger, fbank: Tensor, is_padding: Tensor | None, skip: Collection[int]
    ) -> Tensor:
        """Logits of the clip and of each patch, `(rows, 1 + patches, labels)`; behind them, where the teacher
        has embeddings, what the map makes of the features.
        """
        tokens = tagger.encoder(fbank, is_padding, skip)
        clip = tagger.pool(tokens, is_padding).float()[:, None]
        patches = clip
        if self.table.patch_steps:
            steps = tokens.float().unflatten(1, (-1, TOKENS_OF_A_STEP)).mean(dim=2)
            size = min(self.table.patch_steps, steps.shape[1])
            patches = steps.unfold(1, size, self.table.hop_steps).mean(dim=3)
        features = torch.cat([clip, patches], 1)
        logits = tagger.logits(features)
        if not hasattr(tagger, ADDED):
            return logits
        with torch.autocast(features.device.type, enabled=False):
            return torch.cat([logits, self.map(features)], 2)

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        labels = len(self.store.labels)
        count = outputs.shape[1] - 1
        scores = batch.mixed(self.table.scores(batch.clips, batch.begins, count)).to(outputs.device)
        there = ~scores[:, :, 0].isnan()
        scores = scores.nan_to_num()
        mean = _mean_of(scores, there)
        logits = outputs[:, :, :labels]
        whole = F.binary_cross_entropy_with_logits(logits[:, 0], mean, reduction="none").sum(1)
        loss = self.settings.teacher_clips * SCALE * (whole * there.any(1)).sum()
        there = there & self._sounds(batch, count).to(there.device)
        if self.table.patch_steps:
            each = F.binary_cross_entropy_with_logits(logits[:, 1:], scores, reduction="none").sum(2)
            loss = loss + self.settings.teacher_patches * SCALE * _mean_of(each, there).sum()
        if outputs.shape[2] > labels:
            wanted = batch.mixed(self.table.embeddings(batch.clips, batch.begins, count)).to(outputs.device)
            errors = outputs[:, 1:, labels:] - (wanted.nan_to_num() - self.map.mean) / self.map.deviation
            loss = loss + self.settings.teacher_embeddings * _mean_of(errors.square().mean(2), there).sum()
        return loss

    def _sounds(self, batch: Batch, count: int) -> Tensor:
        """Which patches end within their clip, `(rows, patches)` bool; of a clip shorter than a patch the
        first.
        """
        begins = torch.arange(count) * self.table.hop_steps
        steps = torch.from_numpy(step_count(batch.lengths.numpy()))[:, None]
        return (begins + self.table.patch_steps <= steps) | (begins == 0)

    def validate(self, tagger: Tagger, clips: np.ndarray, processes: Processes) -> dict[str, float]:
        """Against the teacher: mAP over labels with `POSITIVES` clips above `HEARD` and their number, the
        correlation of scores, and the share of clips whose top label is the same.
        """
        mine = self.scores(tagger, clips, processes)
        patches = self.table.scores(clips)
        means, heard = np.nanmean(patches, axis=1), np.nanmax(patches, axis=1) > HEARD
        counts = heard.sum(0)
        known = counts >= max(1, min(POSITIVES, counts.max()))
        figures = {
            "correlation": float(np.corrcoef(mine.ravel(), means.ravel())[0, 1]) if mine.std() > 0 else 0.0,
            "top": float((mine.argmax(1) == means.argmax(1)).mean()),
            "labels": float(known.sum()),
        }
        if not known.any():
            return {"mAP": 0.0} | figures
        return {"mAP": known_mean(ranking.average_precision(mine[:, known], heard[:, known]))} | figures


def _mean_of(values: Tensor, there: Tensor) -> Tensor:
    """The mean of values `(rows, patches, ...)` over the patches that are there, `(rows, ...)`; 0 of none."""
    weights = there.float() / there.sum(1, keepdim=True).clamp(min=1)
    return (values * weights.view(*weights.shape, *[1] * (values.dim() - 2))).sum(1)
