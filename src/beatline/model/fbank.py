"""waveform -> fbank: the Kaldi log-mel filter bank that BEATs was trained on, as a batched transform.

In: waveforms `(batch, samples)` float32 in [-1, 1] at 16 kHz. Out: fbank `(batch, frames, 128)` float32,
normalised. Pre-emphasis, window and Fourier transform are linear, so each frame is a product with a fixed 400
x 512 matrix. The matrix is made in float64. The product is closer to the exact value than a float32 FFT, and
exports without an FFT operator. On a CPU an FFT in float64 is closer still, and faster. Padding is left to
`model/tagger`.
"""

import math
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
import torch
from torch import Tensor

from beatline.model.cpu import on_cpu_in_float32, product
from beatline.model.geometry import FRAME_HOP, FRAME_SAMPLES, MELS, SAMPLE_RATE, frame_count

COMMON = 80  # samples, of which window and hop are multiples
FFT = 512
LOW_HZ = 20.0
HIGH_HZ = SAMPLE_RATE / 2
PRE_EMPHASIS = 0.97
FULL_SCALE = 2.0**15  # the features were made from 16-bit integers
FLOOR = float(np.finfo(np.float32).eps)


def _mel(hertz: np.ndarray | float) -> np.ndarray:
    return 1127.0 * np.log1p(np.asarray(hertz) / 700.0)


def mel_weights() -> np.ndarray:
    """Triangles on the mel scale, `(256 bins, 128 mels)` float64; the Nyquist bin has no weight and is left
    out.
    """
    edges = np.linspace(_mel(LOW_HZ), _mel(HIGH_HZ), MELS + 2)
    bins = _mel(np.arange(FFT // 2) * SAMPLE_RATE / FFT)[:, None]
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    return np.maximum(0.0, np.minimum(rising, falling))


def _window() -> np.ndarray:
    """Povey's window times the scale, `(400 samples,)` float64."""
    return (
        FULL_SCALE
        * (0.5 - 0.5 * np.cos(2 * math.pi * np.arange(FRAME_SAMPLES) / (FRAME_SAMPLES - 1))) ** 0.85
    )


def frame_to_spectrum() -> np.ndarray:
    """Scale, pre-emphasis, Povey window and Fourier transform as a matrix, `(400 samples, 256 cosines + 256
    sines)` float64.
    """
    emphasis = np.eye(FRAME_SAMPLES) - PRE_EMPHASIS * np.eye(FRAME_SAMPLES, k=1)
    emphasis[0, 0] -= PRE_EMPHASIS  # the first sample is its own predecessor
    angle = 2 * math.pi * np.outer(np.arange(FRAME_SAMPLES), np.arange(FFT // 2)) / FFT
    return (emphasis * _window()) @ np.hstack([np.cos(angle), np.sin(angle)])


@cache
@torch.inference_mode(False)  # what is kept must serve gradients too
def _matrices(device: torch.device) -> tuple[Tensor, Tensor]:
    return tuple(torch.from_numpy(m).to(device, torch.float32) for m in (frame_to_spectrum(), mel_weights()))  # type: ignore[return-value]


def log_mel(waveforms: Tensor) -> Tensor:
    """Raw log-mel energies `(batch, frames, 128)` of waveforms `(batch, samples)`, float32 whatever the
    autocast.

    Source: Kaldi's compute-fbank-feats with the options of the BEATs paper's release (no dither, DC removed
    per frame, Povey window, power).
    """
    return fbank(waveforms, 0.0, 0.5)


def fbank(waveforms: Tensor, mean: float, std: float) -> Tensor:
    """The normalised filter bank `(batch, frames, 128)` that the encoder takes: `(log_mel - mean) / (2
    std)`.
    """
    with torch.autocast(waveforms.device.type, enabled=False):
        if on_cpu_in_float32(waveforms) and not waveforms.requires_grad:
            return _on_cpu(waveforms, mean, std)
        spectrum_matrix, mel_weights = _matrices(waveforms.device)
        frames = waveforms.float().unfold(1, FRAME_SAMPLES, FRAME_HOP)
        frames = frames - frames.mean(dim=2, keepdim=True)
        cosines, sines = (frames @ spectrum_matrix).split(FFT // 2, dim=2)
        energies = (cosines.square() + sines.square()) @ mel_weights
        return (energies.clamp(min=FLOOR).log() - mean) / (2 * std)


@cache
@torch.inference_mode(False)
def _window_on_cpu() -> Tensor:
    return torch.from_numpy(_window()[1:].copy())


@cache
def _threads(count: int) -> ThreadPoolExecutor:
    """A pool of threads that each run their PyTorch operations alone."""
    pool = ThreadPoolExecutor(count, "fbank")
    all_here = threading.Barrier(count)

    def begin(_: int) -> None:
        torch.set_num_threads(1)
        all_here.wait()

    list(pool.map(begin, range(count)))
    torch.set_num_threads(count)  # for this thread, and for those that others begin
    return pool


os.register_at_fork(after_in_child=_threads.cache_clear)  # a fork has none of them


def _on_cpu(waveforms: Tensor, mean: float, std: float) -> Tensor:
    """The same by an FFT in float64, its squares in float32. It goes clip by clip, so that what lies between
    waveform and result stays in the cache.

    PyTorch's threads would share each of the dozen short operations of a clip, and sleep in between. Here
    each thread has clips of its own.
    """
    banks = waveforms.new_empty(len(waveforms), frame_count(waveforms.shape[1]), MELS)
    count = min(torch.get_num_threads(), len(waveforms))
    if count > 1:
        list(
            _threads(torch.get_num_threads()).map(
                _fill, waveforms.tensor_split(count), banks.tensor_split(count), [mean] * count, [std] * count
            )
        )
    else:
        _fill(waveforms, banks, mean, std)
    return banks


@torch.inference_mode()
def _fill(waveforms: Tensor, banks: Tensor, mean: float, std: float) -> None:
    """Writes the clips' filter banks, in the calling thread.

    Pre-emphasis comes before the frames' mean is taken off, once for each sample. Of a constant m it leaves
    (1 - PRE_EMPHASIS) m. The first sample of a frame, its own predecessor in Kaldi, is left out: Povey's
    window is zero there. Where a frame lies in the transform does not matter to its power.
    """
    mel_weights = _matrices(waveforms.device)[1].t()
    window = _window_on_cpu()
    frames = banks.shape[1]
    padded = torch.zeros(frames, FFT, dtype=torch.float64)
    spectrum = torch.empty(frames, FFT // 2 + 1, 2)
    power = torch.empty(frames, FFT // 2)
    for waveform, bank in zip(waveforms, banks, strict=True):
        exact = waveform.double()
        emphasised = torch.sub(exact[1:], exact[:-1], alpha=PRE_EMPHASIS)
        sums = (
            exact[: (frames - 1) * FRAME_HOP + FRAME_SAMPLES].view(-1, COMMON).sum(dim=1)
        )  # a frame is whole numbers of these
        constant = (
            sums.unfold(0, FRAME_SAMPLES // COMMON, FRAME_HOP // COMMON).sum(dim=1, keepdim=True)
            / FRAME_SAMPLES
        )
        torch.sub(
            emphasised.unfold(0, FRAME_SAMPLES - 1, FRAME_HOP),
            constant,
            alpha=1 - PRE_EMPHASIS,
            out=padded[:, : FRAME_SAMPLES - 1],
        )
        padded[:, : FRAME_SAMPLES - 1].mul_(window)
        squares = spectrum.copy_(torch.view_as_real(torch.fft.rfft(padded))).square_()
        torch.add(squares[:, : FFT // 2, 0], squares[:, : FFT // 2, 1], out=power)
        torch.log(product(power, mel_weights).clamp_(min=FLOOR), out=bank).sub_(mean).div_(2 * std)
