"""A tagger as transformers knows models: `AutoModelForAudioClassification`, `AutoFeatureExtractor` and the
pipeline, once this module is imported.

In: a folder that `publish` packed, or a repository that it pushed. Out: the same scores as `beatline.load`
gives for recordings no longer than a window. The library is the extra `transformers`; no other module of
beatline imports this module.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModelForAudioClassification,
    PreTrainedConfig,
    PreTrainedModel,
    SequenceFeatureExtractor,
)
from transformers.conversion_mapping import register_checkpoint_conversion_mapping
from transformers.core_model_loading import ConversionOps, WeightConverter
from transformers.feature_extraction_utils import BatchFeature
from transformers.modeling_outputs import SequenceClassifierOutput

from beatline.audio import media
from beatline.audio.samples import SAMPLE_RATE, to_waveform
from beatline.config import EncoderConfig
from beatline.core.errors import UserError
from beatline.model.geometry import tile_short
from beatline.model.heads import LINEAR, neighbours
from beatline.model.tagger import Tagger

__all__ = ["BeatlineConfig", "BeatlineFeatureExtractor", "BeatlineForAudioClassification"]


class BeatlineConfig(PreTrainedConfig):
    """A model folder's `config.json`."""

    model_type = "beatline"
    encoder: dict[str, Any] | None = None
    """Fields of `EncoderConfig`."""
    task: str = "multi-label"
    padding: str = "exact"
    examples: int = 0
    """Of a head of stored examples."""
    head: dict[str, Any] | None = None
    """Settings of a head of any other kind but linear."""


class BeatlineForAudioClassification(PreTrainedModel):
    """A `Tagger` that transformers loads, runs and trains."""

    config_class = BeatlineConfig
    base_model_prefix = "tagger"
    main_input_name = "input_values"

    def __init__(self, config: BeatlineConfig):
        super().__init__(config)
        self.tagger = Tagger(
            EncoderConfig(**(config.encoder or {})),
            config.num_labels,
            config.task,  # type: ignore[arg-type]
            config.padding,  # type: ignore[arg-type]
            head=config.head or (neighbours(config.examples) if config.examples else LINEAR),
        )
        self.post_init()

    def forward(
        self,
        input_values: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        **_: Any,
    ) -> SequenceClassifierOutput:
        """Logits `(batch, labels)` float32, and the loss where there are labels.

        Args:
            input_values: `(batch, samples)` in [-1, 1], 16 kHz, as `BeatlineFeatureExtractor` makes them.
            attention_mask: `(batch, samples)`, 1 up to each clip's end and 0 after it; None when nothing is
                padded.
            labels: Targets `(batch, labels)`; or label indices `(batch,)` if the configuration's
                `problem_type` is `single_label_classification`.
        """
        lengths = None if attention_mask is None else attention_mask.sum(dim=1)
        tagger = self.tagger
        samples = input_values.shape[1]
        fbank = tagger.fbank(input_values.float()).to(self.dtype)
        logits = tagger.from_fbank(fbank, tagger.is_padding(lengths, samples))
        loss = None
        if labels is not None:
            single = self.config.problem_type == "single_label_classification"
            loss = (
                F.cross_entropy(logits, labels)
                if single
                else F.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype))
            )
        return SequenceClassifierOutput(loss=loss, logits=logits)

    def _init_weights(self, module: Any) -> None:
        """Only a head of another size is ever new: zero, as any other value would be a choice."""
        if module is self.tagger.head and isinstance(module, torch.nn.Linear):
            torch.nn.init.zeros_(module.weight)
            torch.nn.init.zeros_(module.bias)


class BeatlineFeatureExtractor(SequenceFeatureExtractor):
    """Samples at any rate to what the model takes, by the same resampler and rounding as files."""

    model_input_names = ["input_values", "attention_mask"]  # noqa: RUF012

    def __init__(
        self,
        feature_size: int = 1,
        sampling_rate: int = SAMPLE_RATE,
        padding_value: float = 0.0,
        **others: Any,
    ):
        super().__init__(
            feature_size=feature_size, sampling_rate=sampling_rate, padding_value=padding_value, **others
        )

    def __call__(
        self,
        raw_speech: Any,
        sampling_rate: int | None = None,
        padding: Any = True,
        return_tensors: Any = None,
        **others: Any,
    ) -> BatchFeature:
        """`input_values` and `attention_mask`, both `(batch, samples)`.

        Args:
            raw_speech: The samples of a clip, or a list or array of several clips'.
            sampling_rate: Samples a second, Hz.
            padding: As `SequenceFeatureExtractor.pad`, like `others`.
            return_tensors: `pt` for the model.

        Raises:
            UserError: `not-audio` where the rate is not given; as `media.decode`.
        """
        if sampling_rate is None:
            raise UserError(
                "not-audio",
                "cannot use these samples",
                "their rate is not given",
                "give sampling_rate, in Hz",
            )
        several = np.ndim(raw_speech[0]) > 0 if len(raw_speech) else False
        clips = [self._clip(clip, sampling_rate) for clip in (raw_speech if several else [raw_speech])]
        return self.pad(
            BatchFeature({"input_values": clips}), padding=padding, return_tensors=return_tensors, **others
        )

    @staticmethod
    def _clip(samples: Any, rate: int) -> np.ndarray:
        decoded = media.decode((np.asarray(samples), rate), max_seconds=float("inf")).samples
        return to_waveform(tile_short(decoded))


class _SameTensor(ConversionOps):
    """A tensor under its own name again."""

    def convert(
        self, input_dict: dict[str, Any], source_patterns: list[str], target_patterns: list[str], **_: Any
    ) -> dict[str, Any]:
        (tensor,) = input_dict.values()
        return {target_patterns[0]: tensor}

    @property
    def reverse_op(self) -> "ConversionOps":
        return self


# transformers takes tensors called weight_g and weight_v for PyTorch's own weight norm of old, and renames
# them. In our model these are their names.
_RENAMED = (
    (".parametrizations.weight.original0", ".weight_g"),
    (".parametrizations.weight.original1", ".weight_v"),
)
register_checkpoint_conversion_mapping(
    "beatline", [WeightConverter(theirs, ours, [_SameTensor()]) for theirs, ours in _RENAMED], overwrite=True
)
AutoConfig.register("beatline", BeatlineConfig, exist_ok=True)
AutoModelForAudioClassification.register(BeatlineConfig, BeatlineForAudioClassification, exist_ok=True)
AutoFeatureExtractor.register(BeatlineConfig, BeatlineFeatureExtractor, exist_ok=True)
