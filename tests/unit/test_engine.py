"""The same scores from PyTorch, onnxruntime and OpenVINO, from an export that is whole."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch

from beatline.core.errors import UserError
from beatline.model import geometry
from beatline.model.checkpoints.own import save
from beatline.model.engines import export, load, openvino, pytorch
from beatline.model.engines.graphs import GraphEngine
from beatline.model.engines.load import load_export
from beatline.model.engines.onnx import INT8
from beatline.model.engines.pytorch import TorchEngine
from beatline.tag import tagger as tag
from tests.helpers.models import CONFIG, LABELS, make_tagger, tiny_export

pytestmark = pytest.mark.xdist_group("export")


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    return tiny_export(tmp_path_factory)


@pytest.fixture(scope="module")
def clips():
    rng = np.random.default_rng(0)
    lengths = np.array([40_000, 3_200, 16_123])
    waveforms = np.zeros((3, 40_000), np.float32)
    for row, length in zip(waveforms, lengths, strict=True):
        row[:length] = 0.1 * rng.standard_normal(length)
    return waveforms, lengths


@pytest.mark.parametrize("runtime", ["torch", "onnx", "openvino"])
def test_detail_adds_up_to_the_clip(exported, clips, runtime):
    waveforms, lengths = clips
    reference = TorchEngine(make_tagger(), LABELS)
    ready = reference if runtime == "torch" else load_export(exported, runtime)
    got, wanted = ready.run(waveforms, lengths, detail=True), reference.run(waveforms, lengths, detail=True)
    assert ready.run(waveforms, lengths).tokens is None
    assert got.tokens.shape == (3, 8 * geometry.step_count(lengths[0]), 32) and got.step_logits.shape == (
        3,
        geometry.step_count(lengths[0]),
        3,
    )
    for row, steps in enumerate(geometry.step_count(lengths)):
        np.testing.assert_allclose(got.step_logits[row, :steps].mean(axis=0), wanted.logits[row], atol=2e-5)
        np.testing.assert_allclose(got.tokens[row, : 8 * steps], wanted.tokens[row, : 8 * steps], atol=5e-5)
        np.testing.assert_allclose(
            got.tokens[row, : 8 * steps].mean(axis=0), wanted.embeddings[row], atol=2e-5
        )
        assert not got.tokens[row, 8 * steps :].any()
    np.testing.assert_allclose(ready.score(got.logits), got.scores, atol=1e-6)


@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
def test_runtimes_agree_with_pytorch_alone_and_padded(exported, clips, runtime):
    waveforms, lengths = clips
    graph, reference = load_export(exported, runtime), TorchEngine(make_tagger(), LABELS)
    wanted, got = reference.run(waveforms, lengths), graph.run(waveforms, lengths)
    for name in ("scores", "logits", "embeddings"):
        np.testing.assert_allclose(getattr(got, name), getattr(wanted, name), atol=2e-5)
    for row, length in zip(range(3), lengths, strict=True):
        alone = graph.scores(waveforms[row : row + 1, :length])
        np.testing.assert_allclose(alone, wanted.scores[row : row + 1], atol=1e-5)


def test_int8_weights_leave_room_for_two_products_in_sixteen_bits(exported):
    graph = onnx.load(exported / INT8).graph
    weights = [
        onnx.numpy_helper.to_array(tensor).astype(int)
        for tensor in graph.initializer
        if tensor.data_type == onnx.TensorProto.INT8 and len(tensor.dims) == 2
    ]
    assert weights and all(2 * 255 * np.abs(weight).max() < 2**15 for weight in weights)


def test_int8_is_near_and_is_not_float32(exported, clips):
    waveforms, lengths = clips
    reduced, full = load_export(exported, "onnx", "int8"), load_export(exported, "onnx")
    difference = np.abs(reduced.scores(waveforms, lengths) - full.scores(waveforms, lengths))
    assert 0 < difference.mean() < 0.02


@pytest.mark.parametrize(("amx", "chosen"), [(False, "onnx"), (True, "openvino")])
def test_a_cpu_with_amx_takes_bfloat16_for_int8(exported, monkeypatch, amx, chosen):
    monkeypatch.setattr(openvino, "has_amx", lambda: amx)
    assert load_export(exported, "auto", "int8").name == chosen


@pytest.mark.parametrize("name", ["onnx", "auto"])
def test_bfloat16_where_only_onnxruntime_runs_is_refused(exported, monkeypatch, name):
    monkeypatch.setattr(load, "is_installed", lambda package: package != "openvino")
    with pytest.raises(UserError, match="onnxruntime runs float32 and int8"):
        load_export(exported, name, "bfloat16")


@pytest.mark.slow
def test_bfloat16_keeps_the_filter_bank_and_narrow_convolutions_in_float32(exported, tmp_path):
    wide = make_tagger(replace(CONFIG, encoder_embed_dim=64))
    export.export(wide, LABELS, tmp_path / "wide")
    hertz = np.geomspace(100, 6000, 16)[:, None]
    tones = (
        np.sin(2 * np.pi * hertz * np.arange(48_000) / 16_000).astype(np.float32) / 2
    )  # between loud and faint bins lie more digits than bfloat16 has
    for tagger, folder in ((make_tagger(), exported), (wide, tmp_path / "wide")):
        full, reduced = (
            TorchEngine(tagger, LABELS, precision=precision).scores(tones)
            for precision in ("float32", "bfloat16")
        )
        got = load_export(folder, "openvino", "bfloat16").scores(tones)
        assert np.abs(reduced - full).mean() < 2e-3 and np.abs(got - full).mean() < 2e-3


def test_the_graph_says_what_it_is(exported):
    import onnx

    about = {entry.key: entry.value for entry in onnx.load(exported / "model.onnx").metadata_props}
    assert json.loads(about["label_names"]) == list(LABELS.names) and json.loads(about["label_mids"]) == list(
        LABELS.mids
    )
    assert (about["sample_rate"], about["min_samples"], about["channels"], about["task"]) == (
        "16000",
        "3200",
        "1",
        "multi-label",
    )


def test_a_damaged_export_is_named(exported, tmp_path):
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(exported, copy)
    graph = copy / "model.onnx"
    content = bytearray(graph.read_bytes())
    content[len(content) // 2] ^= 1
    graph.write_bytes(content)
    with pytest.raises(UserError, match=r"model\.onnx.*SHA-256") as caught:
        load_export(copy)
    assert caught.value.code == "corrupt-artefact"


@pytest.mark.slow
def test_a_graph_that_differs_is_not_published(tmp_path, monkeypatch):
    monkeypatch.setitem(export.BOUNDS, "float32", -1.0)
    with pytest.raises(UserError, match="differ") as caught:
        export.export(make_tagger(), LABELS, tmp_path / "out", to="torch-export")
    assert caught.value.code == "export-differs" and not (tmp_path / "out").exists()


def test_what_cannot_run_says_so(exported, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="export, which PyTorch"):
        load_export(exported, "torch")
    with pytest.raises(UserError, match=r"holds no model\.int8\.onnx") as caught:
        GraphEngine(tmp_path, "onnx", "int8")
    assert caught.value.code == "bad-config"
    save(tmp_path / "model", make_tagger(), LABELS, {})
    with pytest.raises(UserError, match="int8"):
        pytorch.load_checkpoint(tmp_path / "model", "int8")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for source, name, precision in (
        (exported, "auto", "float32"),
        (exported, "onnx", "float32"),
        (tmp_path / "model", "onnx", "float32"),
        (tmp_path / "model", "auto", "int8"),
    ):
        with pytest.raises(UserError, match="run on the CPU here") as caught:
            tag.load(source, name, precision, "cuda")
        assert caught.value.code == "bad-config"
    assert not (tmp_path / "cache").exists()


def test_pytorch_takes_as_many_threads_as_it_is_told(tmp_path):
    save(tmp_path / "model", make_tagger(), LABELS, {})
    before = torch.get_num_threads()
    try:
        tag.load(tmp_path / "model", "torch", threads=before + 2)
        assert torch.get_num_threads() == before + 2
        tag.load(tmp_path / "model", "torch")
        assert torch.get_num_threads() == before + 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.slow
def test_a_checkpoint_is_exported_once_into_the_cache_and_then_used(tmp_path, monkeypatch, clips):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    save(tmp_path / "model", make_tagger(), LABELS, {})
    assert tag.load(tmp_path / "model").engine.name == "torch"  # nothing there yet
    exports, really = [], export.export
    monkeypatch.setattr(
        export, "export", lambda *given, **options: exports.append(given) or really(*given, **options)
    )
    with ThreadPoolExecutor(2) as pool:  # the one that comes second waits, and finds it there
        first, same = pool.map(lambda _: tag.load(tmp_path / "model", "onnx").engine, range(2))
    np.testing.assert_array_equal(first.scores(*clips), same.scores(*clips))
    made = [path for path in (tmp_path / "cache/beatline/exports").iterdir() if path.is_dir()]
    assert len(made) == len(exports) == 1
    stamp = (made[0] / "model.onnx").stat().st_mtime_ns
    second = tag.load(tmp_path / "model").engine
    assert second.name == "openvino" and (made[0] / "model.onnx").stat().st_mtime_ns == stamp
    np.testing.assert_allclose(first.scores(*clips), second.scores(*clips), atol=1e-5)
    monkeypatch.setattr(openvino, "has_amx", lambda: True)
    assert (
        tag.load(tmp_path / "model", precision="int8").engine.name == "openvino" and len(exports) == 1
    )  # bfloat16 needs no graph of its own


def test_a_large_batch_is_cut_and_nothing_changes():
    reference = TorchEngine(make_tagger(), LABELS)
    waveforms = 0.1 * np.random.default_rng(1).standard_normal((9, 8_000)).astype(np.float32)
    np.testing.assert_allclose(
        reference.scores(waveforms),
        np.concatenate([reference.scores(waveforms[i : i + 1]) for i in range(9)]),
        atol=1e-6,
    )


def test_logits_are_not_rounded_to_bfloat16():
    half = TorchEngine(make_tagger(), LABELS, precision="bfloat16")
    waveforms = 0.1 * np.random.default_rng(0).standard_normal((8, 16_000), np.float32)
    outputs = half.run(waveforms, detail=True)
    for logits in (outputs.logits, outputs.step_logits):
        assert (torch.from_numpy(logits).bfloat16().float().numpy() != logits).mean() > 0.9
