"""The floor under a cold start: read a model's weights, run one forward pass on a clip, print the best label.
No command line, no checks, plain PyTorch.

python benchmarks/bare_forward.py MODEL WAV        Run as a program by `start.py`.
"""

import json
import sys
from pathlib import Path

import safetensors.torch
import soundfile
import torch

from beatline.config import EncoderConfig
from beatline.model.tagger import Tagger


def main(folder: Path, wav: str) -> None:
    """Loads, scores, prints."""
    config = EncoderConfig(**json.loads((folder / "config.json").read_text())["encoder"])
    state = safetensors.torch.load_file(folder / "model.safetensors")
    with torch.device("meta"):
        tagger = Tagger(config, len(state["head.bias"]))
    tagger.load_state_dict(state, assign=True)
    waveform, _ = soundfile.read(wav, dtype="float32")
    with torch.no_grad():
        print(int(tagger.eval()(torch.from_numpy(waveform)[None]).argmax()))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
