"""Checkpoints in and out: beatline's own folders, the BEATs release, ESPnet, OpenBEATs.

In: a file or folder. Out: a `Loaded` model with its architecture, labels and where each came from. Strict
both ways: every tensor of a file is used or stands in `IGNORED`, every parameter is filled. Files from
elsewhere are untrusted: `weights_only=True`, a size rule, and one line that names what is wrong. The only
owner of `torch.load` and safetensors.
"""

import dataclasses
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Literal

import safetensors
import safetensors.torch
import torch
import yaml
from torch import Tensor, nn

from beatline.config import EncoderConfig, to_dict
from beatline.core import artefact
from beatline.core.errors import UserError
from beatline.core.labels import Label, LabelSet, audioset, espnet_token, from_espnet_tokens
from beatline.core.limits import LIMITS
from beatline.model.checkpoints.layout import config_from_shapes, correspondence, to_release
from beatline.model.tagger import Tagger
from beatline.model.tokenizer import Tokenizer

WEIGHTS, ABOUT, LABELS = "model.safetensors", "config.json", "labels.csv"

IGNORED = re.compile(
    r"patch_embedding_pad\..*|raw2fbank_pad\..*"  # OpenBEATs: frozen helpers that count padding
    r"|mask_emb|predictor_dropout\..*"  # pre-training only
    # tokenizer: training statistics
    r"|quantize\.cluster_size|quantize\.embedding\.(cluster_size|embed_avg|initted)"
)
HEADS = ("predictor", "decoder.linear_out", "classifier", "head", "output_layer", "decoder.output_layer")
UNSAID = {
    "deep_norm": False,
    "relative_position_embedding": False,
    "gru_rel_pos": False,
    "max_distance": 1280,
    "encoder_layerdrop": 0.0,
}
TASKS = {"multi-label": "multi-label", "multi-class": "single-label"}


@dataclass(frozen=True)
class Loaded:
    """A model read from disk, ready to become a `Tagger`.

    `state` has our tensor names (`encoder.*`, and `head.*` where there is a head); `family` says what the
    file was, `ignored` which of its tensors were left out on purpose.
    """

    source: Path
    family: str
    config: EncoderConfig
    state: dict[str, Tensor]
    labels: LabelSet | None = None
    task: Literal["multi-label", "single-label"] = "multi-label"
    padding: Literal["exact", "upstream"] = "exact"
    ignored: tuple[str, ...] = ()
    about: dict[str, Any] = field(default_factory=dict)

    def tagger(self, padding: Literal["exact", "upstream"] | None = None) -> Tagger:
        """The model in evaluation mode.

        Raises:
            UserError: `bad-checkpoint` where the file has no head.
        """
        if self.labels is None:
            raise _bad(
                self.source,
                f"a {self.family} checkpoint has no head to score with",
                "fine-tune it first (model.init), or give a fine-tuned checkpoint",
            )
        examples = self.state.get("head.examples", torch.empty(0))
        with torch.device("meta"):
            tagger = Tagger(
                self.config,
                len(self.labels),
                self.task,
                padding or self.padding,
                examples=len(examples) if examples.ndim else 0,
            )
        try:
            tagger.load_state_dict(self.state, assign=True)
        except RuntimeError as error:  # a folder of ours, but from a stranger
            raise _bad(self.source, "its tensors are not those of its configuration") from error
        return tagger.eval()

    def with_head(
        self, head: dict[str, Tensor], labels: LabelSet, task: Literal["multi-label", "single-label"]
    ) -> "Loaded":
        """The same encoder with another head, whose tensors are those of `Tagger.head`."""
        encoder = {name: tensor for name, tensor in self.state.items() if not name.startswith("head.")}
        return dataclasses.replace(
            self,
            state=encoder | {f"head.{name}": tensor for name, tensor in head.items()},
            labels=labels,
            task=task,
        )

    def ordered(self, labels: LabelSet) -> "Loaded":
        """The same model with its outputs in the order of these labels.

        Raises:
            UserError: `label-mismatch` where they are not the model's labels.
        """
        mine = self.labels.index_of_mid if self.labels else {}
        if tuple(mine) == labels.mids:
            return self
        different = sorted(set(mine) ^ set(labels.mids))
        linear = {"head.weight", "head.bias"} == {name for name in self.state if name.startswith("head.")}
        if different or not linear:
            cause = (
                f"{different[0]} is a label of one of them only"
                if different
                else "its labels are in another order, and its head is no linear one"
            )
            raise UserError(
                "label-mismatch",
                f"cannot use {self.source} for other labels than its own",
                cause,
                "prepare and train with the same label table",
            )
        order = [mine[mid] for mid in labels.mids]
        return self.with_head(
            {name: self.state[f"head.{name}"][order] for name in ("weight", "bias")}, labels, self.task
        )


def _bad(
    path: Path,
    cause: str,
    remedy: str = "give a checkpoint of the BEATs release, ESPnet, OpenBEATs or beatline",
) -> UserError:
    return UserError("bad-checkpoint", f"cannot load {path}", cause, remedy)


# ------------------------------------------------------------------ beatline's own folders


def save(folder: Path, tagger: Tagger, labels: LabelSet, about: dict[str, Any]) -> None:
    """Publishes a tagger as a folder: `model.safetensors`, `config.json`, `labels.csv`, `manifest.json`."""
    with artefact.publish(folder, {"kind": "model", "labels_hash": labels.hash}) as partial:
        write_model(partial, tagger.state_dict(), tagger, labels, about)


def write_model(
    folder: Path, state: dict[str, Tensor], tagger: Tagger, labels: LabelSet, about: dict[str, Any]
) -> None:
    """Writes a model's three files into a folder that is being published; `tagger` gives the settings,
    `state` the weights.
    """
    facts = {
        "encoder": to_dict(tagger.config),
        "task": tagger.task,
        "padding": tagger.padding,
        "labels_hash": labels.hash,
        "about": about,
    }
    if not isinstance(tagger.head, nn.Linear):
        facts["examples"] = len(tagger.head.examples)
    save_tensors(folder / WEIGHTS, state)
    (folder / ABOUT).write_text(json.dumps(facts, indent=1) + "\n")
    (folder / LABELS).write_text(labels.to_csv(), encoding="utf-8")


def save_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Writes tensors as safetensors, on the CPU and contiguous."""
    with artefact.disk_errors(path):
        path.write_bytes(
            safetensors.torch.save({name: t.detach().cpu().contiguous() for name, t in tensors.items()})
        )


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Reads safetensors, into memory of their own: what is mapped would change with the file, or kill the
    process where it is cut.

    Raises:
        UserError: `corrupt-artefact`.
    """
    try:
        return {name: tensor.clone() for name, tensor in safetensors.torch.load_file(path).items()}
    except (OSError, safetensors.SafetensorError) as error:
        raise UserError(
            "corrupt-artefact", f"cannot read {path}", str(error), "restore the file or make it again"
        ) from error


def _load_own(folder: Path) -> Loaded:
    artefact.verify(folder)
    labels = LabelSet.from_csv((folder / LABELS).read_text(encoding="utf-8"), str(folder / LABELS))
    try:
        facts = json.loads((folder / ABOUT).read_text())
        config, task, padding, about = (
            EncoderConfig(**facts["encoder"]),
            facts["task"],
            facts["padding"],
            facts["about"],
        )
        labels_hash = facts["labels_hash"]
    except (KeyError, TypeError, ValueError) as error:
        raise _bad(
            folder,
            f"its {ABOUT} is not of the form that beatline writes ({type(error).__name__}: {error})",
            "get the folder again from where it comes from",
        ) from error
    if labels.hash != labels_hash:
        raise UserError(
            "label-mismatch",
            f"cannot load {folder}",
            "labels.csv is not the table the model was trained with",
            "restore the folder",
        )
    return Loaded(
        folder, "beatline", config, load_tensors(folder / WEIGHTS), labels, task, padding, about=about
    )


# ------------------------------------------------------------------ pickles from elsewhere


def read_pickle(path: Path) -> Any:
    """What an untrusted PyTorch file holds: tensors and plain values only.

    Raises:
        UserError: `missing-file`, `empty-file`, `bad-checkpoint`.
    """
    if not path.is_file():
        raise UserError("missing-file", f"cannot load {path}", "no such file", "check the path")
    size = path.stat().st_size
    if size == 0:
        raise UserError("empty-file", f"cannot load {path}", "it has no bytes", "copy or download it again")
    if size > LIMITS.max_checkpoint_bytes:
        raise _bad(path, f"{size} bytes are more than the limit of {LIMITS.max_checkpoint_bytes}")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        reason = str(error)
        if "Unsupported global" in reason or "GLOBAL" in reason:
            raise _bad(
                path,
                "it holds Python objects besides tensors, which could run code",
                "ask its maker for a file of tensors only",
            ) from error
        raise _bad(
            path, "it is no PyTorch checkpoint, or a damaged one", "download it again and compare its SHA-256"
        ) from error
    except (
        Exception
    ) as error:  # torch.load raises whatever its unpickler and zip reader do; the user needs the file's name
        raise _bad(
            path,
            f"it is no PyTorch checkpoint, or a damaged one ({type(error).__name__})",
            "download it again and compare its SHA-256",
        ) from error


def _tensors(path: Path, value: Any) -> dict[str, Tensor]:
    if (
        not isinstance(value, dict)
        or not value
        or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in value.items())
    ):
        raise _bad(path, "it holds no table of named tensors")
    broken = [
        name
        for name, tensor in value.items()
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all())
    ]
    if broken:
        raise _bad(
            path,
            f"tensor {broken[0]} has values that are not finite",
            "download it again and compare its SHA-256",
        )
    return value


def _encoder_config(
    path: Path, given: dict[str, Any] | None, tensors: dict[str, Tensor], partial: bool = False
) -> EncoderConfig:
    """The architecture a checkpoint states, or the one its shapes show where it states none; `partial`: what
    it states are changes to that.
    """
    try:
        shown = config_from_shapes(tensors)
    except (KeyError, ValueError) as error:
        raise _bad(path, f"it is not a BEATs encoder ({error} is missing)") from error
    if given is None:
        return shown
    known = {f.name: f.type for f in dataclasses.fields(EncoderConfig)}
    if given.get("activation_fn", "gelu") != "gelu":
        raise _bad(path, f"activation {given['activation_fn']!r} is not supported")
    figures = {name: value for name, value in given.items() if name in known and value is not None}
    if not partial and (figures.get("embed_dim") is None or figures.get("encoder_layers") is None):
        raise _bad(path, "its configuration states no embed_dim and encoder_layers")
    try:
        config = dataclasses.replace(shown, **figures) if partial else EncoderConfig(**(UNSAID | figures))
    except (TypeError, UserError) as error:
        raise _bad(path, f"its configuration is not usable ({error})") from error
    if config.encoder_layers != shown.encoder_layers:
        raise _bad(
            path,
            f"its configuration says {config.encoder_layers} layers, its tensors are of "
            f"{shown.encoder_layers}",
        )
    return config


def _translate(
    path: Path, tensors: dict[str, Tensor], config: EncoderConfig
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Our encoder tensors out of the release's, and what was left over."""
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in Tagger(config, 1).state_dict().items()}
    state, left = {}, dict(tensors)
    for pair in correspondence(config):
        names = [name for name in pair.theirs if name in left] if pair.kind == "shared" else list(pair.theirs)
        missing = [name for name in names if name not in left] or ([] if names else [pair.theirs[0]])
        if missing:
            raise _bad(path, f"tensor {missing[0]} is missing")
        parts = [left.pop(name).float() for name in names]
        if pair.kind == "shared" and not all(torch.equal(parts[0], part) for part in parts[1:]):
            raise _bad(
                path,
                f"{names[0]} and its copies in other layers differ",
                "beatline has one position bias for all layers, as in the release",
            )
        if pair.kind == "stacked" and len({part.shape for part in parts}) > 1:
            raise _bad(path, f"{names[0]} and its neighbours differ in shape")
        tensor = pair.to_ours(parts)
        if tensor.shape != shapes[pair.ours]:
            raise _bad(
                path,
                f"{names[0]} gives shape {tuple(tensor.shape)} where the configuration needs "
                f"{tuple(shapes[pair.ours])}",
                "give the configuration that belongs to it",
            )
        state[pair.ours] = tensor.contiguous()
    return state, left


def _take_head(path: Path, left: dict[str, Tensor], width: int) -> dict[str, Tensor]:
    found = [head for head in HEADS if f"{head}.weight" in left]
    if not found:
        return {}
    if len(found) > 1 or f"{found[0]}.bias" not in left:
        raise _bad(path, f"its head is not one linear layer ({', '.join(found)})")
    weight, bias = left.pop(f"{found[0]}.weight").float(), left.pop(f"{found[0]}.bias").float()
    if weight.ndim != 2 or weight.shape[1] != width or bias.shape != weight.shape[:1]:
        raise _bad(path, f"its head has shape {tuple(weight.shape)} where the encoder gives {width}")
    return {"head.weight": weight, "head.bias": bias}


def _check_left(path: Path, left: dict[str, Tensor]) -> tuple[str, ...]:
    unknown = [name for name in left if not IGNORED.fullmatch(name)]
    if unknown:
        raise _bad(
            path,
            f"{len(unknown)} tensors have no place in the model, the first is {unknown[0]}",
            "tell us which model this is",
        )
    return tuple(left)


def _released_labels(path: Path, label_dict: Any, outputs: int) -> LabelSet:
    """The labels of a fine-tuned release checkpoint, in its own order, named by AudioSet's table."""
    try:
        mids = [str(label_dict[i]) for i in range(outputs)]
    except (KeyError, TypeError, IndexError) as error:
        raise _bad(path, f"its label_dict does not name all {outputs} outputs") from error
    known = audioset()
    return LabelSet(
        tuple(
            known.labels[known.index_of_mid[mid]] if mid in known.index_of_mid else Label(mid, mid)
            for mid in mids
        )
    )


def _load_release(path: Path, content: dict[str, Any]) -> Loaded:
    tensors = _tensors(path, content["model"])
    if "quantize.embedding.weight" in tensors:
        raise _bad(path, "it is a tokenizer", "give an encoder checkpoint; load_tokenizer reads this one")
    config = _encoder_config(path, content["cfg"], tensors)
    state, left = _translate(path, tensors, config)
    head = _take_head(path, left, config.encoder_embed_dim)
    ignored = _check_left(path, left)
    if not head:
        return Loaded(path, "BEATs release, pre-trained", config, state, ignored=ignored)
    labels = _released_labels(path, content.get("label_dict"), head["head.bias"].shape[0])
    return Loaded(path, "BEATs release, fine-tuned", config, state | head, labels, ignored=ignored)


def _load_espnet(path: Path, content: Any, recipe_file: Path, architecture: dict[str, Any] | None) -> Loaded:
    try:
        recipe = yaml.safe_load(recipe_file.read_text())
        conf, tokens = recipe.get("encoder_conf") or {}, recipe["token_list"]
        kind = (recipe.get("model_conf") or {}).get("classification_type", "multi-label")
    except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError, UnicodeDecodeError) as error:
        raise _bad(
            recipe_file,
            f"it is no ESPnet configuration with a token_list ({type(error).__name__})",
            "give the config.yaml that belongs to the .pth",
        ) from error
    if conf.get("use_weighted_representation"):
        raise _bad(recipe_file, "use_weighted_representation is not supported")
    if kind not in TASKS or not isinstance(tokens, list):
        raise _bad(recipe_file, f"classification_type {kind!r} is not supported")
    everything = _tensors(path, content)
    released = {
        name.removeprefix("encoder."): t for name, t in everything.items() if name.startswith("encoder.")
    }
    stated = conf.get("beats_config") or {}
    normalisation = {name: conf[name] for name in ("fbank_mean", "fbank_std") if name in conf}
    if architecture is not None:
        config = _encoder_config(path, architecture | stated | normalisation, released)
    else:
        config = _encoder_config(
            path, stated | normalisation, released, partial="encoder_layers" not in stated
        )
    state, left = _translate(path, released, config)
    left |= {name: tensor for name, tensor in everything.items() if not name.startswith("encoder.")}
    head = _take_head(path, left, config.encoder_embed_dim)
    ignored = _check_left(path, left)
    labels = from_espnet_tokens([str(token) for token in tokens])
    if not head or head["head.bias"].shape[0] != len(labels):
        outputs = head["head.bias"].shape[0] if head else 0
        raise UserError(
            "label-mismatch",
            f"cannot load {path}",
            f"its head has {outputs} outputs, {recipe_file.name} names {len(labels)} labels",
            "give the config.yaml that belongs to it",
        )
    return Loaded(path, "ESPnet", config, state | head, labels, TASKS[kind], ignored=ignored)  # type: ignore[arg-type]


def _find(path: Path) -> Path:
    """The one checkpoint file in a folder, or the file itself."""
    if path.is_dir():
        found = sorted(p for pattern in ("*.pth", "*.pt") for p in path.glob(pattern))
        if len(found) != 1:
            raise _bad(path, f"the folder holds {len(found)} .pt or .pth files", "name the file")
        return found[0]
    return path


def load_checkpoint(path: Path | str, architecture: Path | str | None = None) -> Loaded:
    """Reads a model of any supported family, told apart by content.

    Args:
        path: A beatline model, checkpoint or run folder; a `.pt` of the BEATs release or OpenBEATs; a `.pth`
            with `config.yaml` beside it (ESPnet), or the folder of either.
        architecture: For fine-tuned OpenBEATs, whose architecture is elsewhere: the base model's
            `config.yaml` (with `beats_config`) or `.pt`.

    Raises:
        UserError: `missing-file`, `empty-file`, `bad-checkpoint`, `label-mismatch`, `corrupt-artefact`.
    """
    path = Path(path)
    for own in (path, path / "model", *([path.parent] if path.name == WEIGHTS else [])):
        if (own / artefact.MANIFEST).exists() and (own / ABOUT).exists():
            return _load_own(own)
    file = _find(path)
    if file.suffix == ".safetensors":
        raise _bad(file, "a .safetensors file alone has no configuration", "give the folder it belongs to")
    content = read_pickle(file)
    if isinstance(content, dict) and {"cfg", "model"} <= set(content) and isinstance(content["cfg"], dict):
        return _load_release(file, content)
    recipe = file.with_name("config.yaml")
    if not recipe.exists():
        raise _bad(file, "it is neither of the BEATs release nor has it an ESPnet config.yaml beside it")
    return _load_espnet(
        file, content, recipe, _read_architecture(Path(architecture)) if architecture else None
    )


def _read_architecture(path: Path) -> dict[str, Any]:
    if path.suffix == ".pt":
        return read_pickle(path)["cfg"]
    try:
        return yaml.safe_load(path.read_text())["encoder_conf"]["beats_config"]
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise _bad(
            path, "it has no encoder_conf.beats_config", "give the base repository's config.yaml"
        ) from error


def load_tokenizer(path: Path | str, padding: Literal["exact", "upstream"] = "exact") -> Tokenizer:
    """Reads a tokenizer checkpoint of the BEATs release.

    Raises:
        UserError: As `load_checkpoint`.
    """
    path = Path(path)
    content = read_pickle(path)
    if not isinstance(content, dict) or "quantize.embedding.weight" not in content.get("model", {}):
        raise _bad(path, "it is not a tokenizer of the BEATs release")
    tensors = _tensors(path, content["model"])
    config = _encoder_config(path, content["cfg"], tensors)
    state, left = _translate(path, tensors, config)
    state["codebook.weight"] = left.pop("quantize.embedding.weight")
    for name in [name for name in left if name.startswith("quantize_layer.")]:
        state[name] = left.pop(name)
    _check_left(path, left)
    codes, width = state["codebook.weight"].shape
    tokenizer = Tokenizer(config, codes, width, padding)
    tokenizer.load_state_dict(state)
    return tokenizer.eval()


# ------------------------------------------------------------------ export


def export_espnet(folder: Path, tagger: Tagger, labels: LabelSet) -> None:
    """Publishes a tagger as ESPnet's own classes load it, see `write_espnet`."""
    with artefact.publish(folder, {"kind": "espnet-model", "labels_hash": labels.hash}) as partial:
        write_espnet(partial, tagger, labels)


def write_espnet(folder: Path, tagger: Tagger, labels: LabelSet) -> None:
    """Writes `config.yaml` and `model.pth`, which ESPnet's own classes load, into a folder.

    The `.pth` is the one pickle beatline writes, because ESPnet reads nothing else; it holds tensors only.
    Source: layout of ESPnet 202511's classification task.

    Raises:
        UserError: `bad-usage` for a tagger whose head is not linear.
    """
    if not isinstance(tagger.head, nn.Linear):
        raise UserError(
            "bad-usage",
            "ESPnet's form",
            "the model's head is made of examples, and ESPnet's are linear",
            "fit a linear one: `beatline probe --head linear`",
        )
    released = to_release(tagger.state_dict(), tagger.config, "decoder.linear_out")
    state = {
        name if name.startswith("decoder.") else f"encoder.{name}": tensor.detach().cpu().contiguous()
        for name, tensor in released.items()
    }
    architecture = {
        name: value for name, value in to_dict(tagger.config).items() if not name.startswith("fbank_")
    } | {"activation_fn": "gelu"}
    recipe = {
        "token_list": [espnet_token(name) for name in labels.names] + ["<unk>"],
        "token_type": "word",
        "use_preprocessor": True,  # without it ESPnet's own inference program fails
        "init": "xavier_normal",
        "input_size": 1,
        **{part: None for part in ("frontend", "specaug", "normalize", "preencoder")},
        **{f"{part}_conf": {} for part in ("frontend", "specaug", "normalize", "preencoder")},
        "encoder": "beats",
        "encoder_conf": {
            "beats_ckpt_path": None,
            "beats_config": architecture,
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
    (folder / "config.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True))
    torch.save(state, folder / "model.pth")
