"""A runtime that keeps PyTorch's program in a file of its own."""

from pathlib import Path

import numpy as np
import torch

from beatline.model.engines.graphs import Runtime


def write(program, file: Path, facts: dict[str, str]) -> None:
    torch.export.save(program, file.with_suffix(".pt2"))
    file.with_suffix(".pt2").rename(file)


def opened(file: Path, precision: str, threads: int):
    with open(file, "rb") as content:
        module = torch.export.load(content).module()

    def call(waveforms: np.ndarray, lengths: np.ndarray, names: tuple[str, ...]) -> list[np.ndarray]:
        with torch.no_grad():
            outputs = module(torch.from_numpy(waveforms), torch.from_numpy(lengths))
        return [output.numpy() for output in outputs[: len(names)]]

    return call


RUNTIME = Runtime(
    name="toy",
    file="model.toy",
    write=write,
    writers=(),
    runner="torch",
    reads={"float32": ("model.toy",)},
    open=opened,
)
