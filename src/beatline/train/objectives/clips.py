"""Labels of whole clips: binary cross-entropy or cross-entropy, judged by mAP."""

from collections.abc import Collection

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from beatline.config import Config
from beatline.core.errors import UserError
from beatline.data.store import Store
from beatline.evaluate import ranking
from beatline.evaluate.predict import score_clips
from beatline.model.engines.pytorch import TorchEngine
from beatline.model.tagger import Tagger
from beatline.train import parallel
from beatline.train.batches import Batch
from beatline.train.objective import Objective
from beatline.train.parallel import Processes


class Clips(Objective):
    """The labels of each clip as `model.task` takes them: several by a sigmoid, or a single label by a
    softmax.
    """

    best = "mAP"

    def __init__(self, config: Config, store: Store) -> None:
        self.store = store
        self.task = config.model.task
        self.settings = config.train
        if self.task == "single-label":
            check_one_label(store, np.concatenate([store.splits["train"], store.splits["val"]]))

    def outputs(
        self, tagger: Tagger, fbank: Tensor, is_padding: Tensor | None, skip: Collection[int]
    ) -> Tensor:
        return tagger.from_fbank(fbank, is_padding, skip)

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        targets = batch.targets.to(outputs.device)
        if self.task == "multi-label":
            return F.binary_cross_entropy_with_logits(outputs, targets, reduction="none").mean(dim=1).sum()
        return F.cross_entropy(outputs, targets, reduction="sum")

    def validate(self, tagger: Tagger, clips: np.ndarray, processes: Processes) -> dict[str, float]:
        """mAP, mean AUC and loss in nats."""
        gathered = self.scores(tagger, clips, processes)
        targets = self.store.targets(clips)
        return {
            "mAP": known_mean(ranking.average_precision(gathered, targets > 0.5)),
            "mean_auc": known_mean(ranking.roc_auc(gathered, targets > 0.5)),
            "loss": self._nats(gathered, targets),
        }

    def scores(self, tagger: Tagger, clips: np.ndarray, processes: Processes) -> np.ndarray:
        """What the tagger says of clips, `(clips, labels)` float32, each process scoring a share of them."""
        mine = processes.share
        device = next(tagger.parameters()).device
        scores = torch.zeros(len(clips), len(self.store.labels), device=device)
        engine = TorchEngine(tagger, self.store.labels, device, self.settings.precision, bulk=True)
        own = score_clips(engine, self.store, clips[mine], self.settings.workers)
        scores[mine] = torch.from_numpy(own).to(device)
        return parallel.sum_over_processes(scores).cpu().numpy()

    def _nats(self, scores: np.ndarray, targets: np.ndarray) -> float:
        """The loss of scores `(clips, labels)`."""
        clipped = np.clip(scores.astype(np.float64), 1e-12, 1 - 1e-12)
        if self.task == "multi-label":
            return float(-(targets * np.log(clipped) + (1 - targets) * np.log(1 - clipped)).mean())
        return float(-(targets * np.log(clipped)).sum(1).mean())


def check_one_label(store: Store, clips: np.ndarray) -> None:
    """Raises `bad-config` for a clip of several labels, which a softmax could never all give their due."""
    several = clips[store.label_counts(clips) > 1]
    if len(several):
        cause = (
            f"single-label, but {len(several)} clips of train and val have several labels, the first is "
            f"{store.ids[int(several[0])]}"
        )
        raise UserError(
            "bad-config", "setting model.task", cause, "set it to multi-label, or give each clip one label"
        )


def known_mean(values: np.ndarray) -> float:
    """The mean over labels that have a figure; 0 where none has, which is no better than any epoch's."""
    mean = ranking.mean_of_known(values)
    return 0.0 if np.isnan(mean) else mean
