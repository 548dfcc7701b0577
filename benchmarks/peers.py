"""What users have today, ready to be timed: openbeats, AVEX's BEATs, AST of transformers, and ESPnet's
classification model with its training step.

Peers are imported inside the functions, so that a benchmark runs its other rows where one is missing
(`available`). Programs that are run as programs are in `tagging.py`.
"""

import importlib.util
import logging
import sys
import types
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor

logging.getLogger().setLevel(logging.ERROR)
warnings.filterwarnings("ignore")  # the peers' own, about other versions of what they use

# ESPnet's recipe egs2/as20k/cls1: what it does to a clip
RECIPE_ENCODER = {
    "specaug_config": {
        "apply_time_warp": True,
        "apply_freq_mask": False,
        "apply_time_mask": True,
        "time_mask_width_ratio_range": [0, 0.06],
        "num_time_mask": 1,
    },
    "roll_augment": True,
    "roll_interval": 16000,
}
RECIPE_MODEL = {"mixup_probability": 0.8}


def available(*packages: str) -> bool:
    """Whether all of these can be imported; says which is missing."""
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        print(f"left out: {', '.join(missing)} not installed", flush=True)
    return not missing


def openbeats(release: Path) -> Callable[[np.ndarray], np.ndarray]:
    """The openbeats encoder and head: logits `(batch, labels)` of waveforms `(batch, samples)`, all of one
    length.
    """
    from openbeats.model import OpenBeats

    model = OpenBeats.from_pretrained(str(release))

    @torch.no_grad()
    def logits(waveforms: np.ndarray) -> np.ndarray:
        lengths = torch.full((len(waveforms),), waveforms.shape[1])
        tokens, *_ = model.encoder(torch.from_numpy(waveforms), lengths, waveform_input=True)
        return model.classifier(tokens.mean(1)).numpy()

    return logits


def _stand_for_avex() -> None:
    """Empty packages in place of AVEX's own, whose `__init__` import all that AVEX needs elsewhere."""
    if "avex" in sys.modules:
        return
    found = importlib.util.find_spec("avex")
    assert found is not None and found.origin is not None
    folder = Path(found.origin).parent
    for name, path in (("avex", folder), ("avex.models", folder / "models")):
        package = types.ModuleType(name)
        package.__path__ = [str(path)]
        sys.modules[name] = package


def avex_model(release: Path) -> torch.nn.Module:
    """AVEX's BEATs, with fused attention and a batched filter bank, and the weights of `release`; evaluation
    mode.
    """
    _stand_for_avex()
    from avex.models.beats.beats import BEATs, BEATsConfig

    content = torch.load(release, map_location="cpu", weights_only=True)
    state = {name.replace("classifier.", "predictor."): tensor for name, tensor in content["model"].items()}
    labels = len(state["predictor.bias"])
    model = BEATs(BEATsConfig(**content["cfg"] | {"finetuned_model": True, "predictor_class": labels}))
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected and {name.partition(".")[0] for name in missing} <= {"fbank"}, (missing, unexpected)
    return model.eval()


def avex(release: Path) -> Callable[[np.ndarray], np.ndarray]:
    """AVEX's encoder and head: logits `(batch, labels)` of waveforms `(batch, samples)`, of one length."""
    model = avex_model(release)

    @torch.no_grad()
    def logits(waveforms: np.ndarray) -> np.ndarray:
        return model.extract_features(torch.from_numpy(waveforms))[0].numpy()

    return logits


def avex_step(release: Path, waveforms: np.ndarray, targets: np.ndarray) -> Callable[[], None]:
    """A training step of AVEX's model on a batch that is in memory: forward, binary cross-entropy, backward,
    clip at 1, fused AdamW. No augmentation, every layer trains.
    """
    model = avex_model(release).train()
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=3e-5, weight_decay=0.01, betas=(0.9, 0.98), fused=True
    )
    batch, wanted = torch.from_numpy(waveforms), torch.from_numpy(targets)

    def step() -> None:
        optimiser.zero_grad()
        logits, _ = model.extract_features(batch, disable_layerdrop=True)
        torch.nn.functional.binary_cross_entropy_with_logits(logits, wanted).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()

    return step


def ast(smoke: bool) -> Callable[[np.ndarray], np.ndarray]:
    """AST of transformers with random weights, 86 M parameters by default: logits of waveforms, its own
    features included.
    """
    from transformers import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification

    small = (
        {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
        if smoke
        else {}
    )
    model, features = (
        ASTForAudioClassification(ASTConfig(num_labels=527, **small)).eval(),
        ASTFeatureExtractor(),
    )

    @torch.no_grad()
    def logits(waveforms: np.ndarray) -> np.ndarray:
        return model(**features(list(waveforms), sampling_rate=16_000, return_tensors="pt")).logits.numpy()

    return logits


def espnet(folder: Path) -> Callable[[np.ndarray], np.ndarray]:
    """ESPnet's classification model in a folder: logits `(batch, labels)` of waveforms `(batch, samples)`,
    all of one length.
    """
    import peer_espnet

    model = peer_espnet.load(folder)

    @torch.no_grad()
    def logits(waveforms: np.ndarray) -> np.ndarray:
        return peer_espnet.logits_of(
            model, torch.from_numpy(waveforms), torch.full((len(waveforms),), waveforms.shape[1])
        ).numpy()

    return logits


def espnet_training_model(folder: Path) -> torch.nn.Module:
    """ESPnet's classification model with the recipe's mixup, roll and SpecAugment, and the weights of
    `folder`; every layer trains.
    """
    import peer_espnet

    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["encoder_conf"] |= RECIPE_ENCODER
    config["model_conf"] |= RECIPE_MODEL
    model = peer_espnet.build(config)
    model.load_state_dict(torch.load(folder / "model.pth", map_location="cpu", weights_only=True))
    return model


def espnet_batch(waveforms: np.ndarray, labels: list[list[int]], device: str = "cpu") -> dict[str, Tensor]:
    """A batch as ESPnet's collation makes it: labels as indices padded with -1."""
    width = max(map(len, labels))
    padded = torch.tensor([row + [-1] * (width - len(row)) for row in labels])
    lengths = torch.full((len(waveforms),), waveforms.shape[1])
    batch = {
        "speech": torch.from_numpy(waveforms),
        "speech_lengths": lengths,
        "label": padded,
        "label_lengths": torch.tensor([len(row) for row in labels]),
    }
    return {name: tensor.to(device) for name, tensor in batch.items()}


def espnet_step(model: torch.nn.Module, batch: dict[str, Tensor]) -> Callable[[], None]:
    """One training step of ESPnet's own trainer on a batch that is in memory: forward, backward, clip at 1,
    AdamW as the recipe has it.
    """
    from espnet2.train.distributed_utils import DistributedOption
    from espnet2.train.reporter import SubReporter
    from espnet2.train.trainer import Trainer, TrainerOptions

    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-5, weight_decay=0.01, betas=(0.9, 0.98))
    settings: dict[str, Any] = dict.fromkeys(TrainerOptions.__dataclass_fields__)
    settings |= {
        "ngpu": int(next(model.parameters()).is_cuda),
        "grad_noise": False,
        "accum_grad": 1,
        "grad_clip": 1.0,
        "grad_clip_type": 2.0,
        "no_forward_run": False,
    }
    settings |= {"use_wandb": False, "create_graph_in_tensorboard": False, "log_interval": 50}
    options = TrainerOptions(**settings)

    class OneBatch:
        """An iterator as ESPnet's loader is one: clip ids and the batch."""

        def __iter__(self) -> Iterator[tuple[list[str], dict[str, Tensor]]]:
            yield [str(i) for i in range(len(batch["speech"]))], dict(batch)

        def __len__(self) -> int:
            return 1

    def step() -> None:
        Trainer.train_one_epoch(
            model=model,
            iterator=OneBatch(),
            optimizers=[optimiser],
            schedulers=[None],
            scaler=None,
            reporter=SubReporter("train", 1, 0),
            summary_writer=None,
            options=options,
            distributed_option=DistributedOption(),
        )

    return step
