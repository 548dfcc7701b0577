"""Every setting of a run: frozen dataclasses and their checks.

`settings` makes them from YAML and the command line. `--help` prints the docstring below a field.
"""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from beatline.core.errors import UserError


def _check(condition: bool, name: str, cause: str) -> None:
    if not condition:
        raise UserError("bad-config", f"setting {name}", cause, "correct the YAML file or the command")


def _fraction(value: float, name: str) -> None:
    _check(0.0 <= value <= 1.0, name, f"{value} is not between 0 and 1")


def _not_below(least: int, settings: Any, prefix: str, *names: str) -> None:
    """Checks that these settings are 0, or 1, or more."""
    for name in names:
        cause = "must be at least 1" if least else "must not be negative"
        _check(getattr(settings, name) >= least, f"{prefix}{name}", cause)


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """Architecture of a BEATs encoder, by the field names of the released `cfg`. Defaults: Base."""

    input_patch_size: int = 16
    """Side of a patch, frames and mel bands; 16 is the only size."""
    embed_dim: int = 512
    """Width of a patch embedding, numbers, at least 1."""
    conv_bias: bool = False
    """Whether the patch convolution has a bias."""
    encoder_layers: int = 12
    """Transformer layers, at least 1."""
    encoder_embed_dim: int = 768
    """Width of a token, numbers, a multiple of encoder_attention_heads and of conv_pos_groups."""
    encoder_ffn_embed_dim: int = 3072
    """Width inside the feed-forward part of a layer, numbers, at least 1."""
    encoder_attention_heads: int = 12
    """Attention heads of a layer, at least 1."""
    layer_norm_first: bool = False
    """Whether layers normalise first (pre-norm); the released models do not."""
    deep_norm: bool = True
    """Whether residuals are scaled by (2 encoder_layers)^(1/4), as DeepNorm does; for post-norm only."""
    conv_pos: int = 128
    """Kernel of the convolution that encodes position, tokens, at least 1."""
    conv_pos_groups: int = 16
    """Groups of the convolution that encodes position, at least 1."""
    relative_position_embedding: bool = True
    """Whether attention has a relative position bias."""
    num_buckets: int = 320
    """Buckets of relative distance in the position bias, both signs together, even, at least 4."""
    max_distance: int = 800
    """Distance from which all share the last bucket of the position bias, tokens, above num_buckets / 4."""
    gru_rel_pos: bool = True
    """Whether the relative position bias is gated by the query."""
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
    """Factor on the gradient at the input of each layer, above 0 up to 1."""
    fbank_mean: float = 15.41663
    """Mean of log-mel energies, subtracted from them to normalise."""
    fbank_std: float = 6.55582
    """Deviation of log-mel energies, above 0; they are divided by twice this to normalise."""

    def __post_init__(self) -> None:
        _not_below(1, self, "", "embed_dim", "encoder_layers", "encoder_embed_dim", "encoder_ffn_embed_dim")
        _not_below(1, self, "", "encoder_attention_heads", "conv_pos", "conv_pos_groups")
        size = self.input_patch_size
        _check(size == 16, "input_patch_size", f"{size} is not 16, as all released checkpoints have it")
        for name in ("encoder_attention_heads", "conv_pos_groups"):
            is_multiple = self.encoder_embed_dim % getattr(self, name) == 0
            _check(is_multiple, "encoder_embed_dim", f"not a multiple of {name}")
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
    """Which recordings, labels and splits, from a single source: audioset, dataset, kaldi, csv or folder."""

    audioset: Path | None = None
    """Folder with AudioSet's audio in any layout: files named by id, tar, Parquet, HDF5, lists of files."""
    audioset_csv: Path | None = None
    """Folder of AudioSet's official tables; looked for below data.audioset when left out."""
    audioset_train: tuple[str, ...] = ("balanced",)
    """AudioSet's tables of train: `balanced`, `unbalanced`, `strong`, or CSVs of their form."""
    audioset_eval: str = "eval"
    """AudioSet's table of test: `eval`, `strong-eval`, or a CSV of the same form."""
    dataset: str | None = None
    """Name of a data set with official splits, whose local copy is in data.root."""
    root: Path | None = None
    """Folder with the local copy of data.dataset, as its publisher packs it."""
    fold: int | None = None
    """Fold held out for test: 1 to 5 of ESC-50, 1 to 10 of UrbanSound8K."""
    kaldi: Path | None = None
    """Kaldi data: folder with `train`, `val` and `test` folders of `wav.scp` and `text`."""
    csv: Path | None = None
    """Table `file,labels`, optionally `split,id,recording,start,end`; `mini` is the embedded table."""
    folder: Path | None = None
    """Folder with a folder for each class, or `<split>/<class>` folders."""
    labels: Path | None = None
    """Label table `mid,display_name`; found beside the data or derived from it when left out."""
    validation: Literal["given", "clean", "inside-eval"] = "given"
    """Validation split: the data's own, a stratified part of train, or the first tenth of AudioSet's eval."""
    validation_list: Path | None = None
    """List of validation clips: an id of a clip or recording a line; only with data.validation `given`."""
    validation_fraction: float = 0.1
    """Share of train that data.validation `clean` takes, 0 to 1."""
    test_fraction: float = 0.2
    """Share of clips held out for test where the data has no splits, 0 to 1."""
    split_seed: int = 0
    """Seed of splits that the data does not bring."""
    min_seconds: float = 0.1
    """Shortest training or validation clip, seconds, below data.max_seconds; shorter clips are rejected."""
    max_seconds: float = 12.0
    """Longest training or validation clip, and window of longer test clips, seconds."""
    unlabelled: bool = False
    """Whether clips without a label are kept: negatives of every label, or what a teacher alone knows."""
    strict: bool = False
    """Whether rejected inputs are an error (exit code 3), once everything else is prepared."""

    def __post_init__(self) -> None:
        kinds = ("audioset", "dataset", "kaldi", "csv", "folder")
        sources = [name for name in kinds if getattr(self, name) is not None]
        _check(
            len(sources) <= 1,
            "data",
            f"{' and '.join(sources)} are given, but a run has one source: set the others to null",
        )
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
            0.0 <= self.min_seconds < self.max_seconds, "data.min_seconds", "must be 0 to below max_seconds"
        )


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The tagger: where its encoder comes from and how it is trained."""

    init: Path | None = None
    """Checkpoint to start from: a file, a folder or a known name; random weights when left out."""
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    """Architecture for random weights; a checkpoint brings its own."""
    task: Literal["multi-label", "single-label"] = "multi-label"
    """Whether labels are independent (sigmoid) or exclude each other (softmax)."""
    head: str = "linear"
    """Head by name, a module in `model/heads`."""
    padding: Literal["exact", "upstream"] = "exact"
    """Which tokens are padding: as for the clip alone (`exact`), or by the release's rule (`upstream`)."""
    gradient_decay: Literal["release", "espnet-cut"] = "release"
    """How a decay ratio below 1 works: gradients are scaled (`release`), or cut as in ESPnet 202511."""
    gradient_decay_ratio: float | None = None
    """Factor on the gradient at the input of each layer, above 0 up to 1; the checkpoint's when left out."""
    dropout: float | None = None
    """Dropout after attention and feed-forward, 0 to 1; the checkpoint's when left out."""
    layerdrop: float | None = None
    """Probability that training skips a layer, 0 to 1; the checkpoint's when left out."""

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
    """Augmentations by name, in the order they are applied; waveforms come before fbanks."""
    more: dict[str, Any] = field(default_factory=dict)
    """Settings of augmentations that have no field here, by the augmentation's name."""
    mixup_probability: float = 0.8
    """Share of clips that are mixed with another of their batch, 0 to 1."""
    mixup_alpha: float = 0.8
    """Both parameters of the Beta distribution from which mixup draws its weight, above 0."""
    roll: bool = True
    """Whether a clip is shifted circularly within its length."""
    roll_step: float = 0.0
    """Step of circular shifts, seconds, 0 or more; 0 allows any shift."""
    time_warp: int = 5
    """Window of the time warp, frames, 0 or more; 0 is off."""
    time_masks: int = 1
    """Time masks of a clip, 0 or more."""
    time_mask_fraction: float = 0.059
    """Longest time mask as a share of the frames, 0 to 1."""
    mel_masks: int = 0
    """Frequency masks of a clip, 0 or more (the recipe has none)."""
    mel_mask_bins: int = 24
    """Widest frequency mask, mel bands, 0 to 128."""
    gain: float = 0.0
    """Largest random change of level, up or down, dB, 0 or more; 0 is off."""

    def __post_init__(self) -> None:
        _fraction(self.mixup_probability, "augment.mixup_probability")
        _check(self.mixup_alpha > 0, "augment.mixup_alpha", "must be above 0")
        _fraction(self.time_mask_fraction, "augment.time_mask_fraction")
        _check(0 <= self.mel_mask_bins <= 128, "augment.mel_mask_bins", "must be between 0 and 128")
        _not_below(0, self, "augment.", "roll_step", "time_warp", "time_masks", "mel_masks", "gain")


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """AdamW and its learning rate, a pure function of the step: linear warm-up, cosine, restart."""

    lr: float = 3e-5
    """Highest learning rate, above 0."""
    min_lr: float = 5e-6
    """Learning rate at the start and the end of a cycle, 0 to optim.lr."""
    warmup_steps: int = 8000
    """Length of the linear warm-up of each cycle, steps, 0 or more."""
    cycle_steps: int = 80_000
    """Length of a cycle of the learning rate, steps, above optim.warmup_steps; 0 is the whole training."""
    weight_decay: float = 0.01
    """Weight decay of AdamW, 0 or more."""
    decay_vectors: bool = True
    """Whether weight decay acts on parameters of one dimension too: biases, norms and gates."""
    betas: tuple[float, float] = (0.9, 0.98)
    """Decays of AdamW's two moments, each 0 or more and below 1."""
    eps: float = 1e-8
    """Epsilon of AdamW, above 0."""
    clip_norm: float = 1.0
    """Largest norm of all gradients together, above 0; gradients of a larger norm are scaled down."""
    rates: dict[str, float] = field(default_factory=dict)
    """Factors on the learning rate by begins of parameters' names, as `{head: 10, encoder.layers.0: 0.1}`."""

    def __post_init__(self) -> None:
        _check(
            self.lr > 0 and 0 <= self.min_lr <= self.lr, "optim.lr", "must be above 0 and not below min_lr"
        )
        _not_below(0, self, "optim.", "warmup_steps")
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
    """What is trained towards: `clips`, the labels of whole clips, or `teacher`, what another model says."""
    teacher: Path | None = None
    """What the objective `teacher` learns from: a teacher's table, or a model as model.init takes."""
    teacher_clips: float = 1.0
    """Weight of the loss of whole clips' scores, 0 or more."""
    teacher_patches: float = 0.5
    """Weight of the loss of patches' scores, 0 or more, where a teacher scores patches."""
    teacher_embeddings: float = 1.0
    """Weight of the error of the teacher's embeddings, 0 or more, where a teacher has them."""
    epochs: int = 160
    """Passes over the training clips, at least 1."""
    batch: int = 40
    """Clips of a step, all processes together, at least 1."""
    crop_seconds: float = 0.0
    """Length of the random crop of a clip that training takes, seconds, 0.2 or more; 0 is whole clips."""
    crop_epochs: int = 0
    """First epochs that take crops, whole clips come after them; 0 is all epochs."""
    crop_batch: int = 0
    """Clips of a step that takes crops, at least 1; 0 is train.batch."""
    balance: float = 0.0
    """Power of a clip's rarity by which an epoch draws it, 0 to 1; 0 takes each clip once."""
    fold_seconds: float = 0.0
    """Seconds by which ESPnet folds batches: train.batch / (1 + floor(longest clip / seconds)); 0 is off."""
    order: Literal["fresh", "fixed-batches"] = "fresh"
    """Whether each epoch shuffles clips, or batches made once by length, as ESPnet does."""
    accumulate: int = 1
    """Microsteps that a step is cut into to save memory, at least 1."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Arithmetic of the encoder; filter bank, softmax, loss and weights stay float32."""
    recompute: bool = False
    """Whether each layer is computed again for its gradients: less memory, more time, the same bits."""
    own_attention: bool = False
    """Whether attention is computed by beatline's own steps: faster on CPUs in bfloat16, other last bits."""
    compile: bool = False
    """Whether each layer goes through torch.compile, for a GPU; it takes minutes at the start."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute: `auto` takes a GPU where PyTorch finds any."""
    workers: int = 2
    """Threads that decode or read ahead, 0 or more; they change nothing but speed."""
    seed: int = 0
    """Seed of initial weights, order, augmentation and dropout."""
    validate_every: int = 1
    """Epochs from a validation to the next, at least 1."""
    save_every: int = 1000
    """Steps from a checkpoint to the next within an epoch, at least 1; each epoch ends with a checkpoint."""
    average: int = 0
    """Last epochs whose weights are averaged into the model, 0 or more; 0 takes the best on validation."""
    ema: float = 0.0
    """Decay of a running mean of the weights, which is validated and published, below 1; 0 is off."""

    def __post_init__(self) -> None:
        _not_below(1, self, "train.", "epochs", "batch", "accumulate", "validate_every", "save_every")
        _not_below(0, self, "train.", "workers", "average", "fold_seconds")
        _not_below(0, self, "train.", "teacher_clips", "teacher_patches", "teacher_embeddings")
        _not_below(0, self, "train.", "crop_epochs", "crop_batch")
        _check(
            self.crop_seconds == 0 or self.crop_seconds >= 0.2,
            "train.crop_seconds",
            "must be 0, or at least 0.2",
        )
        _fraction(self.balance, "train.balance")
        _check(
            self.balance == 0 or self.order == "fresh",
            "train.balance",
            "draws clips only where order is fresh",
        )
        _check(0 <= self.ema < 1, "train.ema", "must be at least 0 and below 1")


@dataclass(frozen=True, kw_only=True)
class ScoreConfig:
    """Figures of the test clips and their intervals."""

    resamples: int = 1000
    """Bootstrap resamples of the test clips for each interval, 0 or more."""
    baseline: bool = False
    """Whether a classical baseline is fitted on train and scored beside the model."""

    def __post_init__(self) -> None:
        _not_below(0, self, "score.", "resamples")


@dataclass(frozen=True, kw_only=True)
class Config:
    """One run: prepare, train, predict, score, report."""

    out: Path = Path("runs/run")
    """Folder of the run; made if missing."""
    store: Path | None = None
    """Folder of the prepared audio, which runs on the same data share; `<out>/store` when left out."""
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
    """Figures of the test clips and their intervals."""

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
