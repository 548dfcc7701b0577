"""AudioSet's tables and starting checkpoints: order of sources, what is refused, what offline users are
told.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest

from beatline.core import ontology
from beatline.core.errors import UserError
from beatline.core.labels import audioset as labels
from beatline.fetch import audioset, checkpoints, http, known
from tests.helpers.audioset_files import SEGMENTS, WEIGHTS, tables
from tests.helpers.servers import COMMIT, TOKEN, Server

QUICK = http.Policy(tries=3, first_wait=0.001, longest_wait=0.01, timeout=5)
DEAD = "http://127.0.0.1:9/"


@pytest.fixture
def official(tmp_path, monkeypatch):
    """The table of files with other hashes, for files made here, and nobody at the official addresses."""
    tables(tmp_path / "mirror")
    made = []
    for table in audioset.TABLES:
        path = tmp_path / "mirror" / table.name
        digest = (
            hashlib.sha256(path.read_bytes()).hexdigest() if table.sha256 and path.exists() else table.sha256
        )
        made.append(audioset.Table(table.name, DEAD + table.name, table.check, digest, table.large))
    monkeypatch.setattr(audioset, "TABLES", tuple(made))
    return tmp_path / "mirror"


@pytest.fixture
def server(tmp_path):
    (tmp_path / "files").mkdir()
    server = Server(tmp_path)
    yield server
    server.close()


def names(folder):
    return {path.name for path in folder.iterdir()} - {".lock"}


def test_from_a_local_folder_without_any_network(official, tmp_path):
    paths = audioset.fetch(tmp_path / "out", [str(official)], unbalanced=True, policy=QUICK)
    assert (
        {path.name for path in paths} == names(tmp_path / "out") == {table.name for table in audioset.TABLES}
    )
    assert (tmp_path / "out/class_labels_indices.csv").read_text().count("\n") == 528  # from the package


def test_from_a_mirror_and_again(official, server, tmp_path, capsys):
    shutil.move(official, tmp_path / "files/as")
    server.faults({"do": "cut", "bytes": 100}, {"do": "status", "status": 503, "after": "0"})
    audioset.fetch(tmp_path / "out", [server.address + "/files/as"], policy=QUICK)
    assert len(names(tmp_path / "out")) == 8 and "unbalanced_train_segments.csv" not in names(
        tmp_path / "out"
    )
    server.faults()
    audioset.fetch(tmp_path / "out", [server.address + "/files/as"], policy=QUICK)
    assert server.log() == []


def test_offline_it_says_what_to_put_where(official, tmp_path):
    with pytest.raises(UserError) as refused:
        audioset.fetch(tmp_path / "out", policy=QUICK)
    assert (
        refused.value.code == "no-network"
        and "balanced_train_segments.csv, eval_segments.csv" in str(refused.value)
        and str(tmp_path / "out") in str(refused.value)
    )
    assert names(tmp_path / "out") == {"class_labels_indices.csv"}


def test_without_a_client_it_says_what_to_install_and_keeps_what_needs_no_network(
    official, tmp_path, capsys, monkeypatch
):
    monkeypatch.setitem(sys.modules, "httpx2", None)
    with pytest.raises(UserError, match="pip install beatline") as refused:
        audioset.fetch(tmp_path / "out", policy=QUICK)
    assert refused.value.code == "missing-package" and capsys.readouterr().out.count("missing-package") == 1
    assert names(tmp_path / "out") == {"class_labels_indices.csv"}
    audioset.fetch(tmp_path / "out", [str(official)], policy=QUICK)  # folders need no client


def test_a_login_page_is_no_table(official, server, tmp_path, capsys):
    for path in official.iterdir():
        (tmp_path / "files" / path.name).write_text("<html>please log in</html>")
    with pytest.raises(UserError):
        audioset.fetch(tmp_path / "out", [server.address + "/files"], policy=QUICK)
    assert names(tmp_path / "out") == {"class_labels_indices.csv"}


def test_the_next_source_has_its_turn(official, server, tmp_path):
    (tmp_path / "wrong").mkdir()
    (tmp_path / "wrong/balanced_train_segments.csv").write_text(
        SEGMENTS.replace("num_ytids=2", "num_ytids=3")
    )
    (tmp_path / "wrong/ontology.json").write_text("[]")
    audioset.fetch(tmp_path / "out", [str(tmp_path / "wrong"), str(official)], policy=QUICK)
    assert (tmp_path / "out/balanced_train_segments.csv").read_text() == SEGMENTS


def test_the_users_own_file_stays(official, tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    own = SEGMENTS.replace("--aaaaaaaaa", "--ownownown")
    (out / "balanced_train_segments.csv").write_text(own)
    audioset.fetch(out, [str(official)], policy=QUICK)
    assert (
        out / "balanced_train_segments.csv"
    ).read_text() == own and "not the release's" in capsys.readouterr().out
    (out / "balanced_train_segments.csv").write_text("<html>")
    with pytest.raises(UserError, match="delete it"):
        audioset.fetch(out, [str(official)], policy=QUICK)
    assert (out / "balanced_train_segments.csv").read_text() == "<html>"


def test_one_run_per_folder(official, tmp_path):
    from beatline.core.artefact import FolderLock

    with FolderLock(tmp_path / "out"), pytest.raises(UserError, match="process"):
        audioset.fetch(tmp_path / "out", [str(official)], policy=QUICK)


def test_the_ontology_in_the_package():
    nodes = ontology.ontology()
    assert len(nodes) == 632 and set(labels().mids) <= nodes.keys()
    assert {child for node in nodes.values() for child in node.children} <= nodes.keys()
    assert (
        "/m/09x0r" in ontology.below("/m/0dgw9r")
        and "/m/05zppz" in ontology.below("/m/09x0r")
        and not ontology.below("/m/05zppz") & {"/m/05zppz"}
    )
    assert sum("blacklist" in node.restrictions for node in nodes.values()) > 10


# --- checkpoints

NAME = "BEATs_iter3_plus_AS20K"


@pytest.fixture
def hub(server, tmp_path, monkeypatch):
    """A Hugging Face endpoint with the copies of the release, one of them empty, and an ESPnet repository."""
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.address)
    monkeypatch.setattr("huggingface_hub.hf_api.ENDPOINT", server.address, raising=False)
    monkeypatch.setattr(
        "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE",
        server.address + "/{repo_id}/resolve/{revision}/{filename}",
    )
    monkeypatch.setitem(known.RELEASE, NAME, replace(known.RELEASE[NAME], sha256=""))
    models = tmp_path / "hub/models"
    for path, content in {
        "lpepino/beats_ckpts/README.md": b"hello",
        f"camenduru/beats/sub/{NAME}.pt": WEIGHTS,
        "espnet/BEATs-AS20K/exp/config.yaml": b"model: beats\n",
        "espnet/BEATs-AS20K/exp/valid.pth": WEIGHTS,
        "espnet/BEATs-AS20K/big.json": b"x" * 5000,
        "two/files/a.pt": WEIGHTS,
        "two/files/b.pt": WEIGHTS[:-1],
        "gated/weights/a.safetensors": WEIGHTS,
        "evil/weights/..%2F..%2Fevil.pt": WEIGHTS,
    }.items():
        (models / path).parent.mkdir(parents=True, exist_ok=True)
        (models / path).write_bytes(content)
    server.faults()
    return server


def get(name, tmp_path, *sources):
    return checkpoints.locate(name, tmp_path / "checkpoints", sources, QUICK)


def test_a_checkpoint_by_name_from_the_copy_that_has_it(hub, tmp_path, capsys):
    hub.faults(
        {"do": "status", "status": 503, "place": "api"},
        {"do": "cut", "bytes": 5000},
        {"do": "status", "status": 429, "after": "0"},
    )
    path = get(NAME, tmp_path)
    assert path == tmp_path / f"checkpoints/{NAME}.pt" and path.read_bytes() == WEIGHTS
    assert hashlib.sha256(WEIGHTS).hexdigest() in capsys.readouterr().out
    assert "bytes=5000-" in [request["range"] for request in hub.log()] and any(
        COMMIT in request["path"] for request in hub.log()
    )
    hub.faults()
    assert get(NAME + ".pt", tmp_path) == path and hub.log() == []


def test_a_local_folder_comes_first(hub, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / f"mine/{NAME}.pt").write_bytes(b"mine")
    assert (
        get(NAME, tmp_path, tmp_path / "none", tmp_path / "mine").read_bytes() == b"mine" and hub.log() == []
    )


def test_a_pinned_hash_that_does_not_match_is_refused_everywhere(hub, tmp_path, monkeypatch):
    monkeypatch.setitem(known.RELEASE, NAME, replace(known.RELEASE[NAME], sha256="0" * 64))
    with pytest.raises(UserError, match="SHA-256") as refused:
        get(NAME, tmp_path)
    assert refused.value.code == "hash-mismatch" and names(tmp_path / "checkpoints") == set()
    (tmp_path / f"checkpoints/{NAME}.pt").write_bytes(WEIGHTS)
    with pytest.raises(UserError, match="SHA-256"):
        get(NAME, tmp_path)
    with pytest.raises(UserError, match="SHA-256"):
        get(str(tmp_path / f"checkpoints/{NAME}.pt"), tmp_path)


def test_by_repository_with_what_says_how_to_read_it(hub, tmp_path):
    path = get("espnet/BEATs-AS20K", tmp_path)
    assert (
        path == tmp_path / "checkpoints/espnet--BEATs-AS20K/exp/valid.pth"
        and path.with_name("config.yaml").read_text() == "model: beats\n"
    )
    hub.faults()
    assert get("espnet/BEATs-AS20K", tmp_path) == path and hub.log() == []


def test_a_small_file_that_is_not_the_repositorys_is_refused(hub, tmp_path):
    hub.faults({"do": "flip", "path": "config.yaml"})
    with pytest.raises(UserError, match=r"config\.yaml") as refused:
        get("espnet/BEATs-AS20K", tmp_path)
    assert refused.value.code == "hash-mismatch" and not list(
        (tmp_path / "checkpoints").rglob("config.yaml*")
    )
    assert get("espnet/BEATs-AS20K", tmp_path).with_name("config.yaml").read_text() == "model: beats\n"


@pytest.mark.parametrize("below", ["mine", "mine/espnet--BEATs-AS20K"])
@pytest.mark.parametrize("path", ["", "/exp/valid.pth"])
def test_a_repositorys_files_from_a_local_folder(hub, tmp_path, below, path):
    shutil.copytree(tmp_path / "hub/models/espnet/BEATs-AS20K", tmp_path / below)
    found = get(f"espnet/BEATs-AS20K{path}", tmp_path, tmp_path / "none", tmp_path / "mine")
    assert hub.log() == [] and found == tmp_path / "checkpoints/espnet--BEATs-AS20K/exp/valid.pth"
    assert found.read_bytes() == WEIGHTS and found.with_name("config.yaml").read_text() == "model: beats\n"


def test_of_several_files_one_must_be_named(hub, tmp_path):
    with pytest.raises(UserError, match=r"two/files/a\.pt, two/files/b\.pt"):
        get("two/files", tmp_path)
    assert get("two/files/b.pt", tmp_path).read_bytes() == WEIGHTS[:-1]


def test_a_token_is_used_and_its_lack_is_explained(hub, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="hf auth login"):
        get("gated/weights", tmp_path)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert get("gated/weights", tmp_path).read_bytes() == WEIGHTS


def test_a_name_that_climbs_is_never_a_path(hub, tmp_path):
    with pytest.raises(UserError, match="0 files"):
        get("evil/weights", tmp_path)
    for name in ("evil/weights/../../evil.pt", "../../none-such", "/etc/none", "a/b/.hidden"):
        with pytest.raises(UserError):
            get(name, tmp_path)
    assert not list(tmp_path.rglob("evil.pt"))


def test_offline_the_message_says_which_file_to_put_where(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", DEAD.rstrip("/"))
    with pytest.raises(UserError) as refused:
        get(NAME, tmp_path)
    assert (
        refused.value.code == "no-network"
        and f"lpepino/beats_ckpts or camenduru/beats or mooneyko/BEATs on the Hugging Face Hub), put it at "
        f"{tmp_path}/checkpoints/{NAME}.pt"
        in str(refused.value)
    )


def test_a_repository_with_the_name_of_a_folder_here_is_asked_for_by_its_prefix(hub, tmp_path, monkeypatch):
    (tmp_path / "here/espnet").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(UserError, match="hub:owner/name") as refused:
        get("espnet/BEATs-AS20K", tmp_path)
    assert refused.value.code == "missing-file" and hub.log() == []
    assert get("hub:espnet/BEATs-AS20K", tmp_path).read_bytes() == WEIGHTS


def test_an_environment_that_cannot_be_used_is_one_line(tmp_path):
    refused = subprocess.run(
        [sys.executable, "-m", "beatline", "fetch", "checkpoint", "me/other", "--to", tmp_path],
        env=os.environ | {"ALL_PROXY": "socks5://127.0.0.1:9", "HF_ENDPOINT": DEAD},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert refused.returncode == 5 and refused.stderr.count("\n") == 1
    assert "check HTTPS_PROXY" in refused.stderr and "[no-network]" in refused.stderr


def test_unknown_names(tmp_path):
    with pytest.raises(UserError, match=r"did you mean BEATs_iter\d\? `beatline models`"):
        get("BEATs_iter9", tmp_path)
