"""Models on a Hugging Face endpoint: pushed with the real client as one commit, fetched through its cache,
checked, used; what each trouble says.
"""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

import beatline
from beatline import cli, recipe
from beatline.core import artefact
from beatline.core.errors import UserError
from beatline.fetch import checkpoints, known, services
from beatline.model.checkpoints.espnet import export_espnet
from beatline.model.checkpoints.load import load_checkpoint
from beatline.publish import hub as publish
from beatline.publish import upload
from beatline.tag.calibration import Calibration, model_hash
from beatline.train.start import new_tagger
from tests.helpers import hubs
from tests.helpers.models import LABELS, make_tagger
from tests.helpers.servers import TOKEN
from tests.helpers.tiny import tiny, write_data

pytestmark = [
    pytest.mark.xdist_group("hub"),
    pytest.mark.filterwarnings("ignore:Use 'content:DeprecationWarning"),
]  # the client's own words to its HTTP library
hub = hubs.hub
NAME = "me/sounds"
OURS = {
    "README.md",
    "calibration/calibration.json",
    "calibration/contents.json",
    "config.json",
    "labels.csv",
    "contents.json",
    "model.safetensors",
    "preprocessor_config.json",
}
SOUND = np.random.default_rng(0).uniform(-0.5, 0.5, 20_000)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A real run of every stage, and a calibration in it."""
    place = tmp_path_factory.mktemp("run")
    config = tiny(write_data(place / "data"), place / "run", train__epochs="1", train__average="1")
    recipe.run(config)
    labels = load_checkpoint(config.out).labels
    calibration = Calibration(
        labels,
        np.full(len(labels), 0.25, np.float32),
        2.0,
        ("learned",) * len(labels),
        np.ones(len(labels), np.int64),
        {"model_hash": model_hash(config.out), "clips": "/home/me/clips.csv"},
    )
    calibration.save(config.out / "calibration")
    return config.out


def files(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def there(hub, name=NAME):
    return files(hub.root / "hub/models" / name)


def refused(code, call, *words):
    with pytest.raises(UserError) as caught:
        call()
    line = str(caught.value)
    assert caught.value.code == code and "\n" not in line and all(word in line for word in words), line


# --- there and back


def test_push_and_load_with_its_calibration(run, hub, tmp_path, capsys):
    assert publish.push(run, NAME, private=True, licence="cc-by-4.0").startswith(
        f"{hub.address}/{NAME}/commit/"
    )
    assert there(hub).keys() == OURS | {".gitattributes"}
    assert sum("/commit/" in request["path"] for request in hub.log()) == 1
    publish.pack(run, tmp_path / "packed", NAME, "cc-by-4.0")
    assert files(tmp_path / "packed") == {
        path: content for path, content in there(hub).items() if path in OURS
    }
    hub.faults()
    tagger = beatline.load(NAME)
    np.testing.assert_array_equal(tagger(SOUND, 16_000).scores, beatline.load(run)(SOUND, 16_000).scores)
    fetched = {request["path"].rsplit("/", 1)[-1] for request in hub.log() if "/resolve/" in request["path"]}
    assert fetched == {path.rsplit("/", 1)[-1] for path in OURS} - {
        "README.md",
        "preprocessor_config.json",
    }, "only what is needed"
    place = checkpoints.locate(NAME)
    assert (
        str(place).startswith(str(tmp_path / "cache"))
        and Calibration.load(place, tagger.labels).temperature == 2.0
    )
    assert (
        "/home/me"
        not in there(hub)["calibration/calibration.json"].decode() + there(hub)["config.json"].decode()
    )


def test_push_again_replaces_and_removes_what_is_stale(run, hub, tmp_path):
    publish.push(run, NAME)
    old = artefact.sha256_file(checkpoints.locate(NAME) / "model.safetensors")
    (hub.root / "hub/models" / NAME / "notes.txt").write_text("mine")
    checkpoint = tmp_path / "espnet"
    export_espnet(checkpoint, make_tagger(), LABELS)
    publish.push(checkpoint, NAME)
    assert there(hub).keys() == {path for path in OURS if "calibration" not in path} | {
        ".gitattributes",
        "notes.txt",
    }
    new = checkpoints.locate(NAME)
    assert artefact.sha256_file(new / "model.safetensors") != old and load_checkpoint(new).labels is not None
    hub.faults()
    publish.push(checkpoint, NAME)  # nothing has changed but the files' dates
    assert not [request for request in hub.log() if request["path"].startswith("/lfs/")], (
        "what is there is not sent twice"
    )


def test_a_repository_of_an_earlier_version_loads_and_is_replaced(run, hub, tmp_path):
    packed = tmp_path / "packed"
    publish.pack(run, packed)
    for folder in (packed, packed / "calibration"):
        (folder / "contents.json").rename(folder / "manifest.json")
    sent = {path.relative_to(packed).as_posix(): path for path in packed.rglob("*") if path.is_file()}
    upload.upload(NAME, sent, lambda path: False, False, "as before")
    tagger = beatline.load(NAME)
    np.testing.assert_array_equal(tagger(SOUND, 16_000).scores, beatline.load(run)(SOUND, 16_000).scores)
    assert {path.name for path in checkpoints.locate(NAME).iterdir()} == {
        "calibration",
        "config.json",
        "labels.csv",
        "manifest.json",
        "model.safetensors",
    }
    assert Calibration.load(checkpoints.locate(NAME), tagger.labels).temperature == 2.0
    publish.push(run, NAME)
    assert "manifest.json" not in there(hub)


def test_a_private_model_never_goes_to_a_public_repository(run, hub):
    publish.push(run, NAME)
    hub.faults()
    refused("bad-usage", lambda: publish.push(run, NAME, private=True), "public")
    assert not [
        request for request in hub.log() if request["method"] == "PUT" or "/commit/" in request["path"]
    ]


def test_a_clone_of_the_repository_loads_whatever_else_is_in_it(run, hub, tmp_path):
    publish.push(run, NAME)
    clone = shutil.copytree(hub.root / "hub/models" / NAME, tmp_path / "clone")
    (clone / "README.md").write_text("better words")
    (clone / ".cache").mkdir()
    (clone / ".cache/x").write_text("x")
    assert load_checkpoint(clone).family == load_checkpoint(clone / "model.safetensors").family == "beatline"
    (clone / "labels.csv").write_bytes((clone / "labels.csv").read_bytes() + b"\n")
    refused("corrupt-artefact", lambda: load_checkpoint(clone), "labels.csv")


# --- other repositories, and starts of training


@pytest.fixture
def espnet(hub, tmp_path):
    export_espnet(tmp_path / "made", make_tagger(), LABELS)
    folder = hub.root / "hub/models/espnet/BEATs-AS20K/exp/cls"
    folder.mkdir(parents=True)
    shutil.copy(tmp_path / "made/config.yaml", folder)
    shutil.copy(tmp_path / "made/model.pth", folder / "valid.acc.ave.pth")
    return "espnet/BEATs-AS20K"


def test_a_repository_of_espnet(hub, espnet):
    assert beatline.load(espnet).labels.names == LABELS.names  # ESPnet knows labels by name
    assert checkpoints.locate(f"hub:{espnet}/exp/cls/valid.acc.ave.pth") == checkpoints.locate(espnet)
    refused(
        "bad-usage",
        lambda: checkpoints.locate(f"{espnet}/exp/cls/other.pth"),
        f"{espnet}/exp/cls/valid.acc.ave.pth",
    )


def test_a_name_of_the_release_from_the_folder_or_a_copy(hub, tmp_path, monkeypatch):
    name = "BEATs_iter3_plus_AS20K"
    copy = hub.root / "hub/models" / services.CHECKPOINT_COPIES[1] / f"sub/{name}.pt"
    copy.parent.mkdir(parents=True)
    copy.write_bytes(bytes(5000))
    monkeypatch.setitem(known.RELEASE, name, replace(known.RELEASE[name], sha256=""))
    assert (
        checkpoints.locate(name).read_bytes() == checkpoints.locate(f"{name}.pt").read_bytes() == bytes(5000)
    )
    monkeypatch.setitem(known.RELEASE, name, replace(known.RELEASE[name], sha256="0" * 64))
    refused("hash-mismatch", lambda: checkpoints.locate(name), "not the release's")
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / f"checkpoints/{name}.pt").write_bytes(b"mine")
    hub.faults()
    assert checkpoints.locate(name).read_bytes() == b"mine" and hub.log() == []


def test_the_best_model_says_what_it_fetches_before_the_first_byte(hub, monkeypatch, capsys):
    monkeypatch.setitem(known.RELEASE, known.BEST, replace(known.RELEASE[known.BEST], sha256=""))
    repository = known.copies(known.BEST)[0]
    copy = hub.root / "hub/models" / repository / f"{known.BEST}.pt"
    copy.parent.mkdir(parents=True)
    copy.write_bytes(bytes(5_000_000))
    hub.faults(*[{"do": "status", "status": 404, "path": f"{known.BEST}.pt"}] * 3)
    refused("download-failed", lambda: checkpoints.locate("beats"), known.BEST)
    said = f"beatline: fetching {known.BEST}.pt, 5.0 MB, from {hub.address}/{repository} to "
    assert capsys.readouterr().err.startswith(said)
    hub.faults()
    assert checkpoints.locate("beats").read_bytes() == copy.read_bytes()
    assert capsys.readouterr().err.count("fetching") == 1
    assert known.here(known.RELEASE[known.BEST]) == checkpoints.locate("beats")
    assert capsys.readouterr().err == ""  # it is here


def test_what_pytorch_must_read_is_not_fetched_without_pytorch(hub, monkeypatch):
    monkeypatch.setattr("beatline.core.packages.is_installed", lambda package: package != "torch")
    refused("missing-package", lambda: checkpoints.locate("beats"), "pip install 'beatline[train]'")
    assert hub.log() == []


def test_training_starts_from_a_repository(hub, espnet, run):
    config = tiny(run.parent / "data/clips.csv", run, model__init=espnet)
    tagger = new_tagger(config, beatline.load(espnet).labels, checkpoints.locate(espnet))
    assert torch.equal(tagger.head.weight, make_tagger().head.weight)


def test_what_is_on_disk_is_never_asked_for(hub, tmp_path):
    (tmp_path / "runs").mkdir()
    for name in (
        tmp_path,
        "runs",
        "runs/mini",
        "runs/mini/model",
        "./a/b",
        "../a/b",
        "a//b",
        "model.pth",
        "a/b/../c",
        "a/.b/c",
    ):
        assert (
            str(checkpoints.locate(name)) == os.path.normpath(name)
            if ".." not in str(name)
            else checkpoints.locate(name)
        )
    assert hub.log() == []
    refused("missing-file", lambda: beatline.load("runs/mini"), "runs/mini", "no such file")


# --- troubles


def test_damage_on_the_way_is_mended_or_named(run, hub):
    publish.push(run, NAME)
    hub.faults({"do": "flip", "path": "model.safetensors"})
    assert beatline.load(NAME)
    hub.faults({"do": "flip", "path": "labels.csv"})
    shutil.rmtree("cache")
    assert beatline.load(NAME)
    shutil.rmtree("cache")
    hub.faults(*[{"do": "flip", "path": "model.safetensors"}] * 2)
    refused("hash-mismatch", lambda: beatline.load(NAME), f"{NAME}/model.safetensors")


def test_damage_on_the_way_there_is_named(run, hub):
    hub.faults({"do": "flip", "place": "put"})
    refused("upload-failed", lambda: publish.push(run, NAME), "not what was sent")


def test_a_repository_that_does_not_match_its_manifest(run, hub):
    publish.push(run, NAME)
    file = hub.root / "hub/models" / NAME / "config.json"
    file.write_text(file.read_text().replace("multi-label", "multi-labem"))
    refused("corrupt-artefact", lambda: beatline.load(NAME), "config.json", "SHA-256")


def test_a_stranger_s_folder_is_refused_in_one_line(run, hub, tmp_path):
    publish.pack(run, tmp_path / "packed")
    facts = json.loads((tmp_path / "packed/config.json").read_text())
    for change in (
        {"encoder": 3},
        {"encoder": {"rm": 1}},
        {"labels_hash": None},
        {"encoder": facts["encoder"] | {"encoder_layers": 1}},
    ):
        code = "label-mismatch" if "labels_hash" in change else "bad-checkpoint"
        (tmp_path / "packed/config.json").write_text(json.dumps(facts | change))
        artefact.seal(tmp_path / "packed", {"open": True})
        refused(code, lambda: load_checkpoint(tmp_path / "packed").tagger(), "packed")


def test_offline_from_the_cache_or_not_at_all(run, hub, monkeypatch, tmp_path, capsys):
    publish.push(run, NAME)
    expected = beatline.load(NAME)(SOUND, 16_000).scores
    capsys.readouterr()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    hub.faults()
    np.testing.assert_array_equal(beatline.load(NAME)(SOUND, 16_000).scores, expected)
    assert hub.log() == [] and capsys.readouterr().err == ""
    refused(
        "no-network",
        lambda: beatline.load("me/other"),
        "there is no path me/other",
        "HF_HUB_OFFLINE",
        "hf download me/other",
        f"{tmp_path}/cache/models--me--other",
    )
    refused("no-network", lambda: publish.push(run, NAME), "HF_HUB_OFFLINE")
    (checkpoints.locate(NAME) / "labels.csv").unlink()
    refused("no-network", lambda: beatline.load(NAME), "not all of its files")


def test_a_server_that_is_down_leaves_the_cache(run, hub, capsys):
    publish.push(run, NAME)
    beatline.load(NAME)
    capsys.readouterr()
    hub.faults(*[{"do": "status", "status": 503, "after": "0", "place": "api"}] * 2)
    assert beatline.load(NAME)
    assert "the server answers 503; what the cache has of it is used" in capsys.readouterr().err


def test_a_flipped_bit_in_the_cache_is_mended_with_a_network_and_named_without(run, hub, monkeypatch):
    publish.push(run, NAME)
    weights = checkpoints.locate(NAME) / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError):
        beatline.load(NAME)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    assert beatline.load(NAME) and weights.read_bytes() == content


def test_each_refusal_is_one_line(run, hub, monkeypatch, capsys):
    load = lambda name: lambda: beatline.load(name)  # noqa: E731
    refused(
        "download-failed", load("me/nothing"), "there is no path me/nothing", "there is no such repository"
    )
    gated = hub.root / "hub/models/gated/model"
    publish.pack(run, gated)
    assert beatline.load("gated/model")
    refused("download-failed", lambda: publish.push(run, "others/model"), "another token")
    refused("upload-failed", lambda: publish.push(run, NAME, licence="nonsense"), "license must be one of")
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    shutil.rmtree("cache")
    refused("download-failed", load("gated/model"), "token", "hf auth login")
    refused("download-failed", lambda: publish.push(run, NAME), "token", "hf auth login")
    monkeypatch.delenv("HF_TOKEN")
    hub.faults()
    capsys.readouterr()
    refused("no-token", lambda: publish.push(run, NAME), "hf auth login", "HF_TOKEN")
    assert hub.log() == [] and capsys.readouterr().err == ""
    refused("bad-usage", lambda: publish.push(run, "sounds"), "owner/name")


@pytest.mark.parametrize("header", [{"after": "4000"}, {"limit": '"api";r=0;t=4000'}])
def test_a_server_that_asks_to_wait_too_long_ends_it_at_once(run, hub, header, capsys):
    wait = {"do": "status", "status": 429, "place": "api", **header}
    hub.faults(wait)
    refused("service-refused", lambda: publish.push(run, NAME), "4000 s")
    hub.faults(wait)
    refused("service-refused", lambda: beatline.load(NAME), "4000 s")
    hub.faults({**wait, "after": "0", "limit": '"api";r=0;t=0'})
    assert publish.push(run, NAME) and capsys.readouterr().err == ""


def test_the_client_is_as_it_was_afterwards(run, hub):
    from huggingface_hub.utils import get_session, logging

    hooks, timeout, loud = get_session().event_hooks, get_session().timeout, logging.get_verbosity()
    hub.faults({"do": "status", "status": 429, "place": "api", "after": "4000"})
    refused("service-refused", lambda: beatline.load(NAME))
    assert (get_session().event_hooks, get_session().timeout, logging.get_verbosity()) == (
        hooks,
        timeout,
        loud,
    )


def test_nothing_stays_of_a_commit_that_fails(run, hub):
    publish.push(run, NAME)
    before = there(hub)
    hub.faults({"do": "status", "status": 400, "place": "api", "path": "/commit/"})
    refused("upload-failed", lambda: publish.push(run.parent / "run/model", NAME))
    assert there(hub) == before


# --- what the run says


def test_figures_of_another_model_are_not_published(run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "run")
    scores = np.load(copy / "predictions/scores.npy")
    np.save(copy / "predictions/scores.npy", scores[:, ::-1])
    artefact.seal(copy / "predictions", artefact.read_contents(copy / "predictions"))
    refused("missing-stage", lambda: publish.pack(copy, tmp_path / "packed"), "score")
    assert [path.name for path in tmp_path.iterdir()] == ["run"], "nothing is left of what failed"
    copy = shutil.copytree(run, tmp_path / "run2")
    loaded = load_checkpoint(copy)
    shutil.rmtree(copy / "model")
    replaced = replace(loaded, state=loaded.state | {"head.bias": loaded.state["head.bias"] + 1})
    with artefact.publish(copy / "model", artefact.read_contents(run / "model")) as partial:
        from beatline.model.checkpoints.own import write_model

        write_model(partial, replaced.state, replaced.tagger(), loaded.labels, loaded.about)
    refused("missing-stage", lambda: publish.pack(copy, tmp_path / "packed"), "score")


def test_the_commands(run, hub, tmp_path):
    """In processes of their own, by the environment alone."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environment |= {
        "HF_ENDPOINT": hub.address,
        "HF_HOME": str(tmp_path / "home"),
        "HF_TOKEN": TOKEN,
        "HF_HUB_DISABLE_XET": "1",
    }

    def command(*words, **changes):
        return subprocess.run(
            [sys.executable, "-m", "beatline", *map(str, words)],
            capture_output=True,
            text=True,
            timeout=120,
            env=environment | changes,
        )

    pushed = command("push", run, NAME)
    assert (
        pushed.returncode == 0
        and f"-> {hub.address}/{NAME}/commit/" in pushed.stdout
        and "Traceback" not in pushed.stderr
    ), pushed.stderr
    clip = next((run.parent / "data").glob("*.wav"))
    tag = ("tag", clip, "--format", "json", "--top", "3", "--model")
    by_path, by_name = command(*tag, run, "--calibrated"), command(*tag, NAME, "--calibrated")
    assert by_name.returncode == 0 and by_name.stdout == by_path.stdout and "score" in by_name.stdout, (
        by_name.stderr
    )
    alone = command(*tag, NAME, HF_HUB_OFFLINE="1")
    assert alone.returncode == 0 and "score" in alone.stdout
    missing = command(*tag, "me/other", HF_HUB_OFFLINE="1")
    assert (
        missing.returncode == 5
        and missing.stderr.count("\n") == 1
        and "hf download me/other" in missing.stderr
    )
    unknown = command("push", run, NAME, HF_TOKEN="")
    assert unknown.returncode == 5 and unknown.stderr.count("\n") == 1 and "[no-token]" in unknown.stderr


def test_pack_says_what_is_wrong(run, tmp_path, capsys):
    for words, expected in {
        ("pack", str(run), str(tmp_path / "x"), "--form", "espnet"): ".zip",
        ("pack", str(run), str(tmp_path), "--form", "hub"): "it is there already",
        ("pack", str(run), str(tmp_path / "x")): "--form",
        ("pack", str(tmp_path / "none"), str(tmp_path / "x"), "--form", "hub"): "no such file",
        ("push", str(run)): "OWNER/NAME",
    }.items():
        assert cli.main(list(words)) in (2, 3, 5)
        error = capsys.readouterr().err
        assert expected in error and error.count("\n") == 1, error
    assert list(tmp_path.iterdir()) == []
