"""model.onnx -> the same graph without weights of its own: they lie in the model folder, in float16.

In: a float32 graph that `export` wrote, and the float16 weights beside it. Out: the graph, which refers to
these weights (ONNX's external data) and casts them as it is loaded. Its products are float32. The matrix of
the filter bank, 800 kB, becomes its formula. Needs the package onnx; a runtime folds all of it at its start.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np

from beatline.model.checkpoints import own
from beatline.model.fbank import FFT, FRAME_SAMPLES, emphasised_window, frame_to_spectrum

SMALLEST = 1024
"""Numbers of a tensor from which on it is not repeated in the graph."""


def slim(graph: Path, weights: Path) -> None:
    """Makes a graph refer to the weights in the same folder, where they are the same.

    Args:
        graph: What `export` wrote of the model that has these weights; rewritten.
        weights: float16, as `own.save_tensors` writes them.
    """
    import onnx

    model = onnx.load(graph)
    stored = _Stored(weights)
    kept = []
    nodes: list[Any] = []
    spectrum = frame_to_spectrum().astype(np.float32)
    for tensor in model.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor) if tensor.data_type == onnx.TensorProto.FLOAT else None
        if values is not None and values.shape == spectrum.shape and np.array_equal(values, spectrum):
            constants, made = _spectrum(tensor.name)
            kept += constants
            nodes += made
        elif values is not None and values.size >= SMALLEST and (found := stored.find(values)):
            name, is_turned = found
            constants, made = _reference(tensor.name, stored.tensor(name), is_turned)
            kept += constants
            nodes += made
        else:
            kept.append(tensor)
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    after = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*nodes, *after])
    for node in model.graph.node:  # where in PyTorch's program it was, 1.5 kB each
        del node.metadata_props[:]
    graph.write_bytes(model.SerializeToString())


class _Stored:
    """Tensors of a file of weights, found by what they hold."""

    def __init__(self, weights: Path):
        self._file = weights.name
        self._tensors = own.layout(weights)
        self._named: dict[tuple[tuple[int, ...], bytes], tuple[str, bool]] = {}
        content = weights.read_bytes()
        for name, (shape, begin, length) in self._tensors.items():
            values = np.frombuffer(content, np.float16, length // 2, begin).reshape(shape)
            if values.size < SMALLEST:
                continue
            if values.ndim == 2:
                self._named[_key(values.T)] = name, True
            self._named[_key(values)] = name, False

    def find(self, values: np.ndarray) -> tuple[str, bool] | None:
        """The name of the tensor that has these values, and whether it is turned."""
        return self._named.get(_key(values))

    def tensor(self, name: str) -> Any:
        """A tensor of ONNX without values of its own."""
        import onnx

        shape, begin, length = self._tensors[name]
        tensor = onnx.TensorProto(name=name, data_type=onnx.TensorProto.FLOAT16, dims=shape)
        tensor.data_location = onnx.TensorProto.EXTERNAL
        for key, value in (("location", self._file), ("offset", str(begin)), ("length", str(length))):
            tensor.external_data.add(key=key, value=value)
        return tensor


def _key(values: np.ndarray) -> tuple[tuple[int, ...], bytes]:
    return values.shape, np.ascontiguousarray(values, np.float32).tobytes()


def _reference(name: str, tensor: Any, is_turned: bool) -> tuple[list[Any], list[Any]]:
    """Constants and nodes that make the float32 tensor `name` of a stored tensor."""
    import onnx
    from onnx.helper import make_node

    cast = f"{name}/float32" if is_turned else name
    nodes = [make_node("Cast", [tensor.name], [cast], to=onnx.TensorProto.FLOAT)]
    if is_turned:
        nodes.append(make_node("Transpose", [cast], [name], perm=[1, 0]))
    return [tensor], nodes


def _spectrum(name: str) -> tuple[list[Any], list[Any]]:
    """Constants and nodes that make `fbank.frame_to_spectrum` in float64, then round it to float32.

    Row i of it is `d[i] * b[i] + u[i] * b[i + 1]`, where b has the cosines and sines of a Fourier transform,
    which take `FFT` values.
    """
    import onnx
    from onnx.helper import make_node
    from onnx.numpy_helper import from_array

    rows = np.arange(FRAME_SAMPLES)[:, None]
    columns = np.arange(FFT // 2)
    window = emphasised_window()
    constants = {
        "row": rows,
        "next": rows + 1,
        "column": np.concatenate([columns, columns])[None],
        "shift": np.concatenate([0 * columns, 0 * columns + 3 * FFT // 4])[None],
        "period": np.array(FFT),
        "cosine": np.cos(2 * math.pi * np.arange(FFT) / FFT),
        "d": np.diag(window)[:, None],
        "u": np.append(np.diag(window, 1), 0.0)[:, None],
    }
    part = {key: f"{name}/{key}" for key in constants}
    nodes = []
    for row, factor in (("row", "d"), ("next", "u")):
        angle, moved, wrapped, wave, scaled = (
            f"{name}/{row}/{step}" for step in ("angle", "moved", "wrapped", "wave", "scaled")
        )
        nodes += [
            make_node("Mul", [part[row], part["column"]], [angle]),
            make_node("Add", [angle, part["shift"]], [moved]),
            make_node("Mod", [moved, part["period"]], [wrapped]),
            make_node("Gather", [part["cosine"], wrapped], [wave]),
            make_node("Mul", [wave, part[factor]], [scaled]),
        ]
    nodes += [
        make_node("Add", [f"{name}/row/scaled", f"{name}/next/scaled"], [f"{name}/float64"]),
        make_node("Cast", [f"{name}/float64"], [name], to=onnx.TensorProto.FLOAT),
    ]
    return [from_array(value, part[key]) for key, value in constants.items()], nodes
