"""checkpoint or export -> the engine that runs it fastest, or that a name asks for.

In: a path. Out: an `Engine`. Imports no torch before a checkpoint needs it.
"""

import os
from pathlib import Path
from typing import get_args

from beatline.core import artefact
from beatline.core.errors import UserError
from beatline.core.packages import is_installed
from beatline.model.engines import openvino
from beatline.model.engines.base import Engine, Precision
from beatline.model.engines.graphs import (
    FORMAT,
    OPSET,
    RUNTIMES,
    GraphEngine,
    graph_beside_weights,
    is_export,
    runtime,
)
from beatline.model.engines.onnx import INT8, ONNX

PRECISIONS: tuple[Precision, ...] = get_args(Precision)
BESIDE: dict[str, tuple[str, ...]] = {"auto": ("onnx", "openvino"), "torch": ()}
"""Runtimes that are asked for a graph beside weights; onnxruntime is there sooner than OpenVINO."""


def engine_names() -> tuple[str, ...]:
    """What `load` takes: `auto`, `torch`, and the runtimes of exports."""
    return ("auto", "torch", *(name for name in RUNTIMES if not runtime(name).trusted_only))


def export_names() -> tuple[str, ...]:
    """The forms that `export` writes."""
    return tuple(RUNTIMES)


def reduced(name: str, precision: Precision) -> Precision:
    """The precision that is run. For int8 `auto` takes bfloat16 on a CPU with AMX, which is faster there and
    nearer to float32 (`docs/decisions/0013`).
    """
    if (name, precision) == ("auto", "int8") and is_installed("openvino") and openvino.has_amx():
        return "bfloat16"
    return precision


def check_cpu(device: str) -> None:
    """Refuses a device that no export runs on."""
    if device not in ("auto", "cpu"):
        raise UserError(
            "bad-config",
            f"device {device}",
            "onnxruntime and OpenVINO run on the CPU here",
            "leave --device out, or give a checkpoint and leave --engine out",
        )


def load_export(
    folder: Path,
    name: str = "auto",
    precision: Precision = "float32",
    threads: int = 0,
    device: str = "auto",
) -> GraphEngine:
    """An exported folder as an engine; `auto` takes OpenVINO for float32 and bfloat16 where it is installed
    or all the export is for, else onnxruntime.

    Args:
        precision: See `reduced`.
        threads: CPU threads; 0 leaves it to the runtime.

    Raises:
        UserError: As `GraphEngine`; `bad-config` for an engine that cannot run it, or a device other than the
            CPU.
    """
    check_cpu(device)
    if name == "torch":
        raise UserError(
            "bad-config",
            "setting engine",
            f"{folder} is an export, which PyTorch does not run",
            "leave --engine out, or give the checkpoint",
        )
    precision = reduced(name, precision)
    if name == "auto":
        by_openvino = precision != "int8" and (is_installed("openvino") or not (folder / ONNX).exists())
        name = "openvino" if by_openvino else "onnx"
    chosen = runtime(name)
    if chosen.trusted_only:
        raise UserError(
            "bad-usage",
            f"engine {name!r}",
            "beatline writes this form and does not run it",
            f"give {', '.join(engine_names())}",
        )
    if precision not in chosen.reads:
        raise UserError(
            "bad-config",
            "setting precision",
            f"{chosen.runner} runs {' and '.join(chosen.reads)} here",
            "install openvino (extra `export`) and leave --engine out, or take int8",
        )
    unused = {ONNX, INT8} - {INT8 if precision == "int8" else ONNX}
    artefact.verify(folder, select=lambda file: file not in unused)
    return GraphEngine(folder, name, precision, threads)


def cached(source: Path, int8: bool) -> Path:
    """Where the export of a checkpoint lies in the user's cache, named by what the checkpoint holds. The
    export may not be there yet.
    """
    about = artefact.contents_file(source)
    content = (
        artefact.sha256_file(about if about.exists() else source)
        if source.is_file() or about.exists()
        else artefact.hash_json(
            sorted((p.name, artefact.sha256_file(p)) for p in source.iterdir() if p.is_file())
        )
    )
    from importlib.metadata import version  # 3 ms that an export need not wait for

    key = artefact.hash_json([content, FORMAT, OPSET, version("torch"), version("beatline")])[:24]
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return root / "beatline/exports" / (key + ("-int8" if int8 else ""))


def load(
    source: Path | str,
    name: str = "auto",
    precision: Precision = "float32",
    device: str = "auto",
    threads: int = 0,
    head: bool = True,
) -> Engine:
    """Any checkpoint or export as the engine that `name` says.

    `auto`: an export runs on the fastest runtime that is installed; a model folder with a graph beside its
    weights on that graph, without PyTorch; another checkpoint on the GPU, or else on its export where the
    user's cache holds it, or else on PyTorch. A named runtime, and int8, export a checkpoint into the cache
    first, once.

    Args:
        source: A checkpoint of any family, or a folder that `export` wrote.
        name: Of `engine_names`.
        precision: See `reduced`.
        device: `auto`, `cpu` or `cuda`; exports run on the CPU.
        threads: CPU threads; 0 leaves them as they are.
        head: As `pytorch.load_checkpoint`.

    Raises:
        UserError: See `load_export`, `pytorch.load_checkpoint` and `export.export`.
    """
    source = Path(source)
    if is_export(source):
        return load_export(source, name, precision, threads, device)
    if device in ("auto", "cpu"):
        beside = graph_beside_weights(source, BESIDE.get(name, (name,)), reduced(name, precision))
        if beside is not None:
            return load_export(source, beside, reduced(name, precision), threads)
    graph_wanted = name not in ("auto", "torch") or precision == "int8"
    int8 = reduced(name, precision) == "int8"
    if graph_wanted:
        check_cpu(device)
    may_be_cached = graph_wanted or (
        name == "auto" and device in ("auto", "cpu") and is_installed("openvino")
    )
    folder = cached(source, int8) if source.exists() and may_be_cached else None
    if folder is not None and graph_wanted and artefact.read_contents(folder) is None:
        with artefact.FolderLock(folder.parent, wait=True):
            if artefact.read_contents(folder) is None:  # nobody has made it meanwhile
                _export_into(folder, source, int8)
    if folder is not None and artefact.read_contents(folder) is not None and (graph_wanted or not _has_gpu()):
        return load_export(folder, name, precision, threads)
    from beatline.model.engines import pytorch

    return pytorch.load_checkpoint(source, precision, device, head, threads)


def _export_into(folder: Path, source: Path, int8: bool) -> None:
    from beatline.model.checkpoints.load import load_tagger
    from beatline.model.engines.export import export

    loaded = load_tagger(source)
    export(loaded.tagger("exact"), loaded.labels, folder, int8=int8, about={"source": str(loaded.source)})


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()
