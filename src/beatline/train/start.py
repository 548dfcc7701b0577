"""What training starts from: a device, and a tagger with random weights or a checkpoint's."""

import os
from pathlib import Path

import torch

from beatline.config import Config
from beatline.core.console import say
from beatline.core.errors import UserError
from beatline.core.labels import LabelSet
from beatline.model import cpu as products
from beatline.model.checkpoints.load import load_checkpoint
from beatline.model.heads import HEADS
from beatline.model.tagger import Tagger, initialise_tagger
from beatline.train import augment, objectives
from beatline.train.optim import parameter_groups
from beatline.train.registry import find


def pick_device(name: str) -> torch.device:
    """The device that `train.device` names.

    Raises:
        UserError: `bad-config` where there is no such device.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError(
            "bad-config",
            "setting train.device",
            "there is no GPU that PyTorch can use",
            "set it to cpu or auto",
        )
    if name == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    index = int(os.environ.get("LOCAL_RANK", "0"))
    if index >= torch.cuda.device_count():
        raise UserError(
            "bad-config",
            "setting train.device",
            f"process {index} of this machine finds {torch.cuda.device_count()} GPUs",
            "start as many processes as there are GPUs: torchrun --nproc-per-node",
        )
    products.keep_gpu_exact()
    return torch.device("cuda", index)


def check(config: Config) -> None:
    """Refuses what no training could use, before anything is prepared for it.

    Raises:
        UserError: `bad-config` for a device, an augmentation, an objective, a head or a rate's begin that
            there is not.
    """
    pick_device(config.train.device)
    augment.named(config.augment)
    find(objectives.OBJECTIVES, config.train.objective, "train.objective").check(config)
    find(HEADS, config.model.head, "model.head")
    rates = config.optim.rates
    if config.model.init:  # only training reads the checkpoint: here just the first name is known
        rates = {begin.split(".")[0]: factor for begin, factor in rates.items()}
    if rates:
        with torch.device("meta"):
            tagger = Tagger(config.model.apply(config.model.encoder), 1, head={"name": config.model.head})
        parameter_groups(tagger, rates)


def new_tagger(config: Config, labels: LabelSet, init: Path | None = None) -> Tagger:
    """The tagger that training starts from: random, or a checkpoint's encoder with its head where the labels
    agree.

    Args:
        init: Path of the checkpoint that `model.init` names; None where that is a path itself.

    Raises:
        UserError: `bad-config` for a head that is not known; see `load_checkpoint`.
    """
    settings = config.model
    find(HEADS, settings.head, "model.head")
    loaded = load_checkpoint(init or settings.init) if settings.init else None
    architecture = settings.apply(loaded.config if loaded else settings.encoder)
    with torch.device("meta"):
        tagger = Tagger(
            architecture,
            len(labels),
            settings.task,
            settings.padding,
            settings.gradient_decay,
            head={"name": settings.head},
        )
    tagger.to_empty(device="cpu")
    random = torch.Generator().manual_seed(config.train.seed)
    initialise_tagger(tagger, random, encoder_too=loaded is None)
    if loaded is not None:
        state = loaded.state
        if loaded.labels is None or loaded.labels.hash != labels.hash:
            state = {name: tensor for name, tensor in state.items() if not name.startswith("head.")}
        tagger.load_state_dict(state, strict=False)
        head = (
            "with its head"
            if state.keys() & tagger.head.state_dict(prefix="head.").keys()
            else "with a new head"
        )
        say("train", f"starting from {loaded.source} ({loaded.family}) {head}")
    tagger.encoder.recompute = config.train.recompute
    for layer in tagger.encoder.layers:
        layer.attention.own_steps = config.train.own_attention  # type: ignore[union-attr,assignment]
    if config.train.compile:
        # or kernels are chosen by their speed of the moment, and a resumed run may have other bits
        os.environ.setdefault("TORCHINDUCTOR_DETERMINISTIC", "1")
        for layer in tagger.encoder.layers:
            layer.compile()
    return tagger
