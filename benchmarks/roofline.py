"""The machine's limit and the share of it that the encoder reaches.

./bench.sh roofline        In one run: the float32 products of the encoder's layers, by themselves, by each
                           engine (PyTorch, the oneDNN in it, onnxruntime,
OpenVINO), and the whole encoder from waveforms to logits by the engine that beatline chooses, all in turn.
Share = useful operations over time over the best engine's rate. For what moves memory instead of multiplying:
AdamW's step over all parameters against a plain copy.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import flops
import harness
import models
import numpy as np
import peers
import torch

from beatline.config import EncoderConfig, OptimConfig
from beatline.tag import tagger as tag
from beatline.train.optim import adamw

SHARE = 0.8
Products = Callable[[], object]


def torch_products(operands: list[tuple[np.ndarray, np.ndarray]]) -> Products:
    """The products by PyTorch as users call it."""
    tensors = [(torch.from_numpy(a), torch.from_numpy(np.ascontiguousarray(b.T))) for a, b in operands]

    @torch.no_grad()
    def work() -> None:
        for a, b in tensors:
            torch.nn.functional.linear(a, b)

    return work


def onednn_products(operands: list[tuple[np.ndarray, np.ndarray]]) -> Products:
    """The products by the oneDNN inside PyTorch, which PyTorch itself does not ask for float32."""
    tensors = [(torch.from_numpy(a), torch.from_numpy(np.ascontiguousarray(b.T))) for a, b in operands]

    @torch.no_grad()
    def work() -> None:
        for a, b in tensors:
            torch.ops.mkldnn._linear_pointwise(a, b, None, "none", [], "")

    return work


def onnx_model(weight: np.ndarray) -> bytes:
    """A graph of one product with a constant, which an engine may lay out as it likes."""
    from onnx import TensorProto, helper, numpy_helper

    given = helper.make_tensor_value_info("a", TensorProto.FLOAT, [None, weight.shape[0]])
    wanted = helper.make_tensor_value_info("c", TensorProto.FLOAT, [None, weight.shape[1]])
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["a", "b"], ["c"])],
        "product",
        [given],
        [wanted],
        [numpy_helper.from_array(weight, "b")],
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10
    ).SerializeToString()


def onnxruntime_products(operands: list[tuple[np.ndarray, np.ndarray]]) -> Products:
    """The products by onnxruntime."""
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = harness.THREADS
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    sessions = [
        (onnxruntime.InferenceSession(onnx_model(b), settings, providers=["CPUExecutionProvider"]), a)
        for a, b in operands
    ]

    def work() -> None:
        for session, a in sessions:
            session.run(None, {"a": a})

    return work


def openvino_products(operands: list[tuple[np.ndarray, np.ndarray]]) -> Products:
    """The products by OpenVINO, held to float32 (left alone it takes bfloat16 on CPUs that have it)."""
    import openvino

    core = openvino.Core()
    settings = {
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": harness.THREADS,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
    }
    requests = [
        (
            core.compile_model(core.read_model(onnx_model(b), b""), "CPU", settings).create_infer_request(),
            openvino.Tensor(a, shared_memory=True),
        )
        for a, b in operands
    ]

    def work() -> None:
        for request, a in requests:
            request.infer({0: a})

    return work


ENGINES = {
    "torch": ("torch", torch_products),
    "onednn": ("torch", onednn_products),
    "onnxruntime": ("onnxruntime", onnxruntime_products),
    "openvino": ("openvino", openvino_products),
}
"""Each with the package it needs."""


def layer_operands(config: EncoderConfig, rows: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Random operands of one layer's products."""
    rng = np.random.default_rng(0)
    return [
        (rng.standard_normal((m, k), dtype=np.float32), rng.standard_normal((k, n), dtype=np.float32))
        for m, k, n in flops.layer_products(config, rows)
    ]


def share_rows(options: harness.Options) -> Iterator[harness.Row]:
    """For each batch: the best rate of products, and the share that the whole encoder reaches."""
    config, seconds = models.architecture(options.smoke), 1 if options.smoke else models.SECONDS
    tokens = flops.token_count(config, seconds)
    with harness.scratch() as folder:
        written = models.write_models(Path(folder), options.smoke)
        chosen = tag.load(models.write_export(written.own, Path(folder, "export"))).engine
        for clips in (1, 8, 32):
            operands = layer_operands(config, tokens * clips)
            waveforms = models.waveforms(clips, seconds)
            works: dict[str, Products] = {
                name: make(operands) for name, (package, make) in ENGINES.items() if peers.available(package)
            }
            times = harness.interleave(
                {**works, "encoder": lambda waveforms=waveforms: chosen.logits(waveforms)}, options.pairs
            )
            products = 2.0 * sum(a.shape[0] * a.shape[1] * b.shape[1] for a, b in operands)
            rates = {name: np.array([products / t / 1e9 for t in times[name]]) for name in works}
            best = max(rates, key=lambda name: float(np.median(rates[name])))
            facts = {f"{name}_products_GFLOPS": float(np.median(rate)) for name, rate in rates.items()}
            yield harness.summarise(
                f"roofline/products-{clips}",
                f"batch {clips}: best rate of the layers' float32 products ({best})",
                list(rates[best]),
                "GFLOP/s",
                **facts,
            )
            reached = flops.operations(config, clips, seconds) / np.array(times["encoder"]) / 1e9
            what = f"batch {clips}: share of it that encoder and head reach, engine auto ({chosen.name})"
            yield harness.summarise(
                f"roofline/share-{clips}",
                what,
                list(reached / rates[best]),
                "",
                harness.at_least(SHARE),
                encoder_GFLOPS=float(np.median(reached)),
            )


def gradient_row(options: harness.Options) -> harness.Row:
    """The products that make the weights' gradients, whose operands both lie across: where PyTorch's two
    libraries differ most.
    """
    config, seconds = models.architecture(options.smoke), 1 if options.smoke else models.SECONDS
    shapes = list(flops.layer_products(config, 8 * flops.token_count(config, seconds)))
    pairs = [(torch.randn(m, n).t(), torch.randn(m, k).t()) for m, k, n in shapes]
    libraries = {
        "torch": torch.nn.functional.linear,
        "onednn": lambda a, b: torch.ops.mkldnn._linear_pointwise(a, b, None, "none", [], ""),
    }
    with torch.no_grad():
        times = harness.interleave(
            {name: lambda call=call: [call(a, b) for a, b in pairs] for name, call in libraries.items()},
            options.pairs,
        )
    products = 2.0 * sum(m * k * n for m, k, n in shapes)
    facts = {f"{name}_GFLOPS": products / float(np.median(some)) / 1e9 for name, some in times.items()}
    return harness.ratio(
        "roofline/gradients",
        "batch 8: products of the weights' gradients, PyTorch's own against the oneDNN in it",
        times["torch"],
        times["onednn"],
        **facts,
    )


def bandwidth_row(options: harness.Options) -> harness.Row:
    """AdamW's step: bytes that it must move over time, as a share of what a copy moves."""
    tagger = models.random_tagger(options.smoke)
    optimiser = adamw(tagger, OptimConfig())
    for parameter in tagger.parameters():
        parameter.grad = torch.full_like(parameter, 1e-3)
    count = sum(p.numel() for p in tagger.parameters())
    source = torch.zeros(max(count, 1))
    target = torch.empty_like(source)
    times = harness.interleave({"copy": lambda: target.copy_(source), "step": optimiser.step}, options.pairs)
    copied, moved = (
        2 * 4 * count,
        7 * 4 * count,
    )  # reads weight, gradient and both moments, writes all but the gradient
    shares = [moved / step / (copied / copy) for copy, step in zip(times["copy"], times["step"], strict=True)]
    return harness.summarise(
        "roofline/adamw",
        "AdamW's step: share of the memory bandwidth of a copy",
        shares,
        "",
        copy_GB_per_s=copied / float(np.median(times["copy"])) / 1e9,
        step_s=float(np.median(times["step"])),
    )


def rows(options: harness.Options) -> Iterator[harness.Row]:
    """Rates, shares, gradients and bandwidth."""
    yield from share_rows(options)
    yield gradient_row(options)
    yield bandwidth_row(options)


if __name__ == "__main__":
    harness.main(rows, __doc__)
