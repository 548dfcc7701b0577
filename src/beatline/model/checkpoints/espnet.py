"""Audio classifiers of ESPnet and OpenBEATs: `.pth` and `config.yaml`, both ways.

In: what `read_pickle` gives, with the `config.yaml` beside it; or a tagger. Out: a `LoadedTagger`; or a
folder that ESPnet's own classes load.
"""

from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn

from beatline.config import to_dict
from beatline.core import artefact
from beatline.core.errors import UserError
from beatline.core.labels import LabelSet, espnet_token, from_espnet_tokens
from beatline.model.checkpoints.layout import to_release
from beatline.model.checkpoints.loaded import Loaded, LoadedTagger, Task, bad_checkpoint
from beatline.model.checkpoints.pickles import read_pickle
from beatline.model.checkpoints.translate import (
    check_left,
    encoder_config,
    named_tensors,
    take_head,
    translate,
)
from beatline.model.tagger import Tagger

CONFIG = "config.yaml"
WEIGHTS = "model.pth"
TASKS: dict[str, Task] = {"multi-label": "multi-label", "multi-class": "single-label"}
"""Our task of each `classification_type`."""


def read(path: Path, content: Any, architecture: Path | None = None) -> Loaded | None:
    """The model, always with a head; None where no `config.yaml` lies beside the file.

    Args:
        path: The file.
        content: What the file holds: tensors by name.
        architecture: The base model's `config.yaml` or `.pt`, where the fine-tuned model's `config.yaml`
            states only changes; None takes the rest from the shapes.

    Raises:
        UserError: `bad-checkpoint`; `label-mismatch` where head and `config.yaml` differ.
    """
    recipe_file = path.with_name(CONFIG)
    if not recipe_file.exists():
        return None
    base = _architecture(architecture) if architecture else None
    try:
        recipe = yaml.safe_load(recipe_file.read_text())
        conf = recipe.get("encoder_conf") or {}
        tokens = recipe["token_list"]
        kind = (recipe.get("model_conf") or {}).get("classification_type", "multi-label")
    except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError, UnicodeDecodeError) as error:
        raise bad_checkpoint(
            recipe_file,
            f"it is no ESPnet configuration with a token_list ({type(error).__name__})",
            "give the config.yaml that belongs to the .pth",
        ) from error
    if conf.get("use_weighted_representation"):
        raise bad_checkpoint(recipe_file, "use_weighted_representation is not supported")
    if kind not in TASKS or not isinstance(tokens, list):
        raise bad_checkpoint(recipe_file, f"classification_type {kind!r} is not supported")
    everything = named_tensors(path, content)
    released = {
        name.removeprefix("encoder."): t for name, t in everything.items() if name.startswith("encoder.")
    }
    stated = conf.get("beats_config") or {}
    normalisation = {name: conf[name] for name in ("fbank_mean", "fbank_std") if name in conf}
    if base is not None:
        config = encoder_config(path, base | stated | normalisation, released)
    else:
        config = encoder_config(
            path, stated | normalisation, released, partial="encoder_layers" not in stated
        )
    state, left = translate(path, released, config)
    left |= {name: tensor for name, tensor in everything.items() if not name.startswith("encoder.")}
    head = take_head(path, left, config.encoder_embed_dim)
    ignored = check_left(path, left)
    labels = from_espnet_tokens([str(token) for token in tokens])
    outputs = len(head["head.bias"]) if head else 0
    if outputs != len(labels):
        raise UserError(
            "label-mismatch",
            f"cannot load {path}",
            f"its head has {outputs} outputs, {recipe_file.name} names {len(labels)} labels",
            "give the config.yaml that belongs to it",
        )
    return LoadedTagger(
        source=path,
        family="ESPnet",
        config=config,
        state=state | head,
        ignored=ignored,
        labels=labels,
        task=TASKS[kind],
    )


def _architecture(path: Path) -> dict[str, Any]:
    """The encoder's settings out of a base model's file."""
    if path.suffix == ".pt":
        return read_pickle(path)["cfg"]
    try:
        return yaml.safe_load(path.read_text())["encoder_conf"]["beats_config"]
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise bad_checkpoint(
            path, "it has no encoder_conf.beats_config", "give the base repository's config.yaml"
        ) from error


def export_espnet(folder: Path, tagger: Tagger, labels: LabelSet) -> None:
    """Publishes a tagger as ESPnet's own classes load it.

    Raises:
        UserError: `disk-full`, `not-writable`; as `write_espnet`.
    """
    with artefact.publish(folder, {"kind": "espnet-model", "labels_hash": labels.hash}) as partial:
        write_espnet(partial, tagger, labels)


def write_espnet(folder: Path, tagger: Tagger, labels: LabelSet) -> None:
    """Writes `config.yaml` and `model.pth` into a folder.

    The `.pth` is the only pickle that beatline writes, because ESPnet reads nothing else. It holds tensors
    only.
    Source: the layout of ESPnet 202511's classification task.

    Raises:
        UserError: `bad-usage` for a tagger whose head is not linear.
    """
    if not isinstance(tagger.head, nn.Linear):
        raise UserError(
            "bad-usage",
            "ESPnet's form",
            "the model's head is not linear, and ESPnet's are",
            "fit a linear head: `beatline probe --head linear`",
        )
    released = to_release(tagger.state_dict(), tagger.config, "decoder.linear_out")
    state = {
        name if name.startswith("decoder.") else f"encoder.{name}": tensor.detach().cpu().contiguous()
        for name, tensor in released.items()
    }
    recipe = _recipe(tagger, labels)
    (folder / CONFIG).write_text(yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True))
    torch.save(state, folder / WEIGHTS)


def _recipe(tagger: Tagger, labels: LabelSet) -> dict[str, Any]:
    """The content of `config.yaml`, in ESPnet's order."""
    architecture = {
        name: value for name, value in to_dict(tagger.config).items() if not name.startswith("fbank_")
    }
    unused = ("frontend", "specaug", "normalize", "preencoder")
    return {
        "token_list": [espnet_token(name) for name in labels.names] + ["<unk>"],
        "token_type": "word",
        "use_preprocessor": True,  # without it ESPnet's own inference program fails
        "init": "xavier_normal",
        "input_size": 1,
        **{part: None for part in unused},
        **{f"{part}_conf": {} for part in unused},
        "encoder": "beats",
        "encoder_conf": {
            "beats_ckpt_path": None,
            "beats_config": architecture | {"activation_fn": "gelu"},
            "use_weighted_representation": False,
            "fbank_mean": tagger.config.fbank_mean,
            "fbank_std": tagger.config.fbank_std,
        },
        "decoder": "linear",
        "decoder_conf": {},
        "model": "espnet",
        "model_conf": {
            "classification_type": "multi-label" if tagger.task == "multi-label" else "multi-class",
            "mixup_probability": 0.0,
            "lsm_weight": 0.0,
        },
    }
