"""windows -> outputs: what every engine does, whatever runs the model.

In: windows of samples. Out: `Outputs`. The only way from windows to scores: `Engine.outputs` tiles, pads,
converts and groups them; a runtime gives `run_pass`. Imports no torch.
"""

import math
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Literal

import numpy as np

from beatline.audio.samples import to_waveform
from beatline.core.labels import LabelSet
from beatline.model.geometry import SAMPLE_RATE, tile_short

Precision = Literal["float32", "bfloat16", "int8"]

CLIPS_AT_ONCE = 4  # on a CPU: more do not fit its cache


@dataclass(frozen=True)
class Outputs:
    """What a tagger says of a batch of clips, float32."""

    scores: np.ndarray
    """`(batch, labels)` in [0, 1]."""
    logits: np.ndarray
    """`(batch, labels)`."""
    embeddings: np.ndarray
    """`(batch, width)`: the mean of a clip's tokens."""
    tokens: np.ndarray | None = None
    """`(batch, tokens, width)` where detail was asked for, `geometry.TOKENS_OF_A_STEP` for each time
    step; zero after a clip's last step.
    """
    step_logits: np.ndarray | None = None
    """`(batch, steps, labels)` where detail was asked for: what the head says of each time step alone. With a
    linear head the mean over a clip's steps is the clip's logits.
    """


NAMES = tuple(field.name for field in fields(Outputs))


class Engine(ABC):
    """A tagger ready to run; made by `load`. `outputs` is the only way from windows to scores.

    A pass takes at most `clips_at_once` clips and `seconds_at_once` of padded audio, but at least one clip.
    """

    name: str
    """`torch`, `onnx` or `openvino`."""
    labels: LabelSet
    """In the order of the scores."""
    task: str
    """`multi-label` or `single-label`."""
    clips_at_once: int = CLIPS_AT_ONCE
    """Clips of a pass at most, 1 or more."""
    seconds_at_once: float = math.inf
    """Padded audio of a pass at most, seconds."""
    readers: int = 0
    """Threads that begin to read recordings ahead of their turn; none where the model is slower than a
    single reader.
    """

    def __init__(self) -> None:
        self._one_at_a_time = (
            threading.Lock()
        )  # a pass takes every core, and not every runtime bears two passes at once

    def outputs(self, windows: Iterable[np.ndarray], detail: bool = False) -> Outputs:
        """What the tagger says of windows, a row for each, in their order; any thread may call it.

        Short windows are repeated (`geometry.tile_short`), windows of like length share a pass, longest
        first.

        Args:
            windows: Each `(samples,)` at 16 kHz, at least one sample: int16, or float32 in [-1, 1].
            detail: Also tokens and the logits of each time step.
        """
        clips = [tile_short(window) for window in windows]
        groups = self.grouped(np.array([len(clip) for clip in clips], np.int64))
        parts = [self.run(*_padded([clips[i] for i in group]), detail) for group in groups]
        return _joined(parts, groups)

    def grouped(self, lengths: np.ndarray) -> list[np.ndarray]:
        """Which clips share a pass: their indices, longest first.

        Args:
            lengths: Samples of each clip, `(clips,)`, each at least `geometry.MIN_SAMPLES`.
        """
        order = np.argsort(-lengths, kind="stable")
        groups: list[np.ndarray] = []
        begin = 0
        while begin < len(order):
            fitting = self.seconds_at_once * SAMPLE_RATE // int(lengths[order[begin]])
            size = int(max(1, min(self.clips_at_once, fitting)))
            groups.append(order[begin : begin + size])
            begin += size
        return groups

    def run(self, waveforms: np.ndarray, lengths: np.ndarray | None = None, detail: bool = False) -> Outputs:
        """What the tagger says of a batch that is padded already; any thread may call it.

        Args:
            waveforms: `(batch, samples)` float32 in [-1, 1], 16 kHz, zero after each clip's end; at least
                `geometry.MIN_SAMPLES` long.
            lengths: Samples of each clip, `(batch,)` int64, each at least `geometry.MIN_SAMPLES`; None when
                nothing is padded.
            detail: Also tokens and the logits of each time step.
        """
        whole = (
            np.full(len(waveforms), waveforms.shape[1], np.int64)
            if lengths is None
            else lengths.astype(np.int64)
        )
        size = self.clips_at_once
        names = NAMES if detail else NAMES[:3]
        with self._one_at_a_time:
            parts = [
                self.run_pass(waveforms[i : i + size], whole[i : i + size], names)
                for i in range(0, len(waveforms), size)
            ]
        return Outputs(*(np.concatenate(column) for column in zip(*parts, strict=True)))

    def scores(self, waveforms: np.ndarray, lengths: np.ndarray | None = None) -> np.ndarray:
        """`run`'s scores."""
        return self.run(waveforms, lengths).scores

    def logits(self, waveforms: np.ndarray, lengths: np.ndarray | None = None) -> np.ndarray:
        """`run`'s logits."""
        return self.run(waveforms, lengths).logits

    def score(self, logits: np.ndarray) -> np.ndarray:
        """Scores in [0, 1] of logits `(..., labels)`, as the model makes them."""
        return score(logits, self.task)

    @abstractmethod
    def run_pass(
        self, waveforms: np.ndarray, lengths: np.ndarray, names: tuple[str, ...]
    ) -> list[np.ndarray]:
        """The named outputs of at most `clips_at_once` clips."""


def _padded(clips: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Clips as a float32 batch `(clips, samples)`, zero after each end, and their lengths."""
    lengths = np.array([len(clip) for clip in clips], np.int64)
    waveforms = np.zeros((len(clips), lengths.max()), np.float32)
    for row, clip in zip(waveforms, clips, strict=True):
        row[: len(clip)] = to_waveform(clip) if clip.dtype == np.int16 else clip
    return waveforms, lengths


def _joined(parts: Sequence[Outputs], groups: Sequence[np.ndarray]) -> Outputs:
    """The outputs of all groups, each row at its clip's index; rows shorter than the longest end in zeros."""
    if len(parts) == 1 and np.array_equal(groups[0], np.arange(len(groups[0]))):
        return parts[0]
    columns: list[np.ndarray | None] = []
    for name in NAMES:
        arrays = [getattr(part, name) for part in parts]
        if not arrays or arrays[0] is None:
            columns.append(None)
            continue
        longest = max(array.shape[1] for array in arrays)
        column = np.zeros((sum(map(len, arrays)), longest, *arrays[0].shape[2:]), np.float32)
        for array, group in zip(arrays, groups, strict=True):
            column[group, : array.shape[1]] = array
        columns.append(column)
    return Outputs(*columns)  # type: ignore[arg-type]


def score(logits: np.ndarray, task: str) -> np.ndarray:
    """Scores in [0, 1] of logits `(..., labels)`, float32, for either task."""
    logits = logits.astype(np.float32)
    if task == "multi-label":
        return 1 / (1 + np.exp(-np.clip(logits, -80, 80)))
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)
