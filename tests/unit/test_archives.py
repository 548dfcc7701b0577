"""What lies in an archive comes out as it went in, and nothing in it leads anywhere else."""

import io
import os
import subprocess
import sys
import tarfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import soundfile

from beatline.audio import archives
from beatline.audio.archives import common
from beatline.core.errors import UserError

EXTENSIONS = (".wav", ".flac")


def tar(path: Path, members: dict[str, bytes], form: int = tarfile.GNU_FORMAT) -> Path:
    with tarfile.open(path, "w", format=form) as file:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return path


def listed(path: Path) -> list[archives.Entry]:
    return list(archives.listing(path, EXTENSIONS))


def problems(path: Path) -> list[tuple[str, str]]:
    return [(entry.name, entry.problem[0]) for entry in listed(path) if entry.problem]


def refused(code: str, path: Path, member: str) -> str:
    with pytest.raises(UserError) as caught:
        archives.read(path, member)
    assert caught.value.code == code, caught.value
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)
    return str(caught.value)


# --- tar


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
def test_tar_members_come_out_as_they_went_in(tmp_path, form):
    members = {
        "a.wav": b"one",
        "sub/b.flac": os.urandom(1000),
        "notes.txt": b"no audio",
        "d/" * 40 + "c.wav": os.urandom(513),
        "empty.wav": b"",
    }
    if form != tarfile.USTAR_FORMAT:
        members |= {"x" * 150 + ".wav": b"long name", "caf\u00e9.wav": b"not ascii"}
    path = tar(tmp_path / "x.tar", members, form)
    found = {entry.name: archives.read(path, entry.member) for entry in listed(path)}
    assert found == {name: content for name, content in members.items() if name != "notes.txt"}
    with archives.opened(
        path, next(entry.member for entry in listed(path) if entry.name == "sub/b.flac")
    ) as (read_at, size):
        assert size == 1000 and read_at(990, 100) == members["sub/b.flac"][990:] and read_at(2000, 5) == b""


def test_a_webdataset_key_ends_at_the_first_dot(tmp_path):
    path = tar(
        tmp_path / "x.tar",
        {
            "d/000123.audio.flac": b"0",
            "d/000123.json": b'{"id": "--PJHxphWEs"}',
            "a.b.wav": b"1",
            "a.b.json": b'{"id": "second_id00"}',
            "a.c.wav": b"2",
            "a.c.json": b'{"id": "third_id000"}',
            "fourth_id00.audio.wav": b"3",
        },
    )
    assert [entry.also for entry in listed(path)] == [
        "--PJHxphWEs",
        "second_id00",
        "third_id000",
        "fourth_id00",
    ]


def test_a_webdataset_sample_has_the_id_of_its_json(tmp_path):
    path = tar(
        tmp_path / "x.tar",
        {
            "s-0.json": b'{"id": "--PJHxphWEs", "label": ["Speech"]}',
            "s-0.wav": b"0",
            "s-1.wav": b"1",
            "s-1.json": b'{"ytid": "second_id00"}',
            "s-2.wav": b"2",
            "s-2.json": b"[",
            "s-3.wav": b"3",
            "s-3.json": b'{"id": 3}',
        },
    )
    assert [(entry.name, entry.also) for entry in listed(path)] == [
        ("s-0.wav", "--PJHxphWEs"),
        ("s-1.wav", "second_id00"),
        ("s-2.wav", ""),
        ("s-3.wav", ""),
    ]


def test_names_that_leave_the_archive_links_and_devices_are_listed_with_their_problem(tmp_path):
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as file:
        for name in ("/etc/a.wav", "../b.wav", "a/../../c.wav", "C:\\d.wav", "a\\..\\e.wav"):
            file.addfile(tarfile.TarInfo(name))
        for name, kind in (
            ("link.wav", tarfile.SYMTYPE),
            ("hard.wav", tarfile.LNKTYPE),
            ("fifo.wav", tarfile.FIFOTYPE),
            ("device.wav", tarfile.CHRTYPE),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            file.addfile(info)
        file.addfile(tarfile.TarInfo("folder.wav/"))
        file.addfile(tarfile.TarInfo("good..wav"))
    names = ("/etc/a.wav", "../b.wav", "a/../../c.wav", "C:\\d.wav", "a\\..\\e.wav")
    assert problems(path) == [(name, "unsafe-path") for name in names] + [
        (name, "not-a-file") for name in ("link.wav", "hard.wav", "fifo.wav", "device.wav")
    ]
    link = next(entry.member for entry in listed(path) if entry.name == "link.wav")
    refused("bad-archive", path, link)


def test_damaged_tar_files_give_what_is_whole_and_say_so(tmp_path):
    whole = tar(tmp_path / "x.tar", {"a.wav": bytes(700), "b.wav": bytes(700)}).read_bytes()
    for content, names in (
        (whole[:1600], ["a.wav", ""]),
        (whole[:600], [""]),
        (b"no tar at all" * 100, [""]),
        (whole[:1024] + b"\xff" + whole[1025:], ["a.wav", "b.wav"]),
        (whole[:1536] + b"\xff" + whole[1537:], ["a.wav", ""]),
    ):
        (tmp_path / "y.tar").write_bytes(content)
        assert [entry.name for entry in listed(tmp_path / "y.tar")] == names
        assert [code for _, code in problems(tmp_path / "y.tar")] == ["bad-archive"] * ("" in names)
    (tmp_path / "empty.tar").touch()
    assert problems(tmp_path / "empty.tar") == [("", "bad-archive")]
    with tarfile.open(tmp_path / "z.tar.gz", "w:gz") as file:
        file.addfile(tarfile.TarInfo("a.wav"))
    assert "unpack" in listed(tmp_path / "z.tar.gz")[0].problem[1]


def test_a_header_that_promises_more_than_there_is(tmp_path):
    for size in (b"77777777777\0", b"\x80" + bytes(3) + b"\xff" * 8, b"-0000000001\0", b"nonsense    "):
        block = bytearray(tarfile.TarInfo("a.wav").tobuf())
        for kind in (b"0", b"x", b"L"):
            block[124:136], block[156:157] = size, kind
            block[148:156] = b" " * 8
            block[148:156] = b"%06o\0 " % sum(block)
            (tmp_path / "x.tar").write_bytes(bytes(block) + bytes(2048))
            assert problems(tmp_path / "x.tar")[-1][1] == "bad-archive"


def test_a_member_beyond_the_limit_is_not_read(tmp_path, monkeypatch):
    path = tar(tmp_path / "x.tar", {"a.wav": bytes(2000), "b.wav": b"x"})
    member = listed(path)[0].member
    for module in (common, archives.tar):
        monkeypatch.setattr(module, "LIMITS", type(common.LIMITS)(max_member_bytes=1000))
    assert problems(path) == [("a.wav", "too-large")]
    refused("too-large", path, member)


def test_an_archive_that_changed_gives_no_wrong_audio(tmp_path):
    path = tar(tmp_path / "x.tar", {"a.wav": bytes(700), "b.wav": b"b" * 700})
    member = listed(path)[1].member
    tar(path, {"other.wav": bytes(3000)})
    refused("bad-archive", path, member)
    path.unlink()
    refused("missing-file", path, member)
    os.mkfifo(path)
    refused("not-a-file", path, member)  # without waiting for a writer
    assert problems(path) == [("", "not-a-file")]


# --- Parquet


@pytest.fixture
def parquet(tmp_path):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    rows = [{"bytes": f"audio {i}".encode() * (i + 1), "path": f"{i}.flac"} for i in range(25)]
    table = pa.table(
        {"video_id": [f"id{i:09d}" for i in range(25)], "audio": rows, "labels": [["/m/09x0r"]] * 25}
    )
    pq.write_table(table, tmp_path / "x.parquet", row_group_size=10)
    return tmp_path / "x.parquet"


def test_parquet_rows_in_any_order(parquet):
    entries = listed(parquet)
    assert [entry.name for entry in entries] == [f"id{i:09d}" for i in range(25)]
    for i in (0, 1, 5, 9, 10, 24, 3, 3, 11, 24, 0):
        assert archives.read(parquet, entries[i].member) == f"audio {i}".encode() * (i + 1)
    refused("bad-archive", parquet, "25")


def test_parquet_written_anew_is_read_anew(parquet):
    import pyarrow as pa
    import pyarrow.parquet as pq

    assert archives.read(parquet, "0") == b"audio 0"
    pq.write_table(pa.table({"id": ["a"], "audio": [b"flat column"]}), parquet)
    os.utime(parquet, ns=(0, 0))
    assert [entry.name for entry in listed(parquet)] == ["a"] and archives.read(
        parquet, "0"
    ) == b"flat column"


def test_parquet_without_audio_or_damaged(tmp_path, parquet, monkeypatch):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"id": ["a"], "text": ["b"]}), tmp_path / "text.parquet")
    assert listed(tmp_path / "text.parquet") == []
    pq.write_table(
        pa.table(
            {"id": ["a", None], "audio": [{"bytes": None, "path": "a"}, {"bytes": b"x", "path": "b"}]},
            schema=pa.schema(
                [("id", pa.string()), ("audio", pa.struct([("bytes", pa.binary()), ("path", pa.string())]))]
            ),
        ),
        tmp_path / "none.parquet",
    )
    assert [entry.name for entry in listed(tmp_path / "none.parquet")] == ["a", "1"] and archives.read(
        tmp_path / "none.parquet", "1"
    ) == b"x"
    pq.write_table(
        pa.table({"number": [7, 8, 9], "audio": [b"one", b"two", b"three"]}),
        tmp_path / "nameless.parquet",
        row_group_size=2,
    )
    assert [
        (entry.name, archives.read(tmp_path / "nameless.parquet", entry.member))
        for entry in listed(tmp_path / "nameless.parquet")
    ] == [("0", b"one"), ("1", b"two"), ("2", b"three")]
    refused("bad-archive", tmp_path / "none.parquet", "0")
    content = parquet.read_bytes()
    for damaged in (
        b"",
        b"PAR1",
        content[: len(content) // 2],
        b"text" * 100,
        content[:-200] + b"\xa5" * 150 + content[-50:],
    ):
        (tmp_path / "bad.parquet").write_bytes(damaged)
        assert problems(tmp_path / "bad.parquet")[-1][1] == "bad-archive"
        refused("bad-archive", tmp_path / "bad.parquet", "0")
    (tmp_path / "bad.parquet").write_bytes(content[:4] + b"\xff" * 600 + content[604:])
    refused("bad-archive", tmp_path / "bad.parquet", "0")
    monkeypatch.setattr(archives.parquet, "LIMITS", type(common.LIMITS)(max_row_group_bytes=100))
    refused("too-large", parquet, "24")
    monkeypatch.undo()
    monkeypatch.setattr(common, "LIMITS", type(common.LIMITS)(max_member_bytes=100))
    refused("too-large", parquet, "24")


# --- HDF5


@pytest.fixture
def hdf5(tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "mp3.hdf", "w") as file:
        file.create_dataset("audio_name", data=np.array([b"Y--PJHxphWEs.mp3", b"Y--ZhevVpy1s.mp3"], "S20"))
        audio = file.create_dataset("mp3", (2,), h5py.vlen_dtype(np.uint8))
        audio[0], audio[1] = np.frombuffer(b"first", np.uint8), np.frombuffer(b"second one", np.uint8)
        file.create_dataset("target", data=np.zeros((2, 66), np.uint8))
    with h5py.File(tmp_path / "int16.h5", "w") as file:
        file.create_dataset("audio_name", data=["a", "b"])
        file.create_dataset("waveform", data=np.arange(64_000, dtype=np.int16).reshape(2, 32_000))
        file.create_dataset("target", data=np.zeros((2, 527), bool))
    return tmp_path


def test_hdf5_of_mp3_and_of_samples(hdf5):
    h5py = pytest.importorskip("h5py")
    entries = listed(hdf5 / "mp3.hdf")
    assert [entry.name for entry in entries] == ["Y--PJHxphWEs.mp3", "Y--ZhevVpy1s.mp3"]
    assert [archives.read(hdf5 / "mp3.hdf", entry.member) for entry in entries] == [b"first", b"second one"]
    samples, rate = soundfile.read(io.BytesIO(archives.read(hdf5 / "int16.h5", "1")), dtype="int16")
    assert rate == 32_000 and np.array_equal(
        samples, np.arange(32_000, 64_000, dtype=np.int32).astype(np.int16)
    )
    with h5py.File(hdf5 / "int16.h5", "a") as file:
        file.attrs["sample_rate"] = 16_000
    assert soundfile.info(io.BytesIO(archives.read(hdf5 / "int16.h5", "0"))).samplerate == 16_000
    refused("bad-archive", hdf5 / "int16.h5", "2")


def test_hdf5_leads_to_no_other_file(hdf5):
    h5py = pytest.importorskip("h5py")
    (hdf5 / "secret").write_bytes(bytes(64))
    with h5py.File(hdf5 / "link.h5", "w") as file:
        file["audio_name"] = [b"a", b"b"]
        file["mp3"] = h5py.ExternalLink("mp3.hdf", "/mp3")
        file.create_dataset("waveform", (2, 16), np.int16, external=[("secret", 0, 64)])
        layout = h5py.VirtualLayout((2, 32_000), np.int16)
        layout[:] = h5py.VirtualSource("int16.h5", "waveform", (2, 32_000))
        file.create_virtual_dataset("virtual", layout)
    assert listed(hdf5 / "link.h5") == []
    refused("bad-archive", hdf5 / "link.h5", "0")


def test_hdf5_that_would_become_large(tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "names.h5", "w") as file:
        file.create_dataset("audio_name", (1 << 22,), "S20", chunks=(1 << 16,), compression="gzip")
        file.create_dataset("waveform", (1 << 22, 16), np.int16, chunks=(1 << 10, 16))
    with h5py.File(tmp_path / "chunk.h5", "w") as file:
        file["audio_name"] = [b"a"]
        file.create_dataset(
            "waveform",
            (1, 1 << 16),
            np.int16,
            maxshape=(None, None),
            chunks=(1 << 11, 1 << 16),
            compression="gzip",
        )
        file["waveform"].id.write_direct_chunk((0, 0), zlib.compress(bytes(1 << 28)))
    assert all((tmp_path / name).stat().st_size < 1 << 19 for name in ("names.h5", "chunk.h5"))
    assert problems(tmp_path / "names.h5") == [("", "too-large")]
    assert [entry.name for entry in listed(tmp_path / "chunk.h5")] == ["a"]
    refused("too-large", tmp_path / "chunk.h5", "0")


def test_damaged_hdf5(hdf5):
    content = (hdf5 / "mp3.hdf").read_bytes()
    for damaged in (b"", b"\x89HDF\r\n\x1a\n", content[: len(content) // 2], b"text" * 100):
        (hdf5 / "bad.h5").write_bytes(damaged)
        assert problems(hdf5 / "bad.h5") == [("", "bad-archive")]
        refused("bad-archive", hdf5 / "bad.h5", "0")


# --- what is not installed


def test_a_missing_package_is_named_with_its_extra_and_tar_needs_none(parquet, hdf5, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    monkeypatch.setitem(sys.modules, "h5py", None)
    for path in (parquet, hdf5 / "mp3.hdf"):
        with pytest.raises(UserError, match=r"beatline\[data\]") as caught:
            listed(path)
        assert caught.value.code == "missing-package"
        with pytest.raises(UserError, match=r"beatline\[data\]"):
            archives.read(path, "0")


def test_reading_imports_neither_torch_nor_what_is_not_needed(tmp_path):
    path = tar(tmp_path / "x.tar", {"a.wav": b"one"})
    program = (
        "import sys; from pathlib import Path; from beatline.audio import archives; assert "
        "archives.read(Path(sys.argv[1]), '0:a.wav') == b'one'; print([name for name in ('torch', "
        "'pyarrow', 'h5py', 'numpy') if name in sys.modules])"
    )
    assert (
        subprocess.run(
            [sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True
        ).stdout.strip()
        == "[]"
    )
