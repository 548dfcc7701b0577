"""A published folder is whole or does not exist."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from beatline.core import artefact
from beatline.core.errors import UserError


def make(folder: Path) -> Path:
    with artefact.publish(folder, {"kind": "test"}) as partial:
        (partial / "a.bin").write_bytes(bytes(range(256)) * 8)
        (partial / "sub").mkdir()
        (partial / "sub/b.txt").write_text("hello\n")
    return folder


@pytest.mark.parametrize("name", [".", "..", "/", "below/.."])
def test_a_folder_that_cannot_be_replaced_is_refused_and_left_alone(tmp_path, monkeypatch, name):
    (tmp_path / "here/below").mkdir(parents=True)
    (tmp_path / "here/precious").touch()
    monkeypatch.chdir(tmp_path / "here")
    with (
        pytest.raises(UserError, match="name a folder below it") as refused,
        artefact.publish(Path(name), {"kind": "x"}),
    ):
        pass
    assert (
        refused.value.code == "not-writable"
        and (tmp_path / "here/precious").exists()
        and len(list(tmp_path.iterdir())) == 1
    )


def test_a_published_folder_verifies(tmp_path):
    folder = make(tmp_path / "x")
    assert artefact.verify(folder) == {"kind": "test"} == artefact.read_contents(folder)
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


@pytest.mark.parametrize("name", ["a.bin", "sub/b.txt", "contents.json"])
def test_every_flipped_bit_is_found_and_the_file_named(tmp_path, name):
    folder = make(tmp_path / "x")
    path = folder / name
    original = path.read_bytes()
    for place in range(0, len(original), max(1, len(original) // 97)):
        for bit in (0, 5):
            changed = bytearray(original)
            changed[place] ^= 1 << bit
            path.write_bytes(changed)
            with pytest.raises(UserError) as caught:
                artefact.verify(folder)
            assert caught.value.code == "corrupt-artefact" and (
                name in str(caught.value) or name == "contents.json"
            )
    path.write_bytes(original)
    artefact.verify(folder)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda f: os.truncate(f / "a.bin", 100), "100 bytes instead of 2048"),
        (lambda f: (f / "a.bin").unlink(), "missing"),
        (lambda f: (f / "new").write_text("x"), "not in the list of contents"),
        (lambda f: os.truncate(f / "contents.json", 40), "no readable list of contents"),
    ],
)
def test_cut_missing_and_extra_files_are_found(tmp_path, damage, words):
    folder = make(tmp_path / "x")
    damage(folder)
    with pytest.raises(UserError, match=words):
        artefact.verify(folder)


def older(folder: Path) -> Path:
    """The folder as an earlier version has published it."""
    (folder / "contents.json").rename(folder / "manifest.json")
    return folder


def test_a_folder_of_an_earlier_version_is_read(tmp_path):
    folder = older(make(tmp_path / "x"))
    assert artefact.verify(folder) == {"kind": "test"} == artefact.read_contents(folder)
    (folder / "a.bin").write_bytes(bytes(2048))
    assert list(artefact.damaged(folder)) == [("a.bin", "SHA-256 differs from the list of contents")]
    (folder / "manifest.json").write_text("{}")
    ((name, cause),) = artefact.damaged(folder)
    assert name == "manifest.json" and cause.startswith("no readable list of contents")


def test_a_folder_of_an_earlier_version_keeps_its_list_s_name_and_bytes(tmp_path):
    folder = older(make(tmp_path / "x"))
    before = (folder / "manifest.json").read_bytes()
    artefact.seal(folder, {"kind": "test"})
    assert (folder / "manifest.json").read_bytes() == before and not (folder / "contents.json").exists()
    make(folder)
    assert (folder / "contents.json").read_bytes() == before and not (folder / "manifest.json").exists()


def test_of_two_lists_the_newer_counts(tmp_path):
    folder = make(tmp_path / "x")
    (folder / "manifest.json").write_text("{}")
    assert artefact.verify(folder) == {"kind": "test"}


def test_a_failure_leaves_the_old_folder_and_no_rest(tmp_path):
    folder = make(tmp_path / "x")
    with pytest.raises(RuntimeError), artefact.publish(folder, {"kind": "new"}) as partial:
        (partial / "a.bin").write_text("half")
        raise RuntimeError
    assert artefact.verify(folder) == {"kind": "test"}
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_a_replacement_cut_between_its_renames_is_undone(tmp_path):
    folder = make(tmp_path / "x")
    folder.rename(tmp_path / "x.old")
    artefact.recover(folder)
    assert artefact.verify(folder) == {"kind": "test"}
    make(tmp_path / "x.old")  # cut after the second rename: the new one stands
    artefact.recover(folder)
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_second_run_in_a_folder_is_refused_and_the_lock_dies_with_its_process(tmp_path):
    code = (
        f"import time; from pathlib import Path; from beatline.core.artefact import FolderLock\nwith "
        f"FolderLock(Path({str(tmp_path)!r})): print('in', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout.readline() == "in\n"
        with pytest.raises(UserError, match=f"process {child.pid}") as caught, artefact.FolderLock(tmp_path):
            pass
        assert caught.value.exit_code == 5
        child.kill()
    with artefact.FolderLock(tmp_path):
        pass


def test_a_full_disk_is_one_line(tmp_path):
    """The real refusal of the operating system: a file-size limit in a child process."""
    code = (
        "import resource, sys; from pathlib import Path; from beatline.core import artefact; from "
        "beatline.core.errors import UserError\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))\n"
        "try:\n"
        f"    with artefact.publish(Path({str(tmp_path / 'x')!r}), {{}}) as partial: (partial / "
        f"'big').write_bytes(bytes(1_000_000))\n"
        "except UserError as error: print(error); sys.exit(error.exit_code)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 5 and "disk-full" in done.stdout, done
    assert list(tmp_path.iterdir()) == []


def test_write_atomic_replaces(tmp_path):
    path = tmp_path / "d/f"
    artefact.write_atomic(path, "one")
    artefact.write_atomic(path, "two")
    assert path.read_text() == "two" and len(list(path.parent.iterdir())) == 1


def test_what_exists_is_refused_in_one_line(tmp_path):
    artefact.refuse_existing(tmp_path / "new")
    with pytest.raises(UserError, match="it is there already") as refused:
        artefact.refuse_existing(tmp_path)
    assert refused.value.code == "not-writable" and str(tmp_path) in str(refused.value)
