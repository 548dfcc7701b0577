"""The runtime `onnx`: ONNX files, run by onnxruntime on a CPU, in float32 or with int8 weights."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from beatline.model.engines.base import NAMES, Precision
from beatline.model.engines.graphs import OPSET, Call, Runtime

if TYPE_CHECKING:
    from torch.export import ExportedProgram

    from beatline.model.tagger import Tagger

ONNX = "model.onnx"
INT8 = "model.int8.onnx"


def quiet_onnxruntime() -> None:
    """To be called before onnxruntime is imported. From 1.29 on it reports to its maker, with an identifier
    of this machine, unless this is set by then.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


def open_graph(file: Path, precision: Precision, threads: int) -> Call:
    """The graph in onnxruntime; its file says the precision."""
    quiet_onnxruntime()
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # busy waiting makes two threads slower than a single thread on a shared machine
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])

    def call(waveforms: np.ndarray, lengths: np.ndarray, names: tuple[str, ...]) -> list[np.ndarray]:
        found: list[np.ndarray] = session.run(names, {"waveforms": waveforms, "lengths": lengths})
        return found

    return call


def write_graph(program: "ExportedProgram", file: Path, facts: dict[str, str]) -> None:
    """Writes the program as ONNX, with the facts as its metadata."""
    import torch

    from beatline.model.engines.export import SHAPES, quiet

    with quiet(), torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        written = torch.onnx.export(
            program,
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            dynamic_shapes=SHAPES,
            input_names=list(SHAPES),
            output_names=list(NAMES),
        )
    assert written is not None
    model = written.model_proto
    for key, value in facts.items():
        model.metadata_props.add(key=key, value=value)
    file.write_bytes(model.SerializeToString())


def quantise(source: Path, target: Path, tagger: "Tagger") -> None:
    """int8 weights for every product of tokens with a weight; the filter bank, the convolution and the head
    stay float32.

    The weights take seven of the eight bits. On CPUs without VNNI onnxruntime adds two products of eight bits
    in sixteen, which overflow.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    from beatline.model.engines.export import quiet

    graph = onnx.load(source).graph
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    of_the_head = tagger.head.float32_weights()
    kept = [
        node.name
        for node in graph.node
        if node.op_type == "MatMul"
        and (shapes.get(node.input[1], (0, 0))[0] in (400, 256) or shapes.get(node.input[1]) in of_the_head)
    ]
    with quiet():
        quantize_dynamic(
            source,
            target,
            weight_type=QuantType.QInt8,
            per_channel=True,
            reduce_range=True,
            op_types_to_quantize=["MatMul"],
            nodes_to_exclude=kept,
        )


RUNTIME = Runtime(
    name="onnx",
    file=ONNX,
    write=write_graph,
    writers=("onnx", "onnxscript", "onnxruntime"),
    runner="onnxruntime",
    reads={"float32": (ONNX,), "int8": (INT8,)},
    open=open_graph,
)
