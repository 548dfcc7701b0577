"""The form `torch-export`: a program of PyTorch's own operators, which runs without beatline."""

import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from beatline.model.engines.base import Precision
from beatline.model.engines.graphs import Call, Runtime

if TYPE_CHECKING:
    from torch.export import ExportedProgram

PROGRAM = "model.pt2"


def write_program(program: "ExportedProgram", file: Path, facts: dict[str, str]) -> None:
    """Writes the program, with the facts beside it."""
    import torch

    written = io.BytesIO()  # PyTorch's own writer has no words for a full disk
    torch.export.save(program, written, extra_files=facts)
    file.write_bytes(written.getbuffer())


def open_program(file: Path, precision: Precision, threads: int) -> Call:
    """The program that was just written, for its check."""
    import torch

    from beatline.model.engines.export import quiet

    with quiet():
        program = torch.export.load(file).module()

    def call(waveforms: np.ndarray, lengths: np.ndarray, names: tuple[str, ...]) -> list[np.ndarray]:
        with torch.no_grad():
            outputs = program(torch.from_numpy(waveforms), torch.from_numpy(lengths))
        return [tensor.numpy() for tensor in outputs[: len(names)]]

    return call


RUNTIME = Runtime(
    name="torch-export",
    file=PROGRAM,
    write=write_program,
    writers=(),
    runner="torch",
    reads={"float32": (PROGRAM,)},
    open=open_program,
    step=1,
    trusted_only=True,
)
