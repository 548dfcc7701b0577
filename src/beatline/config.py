"""Every setting of a run: frozen dataclasses, their checks, and YAML in and out.

Outside the straight line: each room takes the dataclass that bears its name. A YAML file holds only what
differs from the defaults here; `jsonargparse` turns the same dataclasses into `--help`, dotted overrides
(`--optim.lr 1e-4`) and errors that name the nearest key.
"""

import ast
import dataclasses
import difflib
import inspect
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from beatline.core.errors import UserError


def _check(condition: bool, name: str, cause: str) -> None:
    if not condition:
        raise UserError(
            "bad-config", f"setting {name}", cause, "correct it in the YAML file or on the command line"
        )


def _fraction(value: float, name: str) -> None:
    _check(0.0 <= value <= 1.0, name, f"{value} is not between 0 and 1")


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """The architecture of a BEATs encoder; the field names are those of the released checkpoints' `cfg`.
    Defaults: Base.
    """

    input_patch_size: int = 16
    """Side of a patch, frames and mels; 16, on which windows, steps and events stand."""
    embed_dim: int = 512
    """Width of a patch embedding, at least 1."""
    conv_bias: bool = False
    """Whether the patch convolution has a bias."""
    encoder_layers: int = 12
    """Transformer layers, at least 1."""
    encoder_embed_dim: int = 768
    """Width of a token, a multiple of the number of heads and of conv_pos_groups."""
    encoder_ffn_embed_dim: int = 3072
    """Width of the feed-forward part, at least 1."""
    encoder_attention_heads: int = 12
    """Attention heads, at least 1."""
    layer_norm_first: bool = False
    """Pre-norm (True) or post-norm (False, the released models)."""
    deep_norm: bool = True
    """DeepNorm's residual scale (2 layers)^(1/4); post-norm only."""
    conv_pos: int = 128
    """Kernel of the convolutional position, tokens, at least 1."""
    conv_pos_groups: int = 16
    """Groups of the convolutional position, at least 1."""
    relative_position_embedding: bool = True
    """Whether attention has a relative position bias."""
    num_buckets: int = 320
    """Buckets of relative distance, both signs together, even."""
    max_distance: int = 800
    """Distance in tokens from which on all share the last bucket."""
    gru_rel_pos: bool = True
    """Whether the bias is gated by the query."""
    dropout: float = 0.1
    """Dropout after attention, feed-forward and the position convolution, 0 to 1."""
    attention_dropout: float = 0.1
    """Dropout on attention weights, 0 to 1."""
    activation_dropout: float = 0.0
    """Dropout inside the feed-forward part, 0 to 1."""
    dropout_input: float = 0.0
    """Dropout on the projected patch embeddings, 0 to 1."""
    encoder_layerdrop: float = 0.05
    """Probability that training skips a layer, 0 to 1."""
    layer_wise_gradient_decay_ratio: float = 1.0
    """Factor on the gradient at each layer's input, above 0 up to 1."""
    fbank_mean: float = 15.41663
    """Mean subtracted from the log-mel energies."""
    fbank_std: float = 6.55582
    """They are then divided by twice this."""

    def __post_init__(self) -> None:
        for name in (
            "embed_dim",
            "encoder_layers",
            "encoder_embed_dim",
            "encoder_ffn_embed_dim",
            "encoder_attention_heads",
            "conv_pos",
            "conv_pos_groups",
        ):
            _check(getattr(self, name) >= 1, name, "must be at least 1")
        _check(
            self.input_patch_size == 16,
            "input_patch_size",
            f"{self.input_patch_size} is not 16, as all released checkpoints have it",
        )
        _check(
            self.encoder_embed_dim % self.encoder_attention_heads == 0,
            "encoder_embed_dim",
            "not a multiple of encoder_attention_heads",
        )
        _check(
            self.encoder_embed_dim % self.conv_pos_groups == 0,
            "encoder_embed_dim",
            "not a multiple of conv_pos_groups",
        )
        _check(
            self.num_buckets >= 4 and self.num_buckets % 2 == 0, "num_buckets", "must be even and at least 4"
        )
        _check(
            self.max_distance > self.num_buckets // 4, "max_distance", "must exceed a quarter of num_buckets"
        )
        for name in (
            "dropout",
            "attention_dropout",
            "activation_dropout",
            "dropout_input",
            "encoder_layerdrop",
        ):
            _fraction(getattr(self, name), name)
        _check(
            0.0 < self.layer_wise_gradient_decay_ratio <= 1.0,
            "layer_wise_gradient_decay_ratio",
            "must be above 0 and at most 1",
        )
        _check(self.fbank_std > 0, "fbank_std", "must be above 0")


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which recordings, labels and splits; one of audioset, dataset, kaldi, csv, folder."""

    audioset: Path | None = None
    """Folder with AudioSet's audio in any layout: files named by id, tar, Parquet, HDF5, lists of files."""
    audioset_csv: Path | None = None
    """Folder of the official tables; looked for below the audioset folder when left out."""
    audioset_train: tuple[str, ...] = ("balanced",)
    """Tables of train: `balanced`, `unbalanced`, `strong`, or CSVs of their form; AS-2M is the first two."""
    audioset_eval: str = "eval"
    """Table of test: `eval`, `strong-eval`, or the name or path of a CSV of the same form."""
    dataset: (
        Literal["esc50", "fsd50k", "urbansound8k", "speech-commands-v1", "speech-commands-v2", "vggsound"]
        | None
    ) = None
    """A data set with its official splits, whose local copy is in root."""
    root: Path | None = None
    """Folder of the data set's local copy, as its publisher packs it."""
    fold: int | None = None
    """Fold held out for test: 1 to 5 of ESC-50, 1 to 10 of UrbanSound8K."""
    kaldi: Path | None = None
    """Folder with `train`, `val` and `test` folders of `wav.scp` and `text`."""
    csv: Path | None = None
    """Table `file,labels`, optionally `split,id,recording,start,end`; `mini` is the embedded data set."""
    folder: Path | None = None
    """Folder with one folder per class, or `<split>/<class>` folders."""
    labels: Path | None = None
    """Label table `mid,display_name`; found beside the data or derived from it when left out."""
    validation: Literal["given", "clean", "inside-eval"] = "given"
    """Validation split: the data's own, a stratified part of train, or the first tenth of AudioSet's eval."""
    validation_list: Path | None = None
    """List of validation clips: ids of clips or recordings, one a line; only with validation `given`."""
    validation_fraction: float = 0.1
    """Share of train that a clean validation split takes, 0 to 1."""
    test_fraction: float = 0.2
    """Share of clips held out for test where the data has no splits, 0 to 1."""
    split_seed: int = 0
    """Seed of the splits made here."""
    min_seconds: float = 0.1
    """Shorter training and validation clips are rejected, seconds."""
    max_seconds: float = 12.0
    """Longest training or validation clip, and window of longer test clips, seconds."""
    strict: bool = False
    """Whether a rejected input is an error (exit code 3), once everything else is prepared."""

    def __post_init__(self) -> None:
        sources = [
            name
            for name in ("audioset", "dataset", "kaldi", "csv", "folder")
            if getattr(self, name) is not None
        ]
        _check(len(sources) <= 1, "data", f"{' and '.join(sources)} are given, but a run has one source")
        _check(len(self.audioset_train) > 0, "data.audioset_train", "must name at least one table")
        _check(
            self.dataset is not None or (self.root is None and self.fold is None),
            "data.dataset",
            "root and fold are given, but no dataset",
        )
        _check(
            self.validation_list is None or self.validation == "given",
            "data.validation_list",
            "cannot be combined with validation clean or inside-eval",
        )

        _fraction(self.validation_fraction, "data.validation_fraction")
        _fraction(self.test_fraction, "data.test_fraction")
        _check(
            0.0 <= self.min_seconds < self.max_seconds,
            "data.min_seconds",
            "must be at least 0 and below max_seconds",
        )


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The tagger: where its encoder comes from and how it is trained."""

    init: Path | None = None
    """Checkpoint to start from: a file, a folder or a known name; random weights when left out."""
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    """Architecture for random weights; a checkpoint brings its own."""
    task: Literal["multi-label", "single-label"] = "multi-label"
    """Sigmoid and binary cross-entropy, or softmax and cross-entropy."""
    padding: Literal["exact", "upstream"] = "exact"
    """Which tokens count as padding: `exact` equals the clip alone, `upstream` is the release's rule."""
    gradient_decay: Literal["release", "espnet-cut"] = "release"
    """How a decay ratio below 1 works: scaled at each layer's input, or cut there as in ESPnet 202511."""
    gradient_decay_ratio: float | None = None
    """Overrides the checkpoint's layer_wise_gradient_decay_ratio, above 0 up to 1."""
    dropout: float | None = None
    """Overrides the checkpoint's dropout, 0 to 1."""
    layerdrop: float | None = None
    """Overrides the checkpoint's encoder_layerdrop, 0 to 1."""

    def __post_init__(self) -> None:
        if self.dropout is not None:
            _fraction(self.dropout, "model.dropout")
        if self.layerdrop is not None:
            _fraction(self.layerdrop, "model.layerdrop")
        _check(
            self.gradient_decay_ratio is None or 0 < self.gradient_decay_ratio <= 1,
            "model.gradient_decay_ratio",
            "must be above 0 and at most 1",
        )

    def apply(self, encoder: EncoderConfig) -> EncoderConfig:
        """The encoder's configuration with this run's overrides."""
        wanted: dict[str, Any] = {
            "layer_wise_gradient_decay_ratio": self.gradient_decay_ratio,
            "dropout": self.dropout,
            "encoder_layerdrop": self.layerdrop,
        }
        return dataclasses.replace(
            encoder, **{name: value for name, value in wanted.items() if value is not None}
        )


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """What training does to a clip: the augmentations and their settings."""

    order: tuple[str, ...] = ("mixup", "gain", "roll", "time_warp", "time_masks", "mel_masks")
    """Augmentations by name, in the order they are applied; those of waveforms before those of fbanks."""
    more: dict[str, Any] = field(default_factory=dict)
    """Settings of augmentations that have none here, by the augmentation's name."""
    mixup_probability: float = 0.8
    """Share of clips that are mixed with another of their batch, 0 to 1."""
    mixup_alpha: float = 0.8
    """Both parameters of the Beta distribution of the mixing weight, above 0."""
    roll: bool = True
    """Whether each clip is shifted circularly within its length."""
    roll_step: float = 0.0
    """Shifts are multiples of this, seconds; 0 allows any."""
    time_warp: int = 5
    """Window of the time warp, frames; 0 is off."""
    time_masks: int = 1
    """Time masks per clip, 0 or more."""
    time_mask_fraction: float = 0.059
    """Longest time mask as a share of the frames, 0 to 1."""
    mel_masks: int = 0
    """Frequency masks per clip, 0 or more (the recipe has none)."""
    mel_mask_bins: int = 24
    """Longest frequency mask, mels, 0 to 128."""
    gain: float = 0.0
    """Largest random change of level up or down, dB; 0 is off."""

    def __post_init__(self) -> None:
        _fraction(self.mixup_probability, "augment.mixup_probability")
        _check(self.mixup_alpha > 0, "augment.mixup_alpha", "must be above 0")
        _fraction(self.time_mask_fraction, "augment.time_mask_fraction")
        _check(0 <= self.mel_mask_bins <= 128, "augment.mel_mask_bins", "must be between 0 and 128")
        for name in ("roll_step", "time_warp", "time_masks", "mel_masks", "gain"):
            _check(getattr(self, name) >= 0, f"augment.{name}", "must not be negative")


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """AdamW and its learning rate, a pure function of the step: linear warm-up, cosine, restart."""

    lr: float = 3e-5
    """Highest learning rate, above 0."""
    min_lr: float = 5e-6
    """Learning rate at the start and the end of a cycle, 0 to lr."""
    warmup_steps: int = 8000
    """Steps of linear warm-up in each cycle, 0 or more."""
    cycle_steps: int = 80_000
    """Steps of a cycle, above warmup_steps; 0 makes it the whole training."""
    weight_decay: float = 0.01
    """AdamW's decay, on every parameter, 0 or more."""
    betas: tuple[float, float] = (0.9, 0.98)
    """AdamW's moment decays, each 0 to 1."""
    eps: float = 1e-8
    """AdamW's epsilon, above 0."""
    clip_norm: float = 1.0
    """Largest global gradient norm, above 0."""
    rates: dict[str, float] = field(default_factory=dict)
    """Factors on the learning rate by begins of parameters' names, as `{head: 10, encoder.layers.0: 0.1}`."""

    def __post_init__(self) -> None:
        _check(
            self.lr > 0 and 0 <= self.min_lr <= self.lr, "optim.lr", "must be above 0 and not below min_lr"
        )
        _check(self.warmup_steps >= 0, "optim.warmup_steps", "must not be negative")
        _check(
            self.cycle_steps == 0 or self.cycle_steps > self.warmup_steps,
            "optim.cycle_steps",
            "must exceed warmup_steps",
        )
        _check(
            self.weight_decay >= 0 and self.eps > 0 and self.clip_norm > 0,
            "optim",
            "weight_decay must not be negative; eps and clip_norm must be above 0",
        )
        for begin, factor in self.rates.items():
            _check(factor >= 0, "optim.rates", f"the factor of {begin} must not be negative")
        for beta in self.betas:
            _check(0 <= beta < 1, "optim.betas", f"{beta} is not in [0, 1)")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The training loop."""

    objective: str = "clips"
    """What is trained towards: `clips`, the labels of whole clips."""
    epochs: int = 160
    """Passes over the training clips, at least 1."""
    batch: int = 40
    """Clips of one step, all processes together, at least 1."""
    fold_seconds: float = 0.0
    """ESPnet's folded batches: `batch` is divided by 1 + floor(longest clip / this), seconds; 0 is off."""
    order: Literal["fresh", "fixed-batches"] = "fresh"
    """Shuffle clips each epoch, or make batches once by length and shuffle only these, as ESPnet does."""
    accumulate: int = 1
    """Microsteps a step is cut into, at least 1."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Arithmetic of the encoder; filter bank, softmax, loss and weights stay float32."""
    recompute: bool = False
    """Whether each layer is computed again for its gradients: less memory, more time, the same bits."""
    compile: bool = False
    """Whether each layer goes through torch.compile, which takes minutes at the start; meant for a GPU."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute; auto takes a GPU if there is one."""
    workers: int = 2
    """Threads that read batches ahead; changes nothing but speed, 0 or more."""
    seed: int = 0
    """Seed of initial weights, order, augmentation and dropout."""
    validate_every: int = 1
    """Epochs between validations, at least 1."""
    save_every: int = 1000
    """Steps between checkpoints inside an epoch, at least 1; each epoch ends with one."""
    average: int = 0
    """Average the weights of this many last epochs into the model; 0 takes the best on validation."""

    def __post_init__(self) -> None:
        for name in ("epochs", "batch", "accumulate", "validate_every", "save_every"):
            _check(getattr(self, name) >= 1, f"train.{name}", "must be at least 1")
        _check(
            self.workers >= 0 and self.average >= 0 and self.fold_seconds >= 0,
            "train",
            "workers, average and fold_seconds must not be negative",
        )


@dataclass(frozen=True, kw_only=True)
class ScoreConfig:
    """Scoring."""

    resamples: int = 1000
    """Bootstrap resamples of the test clips behind each interval, 0 or more."""
    baseline: bool = False
    """Whether a classical baseline is fitted on the train clips and scored beside the model."""

    def __post_init__(self) -> None:
        _check(self.resamples >= 0, "score.resamples", "must not be negative")


@dataclass(frozen=True, kw_only=True)
class Config:
    """One run: prepare, train, predict, score, report."""

    out: Path = Path("runs/run")
    """Folder of the run; made if missing."""
    store: Path | None = None
    """Folder of the prepared audio, shared between runs on the same data; `<out>/store` when left out."""
    data: DataConfig = field(default_factory=DataConfig)
    """Which recordings, labels and splits."""
    model: ModelConfig = field(default_factory=ModelConfig)
    """The tagger."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    """What training does to a clip."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    """AdamW and its learning rate."""
    train: TrainConfig = field(default_factory=TrainConfig)
    """The training loop."""
    score: ScoreConfig = field(default_factory=ScoreConfig)
    """Scoring."""

    @property
    def store_folder(self) -> Path:
        return self.store or self.out / "store"


def to_dict(config: Any) -> Any:
    """A configuration as plain JSON values."""
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        return {f.name: to_dict(getattr(config, f.name)) for f in dataclasses.fields(config)}
    if isinstance(config, tuple):
        return list(config)
    return str(config) if isinstance(config, Path) else config


def dump_yaml(config: Config) -> str:
    """The resolved configuration as YAML that `load` reads back."""
    import yaml

    return yaml.safe_dump(to_dict(config), sort_keys=False, allow_unicode=True)


def shipped() -> dict[str, Path]:
    """The configurations in the package, by name."""
    return {
        Path(str(f)).stem: Path(str(f))
        for f in (files("beatline") / "conf").iterdir()
        if f.name.endswith(".yaml")
    }


def find(name: str) -> Path:
    """The file of a configuration given as a path or as the name of a shipped one.

    Raises:
        UserError: `missing-file`, with the nearest name.
    """
    path, known = Path(name), shipped()
    if path.is_file():
        return path
    if (
        path.stem in known and path.suffix in ("", ".yaml") and str(path.parent) in (".", "conf")
    ):  # another folder is a path that is mistyped
        return known[path.stem]
    near = difflib.get_close_matches(path.stem, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"shipped are {', '.join(sorted(known))}"
    raise UserError(
        "missing-file", f"configuration {name}", "no such file, and none shipped has this name", hint
    )


def settings_parser(**options: Any) -> Any:
    """A parser with every setting as a dotted option; `options` go to it."""
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(exit_on_error=False, default_env=False, **options)
    parser.add_argument(
        "--settings", action="config", help="YAML file with settings that differ from the defaults"
    )
    parser.add_class_arguments(Config, nested_key=None)
    return parser


def settings_help(command: str) -> str:
    """Every setting with what its docstring here says, its type and its default."""
    parser, docs = settings_parser(prog=command), _docs()
    for action in parser._actions:
        action.help = docs.get(action.dest, action.help)
    for group in parser._action_groups:
        name = str(group.title).removesuffix("'>").split(".")[-1]
        group.title = {"Config": "the run"}.get(name, name.removesuffix("Config").lower())
    return parser.format_help().split("\n\n", 1)[1]


def _docs(kind: type = Config, prefix: str = "") -> dict[str, str]:
    """The docstring of every setting, by its dotted name."""
    found = {}
    body = ast.parse(inspect.getsource(kind)).body[0].body  # type: ignore[attr-defined]
    for node, after in pairwise(body):
        if (
            isinstance(node, ast.AnnAssign)
            and isinstance(after, ast.Expr)
            and isinstance(after.value, ast.Constant)
        ):
            found[f"{prefix}{node.target.id}"] = str(after.value.value).rstrip(".").replace("%", "%%")  # type: ignore[union-attr]
    for f in dataclasses.fields(kind):
        if dataclasses.is_dataclass(f.default_factory):
            found |= _docs(f.default_factory, f"{prefix}{f.name}.")  # type: ignore[arg-type]
    return found


def _keys(kind: type = Config, prefix: str = "") -> list[str]:
    names = []
    for f in dataclasses.fields(kind):
        nested = f.default_factory if f.default_factory is not dataclasses.MISSING else None
        names += (
            _keys(nested, f"{prefix}{f.name}.")
            if isinstance(nested, type) and dataclasses.is_dataclass(nested)
            else [prefix + f.name]
        )
    return names


def load(name: str | Path, overrides: Sequence[str] = ()) -> Config:
    """A configuration from a YAML file (or a shipped name) and dotted overrides like `--optim.lr`, `1e-4`.

    Raises:
        UserError: `bad-config` naming the setting and the nearest one there is; `missing-file`.
    """
    path = find(str(name))
    parsed = _parsed(settings_parser(), ["--settings", str(path), *overrides], f"configuration {path}")
    return Config(**{f.name: getattr(parsed, f.name) for f in dataclasses.fields(Config)})


def load_data(overrides: Sequence[str], **defaults: Any) -> DataConfig:
    """Settings of data alone, from dotted overrides like `--data.folder`, `DIR`.

    Args:
        defaults: Those that differ here.

    Raises:
        UserError: `bad-config`, as `load`.
    """
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(exit_on_error=False, default_env=False)
    parser.add_class_arguments(DataConfig, "data")
    parser.set_defaults({f"data.{name}": value for name, value in defaults.items()})
    return _parsed(parser, list(overrides), "settings of data").data


def _parsed(parser: Any, arguments: list[str], what: str) -> Any:
    """The arguments as the dataclasses they are of."""
    from jsonargparse import ArgumentError

    try:
        return parser.instantiate(parser.parse_args(arguments))
    except (ArgumentError, TypeError, ValueError) as error:
        cause = " ".join(str(error).split())
        names = {name for key in _keys() for name in (key, key.split(".")[-1])}
        words = re.findall(r"--([\w.]+)|'([\w.]+)'", cause)
        near = (
            []
            if "Expected" in cause
            else [match for pair in words for match in difflib.get_close_matches("".join(pair), names, n=1)]
        )
        raise UserError(
            "bad-config",
            what,
            cause,
            f"did you mean {near[0]}?" if near else "`beatline run --help` lists every setting",
        ) from error
