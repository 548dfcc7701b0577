"""The filter bank against Kaldi's own code."""

import os
import signal
from concurrent.futures import ThreadPoolExecutor

import kaldi_native_fbank as knf
import numpy as np
import pytest
import torch

from beatline.model.fbank import FFT, FLOOR, frame_to_spectrum, log_mel, mel_weights
from beatline.model.geometry import FRAME_HOP, FRAME_SAMPLES, MELS, frame_count


def kaldi(waveform: np.ndarray) -> np.ndarray:
    options = knf.FbankOptions()
    options.frame_opts.dither = 0.0
    options.frame_opts.samp_freq = 16_000
    options.frame_opts.window_type = "povey"
    options.frame_opts.snip_edges = True
    options.mel_opts.num_bins = MELS
    options.mel_opts.low_freq = 20.0
    options.mel_opts.high_freq = 0.0
    options.energy_floor = 0.0
    computer = knf.OnlineFbank(options)
    computer.accept_waveform(16_000, (waveform * 32768).tolist())
    computer.input_finished()
    return np.stack([computer.get_frame(i) for i in range(computer.num_frames_ready)])


@pytest.mark.parametrize("samples", [400, 3300, 48_123])
def test_equals_kaldi(samples):
    rng = np.random.default_rng(samples)
    tone = 0.3 * np.sin(2 * np.pi * 440 * np.arange(samples) / 16_000)
    waveform = (tone + 0.05 * rng.standard_normal(samples) + 0.1).astype(np.float32)
    ours = log_mel(torch.from_numpy(waveform)[None])[0].numpy()
    theirs = kaldi(waveform)
    assert ours.shape == theirs.shape == (frame_count(samples), MELS)
    exact = in_float64(waveform)
    assert (
        np.abs(ours - exact).max() < 1e-5
    )  # Kaldi's own float32 transform is up to 1e-3 from exact, in faint bins beside a loud tone
    assert np.abs(ours - theirs).max() < 2e-3 and np.quantile(np.abs(ours - theirs), 0.99) < 1e-4


def in_float64(waveform: np.ndarray) -> np.ndarray:
    frames = np.lib.stride_tricks.sliding_window_view(waveform.astype(np.float64), FRAME_SAMPLES)[::FRAME_HOP]
    spectrum = (frames - frames.mean(axis=1, keepdims=True)) @ frame_to_spectrum()
    power = spectrum[:, : FFT // 2] ** 2 + spectrum[:, FFT // 2 :] ** 2
    return np.log(np.maximum(power @ mel_weights(), FLOOR))


def test_the_way_of_a_cpu_and_the_way_of_a_graph_agree():
    waveforms = 0.1 * torch.randn(3, 16_000, generator=torch.Generator().manual_seed(0))
    tracked = waveforms.clone().requires_grad_()  # gradients take the plain formula
    assert (log_mel(tracked).detach() - log_mel(waveforms)).abs().max() < 2e-4


def test_silence_is_the_floor_and_short_clips_have_no_frame():
    assert torch.equal(log_mel(torch.zeros(1, 800)), torch.full((1, 3, MELS), FLOOR).log())
    assert frame_count(399) == 0 and frame_count(400) == 1 and frame_count(160_000) == 998


def test_stays_float32_under_autocast():
    waveform = torch.randn(1, 4000, generator=torch.Generator().manual_seed(0)) * 0.1
    with torch.autocast("cpu", torch.bfloat16):
        inside = log_mel(waveform)
    assert inside.dtype == torch.float32 and torch.equal(inside, log_mel(waveform))


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_threads_change_no_bit(two_threads):
    waveforms = 0.1 * torch.randn(5, 16_000, generator=torch.Generator().manual_seed(0))
    alone = torch.cat([log_mel(waveform[None]) for waveform in waveforms])
    with torch.inference_mode():
        assert torch.equal(log_mel(waveforms), alone)
    assert torch.equal(log_mel(waveforms), alone)
    assert torch.get_num_threads() == 2
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(torch.get_num_threads).result() == 2


def test_gradients_after_inference():
    with torch.inference_mode():
        log_mel(torch.zeros(1, 800))
    tracked = torch.randn(1, 800, requires_grad=True)
    log_mel(tracked).sum().backward()
    assert tracked.grad.abs().sum() > 0


def test_a_fork_makes_its_own_threads(two_threads):
    waveforms = torch.zeros(2, 800)
    log_mel(waveforms)
    child = os.fork()
    if child == 0:
        signal.alarm(20)  # without threads nothing would ever be filled
        log_mel(waveforms)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
