"""The runtime `openvino`: OpenVINO's own files or ONNX, on a CPU, in float32 or bfloat16."""

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from beatline.core.errors import UserError
from beatline.model.engines.base import Precision
from beatline.model.engines.graphs import Call, Runtime
from beatline.model.engines.onnx import INT8, ONNX, write_graph

if TYPE_CHECKING:
    from torch.export import ExportedProgram

OPENVINO = "model.xml"


def open_graph(file: Path, precision: Precision, threads: int) -> Call:
    """The graph in OpenVINO."""
    import openvino

    core = openvino.Core()
    settings: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY"} | (
        {"INFERENCE_NUM_THREADS": threads} if threads else {}
    )

    def compiled(model: Any, hint: str) -> Any:
        return core.compile_model(model, "CPU", settings | {"INFERENCE_PRECISION_HINT": hint})

    model = core.read_model(str(file))
    bank = None
    # bfloat16 of a narrow convolution is wrong on CPUs with AMX
    narrow = any(
        node.get_type_name() == "GroupConvolution" and node.get_input_shape(1)[2] < 16
        for node in model.get_ops()
    )
    if precision == "bfloat16" and not narrow:
        # the filter bank would lose its faint bins: it becomes a graph of its own, in float32
        patches = next(node for node in model.get_ordered_ops() if node.get_type_name() == "Convolution")
        energies = patches.input_value(0)
        inputs = model.get_parameters()
        bank = compiled(openvino.Model([energies], inputs), "f32")
        given = openvino.op.Parameter(openvino.Type.f32, energies.partial_shape)
        patches.input(0).replace_source_output(given.output(0))
        model = openvino.Model(model.get_results(), [*inputs, given])
    encoder = compiled(model, "bf16" if bank else "f32")

    def call(waveforms: np.ndarray, lengths: np.ndarray, names: tuple[str, ...]) -> list[np.ndarray]:
        inputs = [waveforms, lengths]
        results = encoder(
            [*inputs, *([bank(inputs, share_inputs=True)[0]] if bank else [])], share_inputs=True
        )
        return [np.array(results[name]) for name in names]

    return call


@cache
def has_amx() -> bool:
    """Whether the CPU multiplies tiles of bfloat16 (Linux tells)."""
    facts = Path("/proc/cpuinfo")
    return facts.exists() and " amx_bf16 " in facts.read_text()


def write_model(program: "ExportedProgram", file: Path, facts: dict[str, str]) -> None:
    """Writes the program by way of ONNX, the form that OpenVINO reads best; the facts go into its rt_info."""
    import openvino

    graph = file.with_name(ONNX)
    write_graph(program, graph, {})
    model = openvino.Core().read_model(graph)  # openvino.convert_model would report to its maker
    for key, value in facts.items():
        model.set_rt_info(value, ["beatline", key])
    try:
        openvino.save_model(model, file, compress_to_fp16=False)
    except RuntimeError as error:
        raise UserError(
            "disk-full",
            f"cannot write {file}",
            str(error),
            "free space or choose another folder and run again",
        ) from error
    del model  # it holds the graph's file
    graph.unlink()


RUNTIME = Runtime(
    name="openvino",
    file=OPENVINO,
    write=write_model,
    writers=("onnx", "onnxscript", "openvino"),
    runner="openvino",
    reads={"float32": (OPENVINO, ONNX), "bfloat16": (OPENVINO, ONNX), "int8": (INT8,)},
    open=open_graph,
)
