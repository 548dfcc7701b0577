"""What stands beside the ONNX graph: OpenVINO's form, PyTorch's programs, the label table, and an
installation without PyTorch.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from beatline import cli
from beatline.core.errors import UserError
from beatline.core.labels import Label, LabelSet
from beatline.model.checkpoints.own import save
from beatline.model.engines import base, export
from beatline.model.engines.load import load_export
from beatline.model.engines.pytorch import TorchEngine
from tests.helpers.models import LABELS, make_tagger, tiny_export

pytestmark = pytest.mark.xdist_group("export")
ROOT = Path(__file__).parents[2]
CLIP = ROOT / "src/beatline/assets/mini-audioset/audio/test_bird_01.ogg"


def clips(batch, samples):
    """Noise in a padded batch, with its lengths; the first clip is as long as the batch."""
    rng = np.random.default_rng(samples)
    lengths = np.concatenate([[samples], rng.integers(3200, samples + 1, batch - 1)])
    waveforms = 0.1 * rng.standard_normal((batch, samples)).astype(np.float32)
    waveforms[np.arange(samples) >= lengths[:, None]] = 0
    return waveforms, lengths


SHAPES = [(1, 3200), (3, 3201), (2, 16_000), (1, 55_555), (5, 24_321)]


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    return tiny_export(tmp_path_factory, "torch-export")


@pytest.mark.slow
def test_a_program_runs_where_beatline_is_not(program, tmp_path):
    batches = [clips(*shape) for shape in SHAPES]
    np.savez(tmp_path / "in.npz", *[array for pair in batches for array in pair])
    code = f"""
import sys
sys.modules["beatline"] = None  # an import of it fails
import numpy, torch
torch.set_num_threads(1)
program = torch.export.load({str(program / "model.pt2")!r}).module()
arrays = [torch.from_numpy(array) for array in numpy.load("in.npz").values()]
with torch.no_grad():
    pairs = zip(arrays[::2], arrays[1::2])
    numpy.savez("out.npz", *[output.numpy() for pair in pairs for output in program(*pair)])
"""
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, timeout=200)
    got = list(np.load(tmp_path / "out.npz").values())
    reference = TorchEngine(make_tagger(), LABELS)
    for place, batch in enumerate(batches):
        wanted = reference.run(*batch, detail=True)
        for name, output in zip(base.NAMES, got[5 * place : 5 * place + 5], strict=True):
            np.testing.assert_allclose(
                output, getattr(wanted, name), atol=5e-5, err_msg=f"{name} of {batch[0].shape}"
            )


def test_a_program_holds_only_operators_that_every_pytorch_has_and_says_what_it_is(program):
    about = {"label_names": "", "label_mids": "", "sample_rate": "", "task": ""}
    loaded = torch.export.load(program / "model.pt2", extra_files=about)
    used = {str(node.target) for node in loaded.graph.nodes if node.op == "call_function"}
    assert len([name for name in used if name.startswith("aten.")]) > 20 and not [
        name for name in used if "mkldnn" in name or "beatline" in name
    ]
    assert json.loads(about["label_names"]) == list(LABELS.names) and json.loads(about["label_mids"]) == list(
        LABELS.mids
    )
    assert (about["sample_rate"], about["task"]) == ("16000", "multi-label")


def test_a_program_is_not_for_tag(program):
    for name in ("auto", "onnx", "openvino", "torch"):
        with pytest.raises(UserError) as caught:
            load_export(program, name)
        assert caught.value.code == "bad-config"


@pytest.mark.slow
def test_an_openvino_export_is_written_by_the_program_and_tags(tmp_path, capsys):
    import openvino

    folder = tmp_path / "out"
    save(tmp_path / "run/model", make_tagger(), LABELS, {})
    assert cli.main(["export", str(tmp_path / "run"), str(folder), "--to", "openvino"]) == 0
    worst = float(
        re.search(r"model\.xml: scores within (\S+) of PyTorch's", capsys.readouterr().out).group(1)
    )
    assert 0 < worst < 1e-5
    assert {path.name for path in folder.iterdir()} == {
        "model.xml",
        "model.bin",
        "class_labels_indices.csv",
        "config.json",
        "contents.json",
    }
    assert b'element_type="f16"' not in (folder / "model.xml").read_bytes()

    about = openvino.Core().read_model(folder / "model.xml")
    assert json.loads(about.get_rt_info(["beatline", "label_names"]).value) == list(LABELS.names)
    assert about.get_rt_info(["beatline", "sample_rate"]).value in (16000, "16000")

    assert cli.main(["tag", str(CLIP), "--model", str(folder), "--format", "jsonl", "--top", "3"]) == 0
    assert len(json.loads(capsys.readouterr().out)["tags"]) == 3
    graph, reference = load_export(folder), TorchEngine(make_tagger(), LABELS)
    assert graph.name == "openvino"
    for shape in SHAPES:
        np.testing.assert_allclose(graph.scores(*clips(*shape)), reference.scores(*clips(*shape)), atol=1e-5)
    for refused in (("onnx", "float32"), ("torch", "float32"), ("onnx", "int8")):
        with pytest.raises(UserError) as caught:
            load_export(folder, *refused)
        assert caught.value.code == "bad-config"


def test_int8_is_for_onnx_alone(tmp_path):
    with pytest.raises(UserError, match="openvino is written in float32") as caught:
        export.export(make_tagger(), LABELS, tmp_path / "out", int8=True, to="openvino")
    assert caught.value.exit_code == 2 and not (tmp_path / "out").exists()


def test_the_label_table_is_audiosets_and_sherpas():
    labels = LabelSet(
        (Label("/m/05zppz", "Male speech, man speaking"), Label("quote", 'A "loud" one'), Label("a, b", "c"))
    )
    text = export.label_table(labels)
    assert text.splitlines()[0] == "index,mid,display_name"
    assert text.splitlines()[1].endswith(',"Male speech, man speaking"')
    assert LabelSet.from_csv(text) == labels


@pytest.mark.slow
def test_tagging_by_an_export_imports_and_leaves_no_more_than_it_must(tmp_path_factory, tmp_path):
    """A part of the light installation; nor may onnxruntime report to anyone."""
    required = {"numpy", "soundfile", "soxr", "onnxruntime"}
    theirs = {
        "_soundfile",
        "_soundfile_data",
        "_cffi_backend",
        "cffi",
        "pycparser",
        "typing_extensions",
        "flatbuffers",
        "google",
        "packaging",
    }
    code = f"""
import sys
from beatline import cli
export = {str(tiny_export(tmp_path_factory))!r}
assert cli.main(["tag", {str(CLIP)!r}, "--model", export, "--engine", "onnx"]) == 0
for name, module in sorted(sys.modules.items()):
    if "." not in name and "site-packages" in (getattr(module, "__file__", None) or ""):
        print("imported", name)
"""
    environment = {
        key: value
        for key, value in os.environ.items()
        if key not in ("ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME", "XDG_DATA_HOME")
    }
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
        env=environment | {"HOME": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    imported = set(re.findall(r"(?m)^imported (\S+)", done.stdout))
    assert required <= imported, imported
    assert {
        name
        for name in imported - required - theirs
        if not name.startswith(("__editable__", "_distutils", "sitecustomize", "_virtualenv"))
    } == set()
    assert list(tmp_path.rglob("*")) == []
