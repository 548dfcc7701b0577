"""The filter bank, 32 clips of 10 s in one call, against the loops over clips that users have: torchaudio's
Kaldi module and kaldi-native-fbank.

./bench.sh filter_bank        Also: its distance from Kaldi's definition in float64, and whether it exports to
                              ONNX. Its share of a step on a GPU is gpu_train's.
"""

import io
from collections.abc import Callable, Iterator

import harness
import models
import numpy as np
import peers
import torch

from beatline.model.fbank import FULL_SCALE, fbank
from beatline.model.geometry import MELS, SAMPLE_RATE

CLIPS = 32
FASTER = {"torchaudio": 2.0, "kaldi-native-fbank": 10.0}
EXACT = 1e-4
MEAN, STD = 15.41663, 6.55582  # of the released models

Bank = Callable[[torch.Tensor], torch.Tensor]


def torchaudio_loop(waveforms: torch.Tensor) -> torch.Tensor:
    """The normalised filter bank, clip by clip, as openbeats and ESPnet make it."""
    from torchaudio.compliance.kaldi import fbank

    banks = [
        fbank(
            FULL_SCALE * w[None],
            num_mel_bins=MELS,
            sample_frequency=SAMPLE_RATE,
            frame_length=25,
            frame_shift=10,
        )
        for w in waveforms
    ]
    return (torch.stack(banks) - MEAN) / (2 * STD)


def kaldi_native_loop(waveforms: torch.Tensor) -> torch.Tensor:
    """The same by kaldi-native-fbank."""
    import kaldi_native_fbank

    options = kaldi_native_fbank.FbankOptions()
    options.frame_opts.dither = 0.0
    options.mel_opts.num_bins = MELS
    banks = []
    for waveform in (FULL_SCALE * waveforms).numpy():
        bank = kaldi_native_fbank.OnlineFbank(options)
        bank.accept_waveform(SAMPLE_RATE, waveform)
        bank.input_finished()
        banks.append(np.stack([bank.get_frame(i) for i in range(bank.num_frames_ready)]))
    return (torch.from_numpy(np.stack(banks)) - MEAN) / (2 * STD)


PEERS: dict[str, Bank] = {"torchaudio": torchaudio_loop, "kaldi-native-fbank": kaldi_native_loop}


def onnx_difference(waveforms: torch.Tensor) -> float:
    """How far the exported graph, run by onnxruntime, is from the filter bank."""
    import onnxruntime

    class Bank(torch.nn.Module):
        def forward(self, waveforms: torch.Tensor) -> torch.Tensor:
            return fbank(waveforms, MEAN, STD)

    file = io.BytesIO()
    torch.onnx.export(Bank(), (waveforms,), dynamo=True, verbose=False).save(file)
    session = onnxruntime.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])
    (graph,) = session.run(None, {session.get_inputs()[0].name: waveforms.numpy()})
    return float(np.abs(graph - fbank(waveforms, MEAN, STD).numpy()).max())


@torch.no_grad()
def rows(options: harness.Options) -> Iterator[harness.Row]:
    """Speed against each peer, exactness, export."""
    waveforms = torch.from_numpy(models.waveforms(CLIPS, 1 if options.smoke else models.SECONDS))

    def ours() -> torch.Tensor:
        return fbank(waveforms, MEAN, STD)

    for name, peer in PEERS.items():
        if peers.available(name.replace("-", "_")):
            difference = float((ours() - peer(waveforms)).abs().max())
            what = f"{CLIPS} clips of {models.SECONDS} s at once, against the loop over {name}"
            yield harness.compare(
                f"filter_bank/{name}",
                what,
                ours,
                lambda peer=peer: peer(waveforms),
                options.pairs,
                harness.at_least(FASTER[name]),
                largest_difference=difference,
            )
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the profiler sees the calling thread alone
    shares = harness.profile(ours)
    torch.set_num_threads(threads)
    yield harness.state(
        "filter_bank/profile",
        "where the time of one thread goes: share of the FFTs, then of each operation",
        shares.get("_fft_r2c", 0.0),
        "",
        **shares,
    )
    if peers.available("torchaudio"):
        exact = torchaudio_loop(waveforms[:4].double())
        yield harness.state(
            "filter_bank/exact",
            "largest difference of a normalised value from Kaldi's definition in float64",
            float((ours()[:4] - exact).abs().max()),
            "",
            harness.at_most(EXACT),
        )
    if peers.available("onnxruntime", "onnxscript"):
        yield harness.state(
            "filter_bank/onnx",
            "exported to ONNX and run by onnxruntime: largest difference",
            onnx_difference(waveforms[:2]),
            "",
            harness.at_most(EXACT),
        )


if __name__ == "__main__":
    harness.main(rows, __doc__)
