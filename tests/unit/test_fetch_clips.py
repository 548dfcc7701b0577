"""One ledger over folders, Hugging Face copies and YouTube."""

import gc
import json
import os
import resource
import signal

import pytest

from beatline.core.errors import UserError
from beatline.fetch import clips, http, ledger, youtube
from tests.helpers.audioset_files import EVAL, TRAIN, rows, table, tar, wav, write
from tests.helpers.servers import Server
from tests.helpers.sounds import chord, contained
from tests.helpers.stores import in_child

# yt-dlp's extractor of direct links, which only the tests use, leaves its first connection open
pytestmark = pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <s:pytest.PytestUnraisableExceptionWarning"
)
QUICK = http.Policy(tries=5, first_wait=0.001, longest_wait=0.01, timeout=5)


@pytest.fixture(autouse=True)
def collected():
    """Such connections end within the test; what was there before is not searched."""
    gc.freeze()
    yield
    gc.collect()
    gc.unfreeze()


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    root = tmp_path_factory.mktemp("served")
    write(
        root / "hub/datasets",
        {
            "confit/audioset-16khz-wds/20k/train/0.tar": tar(TRAIN[:4]),
            "confit/audioset-16khz-wds/20k/train/1.tar": tar(TRAIN[4:8]),
            "confit/audioset-16khz-wds/20k/test/0.tar": tar(EVAL[:3]),
            "confit/audioset-16khz-wds/500k/train/0.tar": tar(TRAIN),
            "confit/audioset-16khz-wds/README.md": b"hello",
            "agkphysics/AudioSet/data/bal_train/00.parquet": rows(TRAIN[:3]),
            "agkphysics/AudioSet/data/bal_train/01.parquet": rows(TRAIN[6:10]),
            "agkphysics/AudioSet/data/eval/00.parquet": rows(EVAL[2:6]),
            "some/body/x.tar": tar([TRAIN[11]]),
            "some/body/..%2Fclimbs.tar": tar([TRAIN[11]]),
            "some/body/.hidden.tar": tar([TRAIN[11]]),
        },
    )
    sound = contained("webm", "libopus", 48_000, chord(48_000, 1, 45))
    write(root / "videos", {TRAIN[10]: sound, EVAL[6]: sound, EVAL[7]: b'{"status": 404}'})
    server = Server(root)
    yield server
    server.close()


@pytest.fixture
def server(served, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", served.address)
    monkeypatch.setattr(
        "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE",
        served.address + "/{repo_id}/resolve/{revision}/{filename}",
    )
    monkeypatch.setattr(http, "SPARE", 0)
    served.faults()
    return served


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "audioset"
    write(
        folder,
        {"balanced_train_segments.csv": table(TRAIN).encode(), "eval_segments.csv": table(EVAL).encode()},
    )
    return folder


def fetch(folder, *sources, server=None, **options):
    service = youtube.Service(
        address=f"{server.address if server else 'http://127.0.0.1:9'}/watch/{{id}}", extractors=("generic",)
    )
    return clips.fetch(
        folder, sources, clips.Options(**({"rate": 1e6, "service": service, "policy": QUICK} | options))
    )


def records(folder):
    return [json.loads(line) for line in (folder / ledger.LEDGER).read_text().splitlines()]


def states(folder):
    return {record["id"]: record.get("source") or record["because"] for record in records(folder)}


def tree(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} - {".lock"}


WDS, AGK = "hub:confit/audioset-16khz-wds", "hub:agkphysics/AudioSet"


def test_without_sources_everything_is_accounted_for(folder):
    summary = fetch(folder)
    assert "balanced   missing        12: not-found 12" in summary and len(records(folder)) == 20
    assert [record["id"] for record in records(folder)] == TRAIN + EVAL


def test_the_real_tables_end_as_present_or_missing(folder):
    """As many rows as AS-20K has; the figures of the release."""
    for name, count in (("balanced_train_segments.csv", 22_160), ("eval_segments.csv", 20_371)):
        (folder / name).write_text(table([f"{name[0]}{number:010}" for number in range(count)]))
    write(folder, {f"audio/Yb{number:010}.wav": b"" for number in range(50)})
    assert (
        "balanced   present        50: local 50\nbalanced   missing    22,110" in fetch(folder)
        and len(records(folder)) == 42_531
    )


def test_every_source_in_its_turn(folder, server, tmp_path):
    write(
        tmp_path / "mine/deep", {f"Y{TRAIN[0]}.wav": wav(), f"Y{EVAL[7]}.wav": wav(), "unrelated.wav": wav()}
    )
    summary = fetch(folder, str(tmp_path / "mine"), WDS, AGK, "youtube", server=server)
    expected = dict.fromkeys([TRAIN[0], EVAL[7]], "local") | dict.fromkeys(
        [*TRAIN[1:8], *EVAL[:3]], "hub confit/audioset-16khz-wds"
    )
    expected |= (
        dict.fromkeys([*TRAIN[8:10], *EVAL[3:6]], "hub agkphysics/AudioSet")
        | dict.fromkeys([TRAIN[10], EVAL[6]], "youtube")
        | {TRAIN[11]: "failed"}
    )
    assert states(folder) == expected, summary
    assert tree(folder) >= {
        "hub/confit--audioset-16khz-wds/20k/train/0.tar",
        "hub/agkphysics--AudioSet/data/bal_train/01.parquet",
        f"youtube/eval/{EVAL[6]}_30000_40000.opus",
    }
    assert not {
        path
        for path in tree(folder)
        if "500k" in path or "README" in path or "bal_train/00.parquet" in path or path.endswith(".partial")
    }
    asked = [
        request["path"] for request in server.log() if request["method"] == "GET" and request["range"] is None
    ]
    assert not any("bal_train/00.parquet" in path for path in asked)  # of it only the column of ids came
    before = {path: (folder / path).read_bytes() for path in tree(folder)}
    fetch(folder, str(tmp_path / "mine"), WDS, AGK, server=server)
    assert {path: (folder / path).read_bytes() for path in tree(folder)} == before


def test_prepare_reads_what_was_fetched(folder, server):
    from beatline.config import DataConfig
    from beatline.data.manifest import read

    fetch(folder, WDS, "youtube", server=server)
    manifest = read(DataConfig(audioset=folder))
    assert {clip.recording for clip in manifest.clips} == {*TRAIN[:8], *EVAL[:3], TRAIN[10], EVAL[6]}
    assert manifest.inputs == 20


def test_of_a_repository_only_plain_names_are_used(folder, server, tmp_path):
    fetch(folder, "hub:some/body", server=server)
    assert {path for path in tree(tmp_path) if path.endswith(".tar")} == {"audioset/hub/some--body/x.tar"}


def test_permanent_answers_are_never_asked_again(folder, server, monkeypatch):
    monkeypatch.setattr(youtube, "ANSWERS", (("removed", "404"), *youtube.ANSWERS))
    fetch(folder, "youtube", server=server)
    assert states(folder)[EVAL[7]] == "removed" and states(folder)[TRAIN[11]] == "removed"
    server.faults()
    fetch(folder, "youtube", server=server)
    assert (
        not server.log() and states(folder)[EVAL[7]] == "removed" and states(folder)[TRAIN[10]] == "youtube"
    )


def test_being_taken_for_a_robot_keeps_what_there_is(folder, server, monkeypatch):
    monkeypatch.setattr(youtube, "MOST_FAILURES", 100)
    server.faults(*[{"do": "status", "status": 429}] * 3)
    with pytest.raises(UserError) as refused:
        fetch(folder, "youtube", server=server, jobs=1)
    assert (
        refused.value.code == "service-refused"
        and set(states(folder).values()) <= {"failed", "not-found", "youtube"}
        and len(records(folder)) == 20
    )
    server.faults()
    fetch(folder, "youtube", server=server)
    assert states(folder)[TRAIN[10]] == states(folder)[EVAL[6]] == "youtube"


def test_offline_the_ledger_is_written_and_the_message_says_what_to_put_where(folder, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(UserError) as refused:
        fetch(folder, WDS)
    assert (
        refused.value.code == "no-network"
        and "--include '20k/train/*' --include '20k/test/*' --local-dir copy" in str(refused.value)
        and len(records(folder)) == 20
    )


def test_a_list_of_ones_own_takes_from_every_folder_of_a_copy(folder, server):
    (folder / "mine.csv").write_text(table([TRAIN[5], EVAL[1]]))
    fetch(folder, WDS, server=server, tables=("mine.csv",))
    assert states(folder) == dict.fromkeys([TRAIN[5], EVAL[1]], "hub confit/audioset-16khz-wds") and not any(
        "500k" in path for path in tree(folder)
    )


def test_of_a_copy_only_the_folder_that_is_named(folder, server):
    (folder / "as500k.csv").write_text(table([TRAIN[5], TRAIN[11]]))
    fetch(folder, f"{WDS}/500k/", server=server, tables=("as500k.csv",))
    assert states(folder) == dict.fromkeys([TRAIN[5], TRAIN[11]], "hub confit/audioset-16khz-wds")
    assert {path for path in tree(folder) if path.endswith(".tar")} == {
        "hub/confit--audioset-16khz-wds/500k/train/0.tar"
    }


def test_a_disk_that_fills_up_is_no_missing_clip(folder, server):
    def work():
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        try:
            fetch(folder, "youtube", server=server, tables=("eval",))
        except UserError as error:
            assert error.code == "disk-full", error
        else:
            raise AssertionError("it ended well")

    assert in_child(work) == 0


def test_too_little_room_is_seen_first(folder, server, monkeypatch):
    monkeypatch.setattr(http, "SPARE", 1 << 60)
    with pytest.raises(UserError) as refused:
        fetch(folder, WDS, server=server)
    assert refused.value.code == "disk-full" and not any(
        path.endswith((".tar", ".partial")) for path in tree(folder)
    )


def test_bad_rows_are_in_the_ledger(folder):
    (folder / "eval_segments.csv").write_text(
        '../../etc/passwd, 0, 10, "/m/09x0r"\n--exec_touc, 0, 10, "/m/09x0r"\n-aaaaaaaaaa, 10, 0, '
        '"/m/09x0r"\n$(touch me), 0, 10, "/m/09x0r"\n'
    )
    fetch(folder, tables=("eval",))
    assert [record["because"] for record in records(folder)] == ["bad-row", "not-found", "bad-row", "bad-row"]


def test_a_cut_line_of_answers_is_passed_over(folder, server):
    (folder / ledger.ANSWERS).write_text(
        ledger.answer_line(TRAIN[0], 30.0, ledger.Answer("removed", "gone")) + '{"id": "' + TRAIN[1]
    )
    with ledger.open_answers(folder) as file:
        file.write(ledger.answer_line(TRAIN[2], 30.0, ledger.Answer("private", "gone")))
    fetch(folder)
    assert [states(folder)[name] for name in TRAIN[:3]] == ["removed", "not-found", "private"] and not (
        folder / ledger.ANSWERS
    ).exists()


@pytest.mark.parametrize(
    "source",
    ["none-such", "hub:x", "hub:../..", "hub:a/../b", "hub:a/b/..", "hub:a/b//c", "hub:a/b/.c", "youtub"],
)
def test_unknown_sources(folder, source):
    with pytest.raises(UserError):
        fetch(folder, source)
    assert not (folder / ledger.LEDGER).exists()


def test_without_tables(tmp_path):
    with pytest.raises(UserError, match="beatline fetch audioset"):
        fetch(tmp_path)


def test_a_folder_is_linked_once_and_never_itself(folder, tmp_path):
    for name in ("one/x", "two/x"):
        (tmp_path / name).mkdir(parents=True)
    for _ in range(2):
        fetch(folder, str(tmp_path / "one/x"), str(tmp_path / "two/x"), str(folder))
    assert sorted(os.listdir(folder / "local")) == ["x", "x-1"]
    with pytest.raises(UserError):
        fetch(folder, str(tmp_path))
    write(tmp_path / ".cache/.sounds", {f"{TRAIN[0]}.wav": wav()})
    fetch(folder, str(tmp_path / ".cache/.sounds"))
    assert states(folder)[TRAIN[0]] == "local"
