"""Whatever layout a copy of AudioSet came in, every id ends at its audio, or in the ledger."""

import io
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

from beatline.audio import archives
from beatline.config import DataConfig
from beatline.core.errors import UserError
from beatline.core.labels import audioset
from beatline.data import manifest
from beatline.data.manifest import Manifest, sources
from beatline.data.prepare import prepare
from beatline.data.store import Store
from beatline.train import frame_targets as frames

IDS = ("--PJHxphWEs", "Y-ZhevVpy1s", "YaE2O5G5WEY", "_aO5cdq_Ag_", "-___-___-__", "0123456789_")
TRAIN, EVAL = IDS[:4], IDS[4:]
START = {name: 30.0 if i % 2 else 0.0 for i, name in enumerate(IDS)}


def segment_csv(names: tuple[str, ...]) -> str:
    lines = "".join(
        f'{name}, {START[name]:.3f}, {START[name] + 10:.3f}, "/m/09x0r,/m/068hy"\n' for name in names
    )
    return (
        f"# Segments csv\n# num_ytids={len(names)}, num_segs={len(names)}\n# YTID, start_seconds, "
        f"end_seconds, positive_labels\n{lines}"
    )


@pytest.fixture
def root(tmp_path):
    (tmp_path / "balanced_train_segments.csv").write_text(segment_csv(TRAIN))
    (tmp_path / "eval_segments.csv").write_text(segment_csv(EVAL))
    return tmp_path


def wav(seconds: float, rate: int = 8000, form: str = "WAV") -> bytes:
    stream = io.BytesIO()
    soundfile.write(stream, np.zeros(round(seconds * rate), np.float32), rate, format=form)
    return stream.getvalue()


def put(path: Path, content: bytes = wav(0.1)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def tar(path: Path, members: dict[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as file:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))


def read(root: Path, **data: object) -> Manifest:
    found = manifest.read(DataConfig(audioset=root, **data))
    assert found.inputs == len(found.clips) + len(found.rejected)
    return found


def recordings(found: Manifest, split: str) -> list[str]:
    return [found.clips[i].recording for i in found.splits[split]]


def whole(found: Manifest) -> Manifest:
    """All six ids are there, each with its own audio."""
    assert (
        not found.rejected
        and recordings(found, "train") == list(TRAIN)
        and recordings(found, "test") == list(EVAL)
    )
    assert [clip.id for clip in found.clips] == [f"as20k-train-{i}" for i in range(4)] + [
        "as20k-eval-0",
        "as20k-eval-1",
    ]
    return found


# --- layouts


def stamp(name: str) -> str:
    return f"{name}_{int(START[name])}_{int(START[name]) + 10}"


LAYOUTS = {
    "ESPnet": lambda name, part: f"{'balance_wav' if part == 'train' else 'eval_wav'}/{name}.wav",
    "prefixed": lambda name, part: (
        f"audios/{'balanced_train' if part == 'train' else 'eval'}_segments/Y{name}.wav"
    ),
    "parts": lambda name, part: f"unbalanced_train_segments_part{len(name) % 41:02d}/Y{name}.mp3",
    "start and end": lambda name, part: f"{stamp(name)}.wav",
    "start, dash, end": lambda name, part: f"a/b/{name}_{int(START[name])}-{int(START[name]) + 10}.m4a",
    "milliseconds": lambda name, part: f"{name}_{int(START[name] * 1000)}.FLAC",
    "start with decimals": lambda name, part: f"{name}_{START[name]:.3f}.flac",
    "padded start": lambda name, part: f"{name}_{int(START[name]):06d}.mp4",
    "prefixed with start": lambda name, part: f"Y{stamp(name)}.opus",
    "flac by set": lambda name, part: f"{'bal_train' if part == 'train' else 'eval'}/{name}.flac",
    "Kaggle": lambda name, part: f"{part}_wav/{name}.wav",
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_plain_folders_with_any_form_of_name(root, layout):
    expected = [
        put(root / "data" / LAYOUTS[layout](name, "train" if name in TRAIN else "valid")) for name in IDS
    ]
    put(root / "data/README.txt")
    put(root / "data/Yunrelated01.wav")
    found = whole(read(root))
    assert [clip.path for clip in found.clips] == expected and all(
        (clip.start, clip.end, clip.member) == (0.0, None, "") for clip in found.clips
    )
    assert found.labels is audioset() and found.notices == ("audio of 6 of 6 rows: 6 files",)


def test_kaggles_tables_stand_in_for_the_official_ones(root):
    (root / "balanced_train_segments.csv").unlink()
    (root / "eval_segments.csv").unlink()
    for table, names in (("train.csv", TRAIN), ("valid.csv", EVAL)):
        put(
            root / table,
            (
                "YTID,start_seconds,end_seconds,positive_labels\n"
                + "".join(f'{name},{START[name]},{START[name] + 10},"/m/09x0r,/m/068hy"\n' for name in names)
            ).encode(),
        )
    for name in IDS:
        put(root / ("train_wav" if name in TRAIN else "valid_wav") / f"{name}.wav")
    whole(read(root))


def test_webdataset_tars_of_both_kinds(root):
    tar(
        root / "20k/train/00000.tar",
        {
            f"{i:06d}.{part}": (f'{{"id": "{name}"}}'.encode() if part == "json" else wav(0.1))
            for i, name in enumerate(TRAIN)
            for part in ("json", "wav")
        },
    )
    tar(root / "20k/test/eval00.tar", {f"audio/eval/Y{name}.flac": wav(0.1, form="FLAC") for name in EVAL})
    found = whole(read(root))
    for clip in found.clips:
        assert soundfile.info(io.BytesIO(archives.read(clip.path, clip.member))).frames == 800
    assert found.notices == ("audio of 6 of 6 rows: 6 members of tar files",)


def test_parquet_of_hugging_face_comes_in_the_order_of_its_rows(root):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    for file, names in (("train-00001", TRAIN[:2]), ("train-00000", TRAIN[:1:-1]), ("test-00000", EVAL)):
        (root / "data").mkdir(exist_ok=True)
        pq.write_table(
            pa.table(
                {
                    "video_id": list(names),
                    "audio": [
                        {"bytes": wav(0.1) + name.encode(), "path": f"audio/{name}.flac"} for name in names
                    ],
                    "labels": [["/m/09x0r"]] * len(names),
                    "human_labels": [["Speech"]] * len(names),
                }
            ),
            root / f"data/{file}-of-2.parquet",
        )
    found = read(root)
    assert (
        not found.rejected
        and recordings(found, "train") == [TRAIN[3], TRAIN[2], TRAIN[0], TRAIN[1]]
        and sorted(recordings(found, "test")) == sorted(EVAL)
    )
    assert {clip.id: clip.recording for clip in found.clips}["as20k-train-2"] == TRAIN[2]
    assert all(
        archives.read(clip.path, clip.member).endswith(clip.recording.encode()) for clip in found.clips
    )


def test_hdf5_of_mp3_and_of_samples(root):
    h5py = pytest.importorskip("h5py")
    with h5py.File(root / "balanced_train_segments_mp3.hdf", "w") as file:
        file["audio_name"] = np.array([f"Y{name}.mp3" for name in TRAIN], "S20")
        audio = file.create_dataset("mp3", (4,), h5py.vlen_dtype(np.uint8))
        for i in range(4):
            audio[i] = np.frombuffer(wav(0.1), np.uint8)
    with h5py.File(root / "eval.h5", "w") as file:
        file["audio_name"] = np.array([f"Y{name}.wav" for name in EVAL], "S20")
        file["waveform"] = np.zeros((2, 3200), np.int16)
    found = whole(read(root))
    assert [
        soundfile.info(io.BytesIO(archives.read(clip.path, clip.member))).frames for clip in found.clips
    ] == [800] * 4 + [3200] * 2


def test_tsv_lists_of_files_elsewhere(root, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("disk")
    for name in IDS[:5]:
        put(elsewhere / f"clips/Y{name}.wav")
    (root / "a").mkdir()
    (root / "a/train.tsv").write_text(
        f"{elsewhere}\nclips/Y{IDS[0]}.wav\t160000\n"
    )  # another of the same name
    (root / "train.tsv").write_text(
        f"{elsewhere}\n"
        + "".join(f"clips/Y{name}.wav\t160000\n" for name in IDS[1:])
        + "../../etc/passwd\t1\n"
    )
    (root / "other.tsv").write_text("a\tb\nc\td\n")
    put(root / f"here/{IDS[5]}.wav")
    found = read(root)
    assert [clip.path for clip in found.clips] == [elsewhere / f"clips/Y{name}.wav" for name in IDS[:5]] + [
        root / f"here/{IDS[5]}.wav"
    ]
    assert [(r.input, r.code) for r in found.rejected] == [("train.tsv line 7", "unsafe-path")]
    (root / "train.tsv").write_text(
        "/of/another/machine\n" + "".join(f"here/Y{name}.wav\t160000\n" for name in IDS[:5])
    )
    for name in IDS[:5]:
        put(root / f"here/Y{name}.wav")
    whole(read(root))


def test_a_leading_y_is_part_of_the_id_where_the_ids_say_so():
    wanted = {"Yabcdefghij", "abcdefghijk", "Y0123456789", "bcdefghij_3", "_0123456789"}
    names = {
        "Yabcdefghij.wav": "Yabcdefghij",
        "Yabcdefghijk.wav": "abcdefghijk",
        "YYabcdefghij.wav": "Yabcdefghij",
        "Y0123456789_30_40.wav": "Y0123456789",
        "Y_0123456789_30.wav": "_0123456789",
        "Y01234567890.wav": None,
        "abcdefghijkl.wav": None,
    }
    for name, expected in names.items():
        found = sources.match_id(sources.split_name(name)[0], wanted)
        assert (found and found[1]) == expected


def test_of_several_the_documented_one_is_taken(root):
    for name in IDS:
        put(root / f"z/{name}.mp3")
        put(root / f"b/{name}.wav")
        put(root / f"a/{name}.flac")
        put(root / f"c/{name}.wav")
    tar(root / "0.tar", {f"{name}.wav": wav(0.1) for name in IDS})
    assert {clip.path.parent.name for clip in whole(read(root)).clips} == {"b"}
    for folder in ("b", "c"):
        for name in IDS:
            (root / folder / f"{name}.wav").unlink()
    assert {clip.path.parent.name for clip in whole(read(root)).clips} == {"a"}


# --- whole recordings


def test_whole_recordings_are_cut_to_the_seconds_of_the_table_and_excerpts_are_not(root):
    lengths = {
        TRAIN[0]: 200.0,
        TRAIN[1]: 200.0,
        TRAIN[2]: 10.4,
        TRAIN[3]: 10.4,
        EVAL[0]: 35.0,
        EVAL[1]: 20.0,
    }  # the last one: too long, and too short to be whole
    for name, seconds in lengths.items():
        put(root / f"audio/{name}.wav", wav(seconds))
    found = whole(read(root))
    stretches = {clip.recording: (clip.start, clip.end) for clip in found.clips}
    assert stretches == {
        TRAIN[0]: (0.0, 10.0),
        TRAIN[1]: (30.0, 40.0),
        TRAIN[2]: (0.0, None),
        TRAIN[3]: (0.0, None),
        EVAL[0]: (0.0, 10.0),
        EVAL[1]: (0.0, None),
    }
    assert found.notices[-1].endswith("3 whole recordings are cut")


def test_whole_recordings_in_tar_and_parquet_are_cut_too(root):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    tar(root / "a.tar", {f"{name}.flac": wav(100.0, form="FLAC") for name in TRAIN})
    pq.write_table(pa.table({"id": list(EVAL), "audio": [wav(100.0)] * 2}), root / "b.parquet")
    assert [(clip.start, clip.end) for clip in whole(read(root)).clips] == [
        (START[name], START[name] + 10) for name in IDS
    ]


def test_a_name_that_states_its_seconds_is_believed_and_another_excerpt_is_not_taken(root):
    for name in IDS:
        put(root / f"{stamp(name)}.wav", wav(60.0))
    put(root / f"{TRAIN[0]}_120_130.wav")
    assert all((clip.start, clip.end) == (0.0, None) for clip in whole(read(root)).clips)
    (root / f"{stamp(TRAIN[0])}.wav").unlink()
    assert [(r.input, r.code) for r in read(root).rejected] == [("as20k-train-0", "missing-file")]


def test_of_a_large_folder_a_part_is_measured_until_one_is_whole(root, monkeypatch):
    monkeypatch.setattr(sources, "EVERY_FILE", 3)
    monkeypatch.setattr(sources, "SPREAD", 2)
    opened = []
    real = archives.opened
    monkeypatch.setattr(
        archives, "opened", lambda path, member="": opened.append(path.name) or real(path, member)
    )
    for name in IDS:
        put(root / f"{name}.wav")
    assert all(clip.end is None for clip in whole(read(root)).clips) and len(opened) == 2
    put(root / f"{IDS[0]}.wav", wav(100.0))
    put(root / f"{IDS[1]}.wav", wav(100.0))
    assert [clip.end for clip in whole(read(root)).clips] == [10.0, 40.0, None, None, None, None]


# --- which tables


def test_the_unbalanced_set_and_any_other_list(root):
    names = tuple(f"unbalanced{i}" for i in range(5))
    START.update(dict.fromkeys(names, 0.0))
    (root / "unbalanced_train_segments.csv").write_text(segment_csv((*names, TRAIN[0])))
    (root / "half.csv").write_text(segment_csv((names[0], names[1])))
    for name in (*IDS, *names):
        put(root / f"{name}.wav")
    found = read(root, audioset_train=("balanced", "unbalanced"))
    assert [found.clips[i].id for i in found.splits["train"]] == [f"as20k-train-{i}" for i in range(4)] + [
        f"unbalanced_train-{i}" for i in range(5)
    ]
    assert [(r.input, r.code) for r in found.rejected] == [("unbalanced_train-5", "duplicate-id")]
    for half in ("half", "half.csv", str(root / "half.csv")):
        assert recordings(read(root, audioset_train=(half,)), "train") == list(names[:2])
    with pytest.raises(UserError, match="beatline fetch audioset") as caught:
        read(root, audioset_train=("strong",))
    assert caught.value.code == "missing-file"


def test_one_file_is_not_two_excerpts(root):
    (root / "balanced_train_segments.csv").write_text(
        segment_csv(TRAIN).split("# YTID")[0].split("# num")[0]
        + f'{TRAIN[0]}, 0.0, 10.0, "/m/09x0r"\n{TRAIN[0]}, 50.0, 60.0, "/m/068hy"\n'
    )
    for name in IDS:
        put(root / f"{name}.wav", wav(10.0))
    assert [(r.input, r.code) for r in read(root).rejected] == [("as20k-train-1", "duplicate-id")]
    put(root / f"{TRAIN[0]}.wav", wav(70.0))
    with (root / "balanced_train_segments.csv").open("a") as file:
        file.write(f'{TRAIN[0]}, 50.0, 60.0, "/m/09x0r"\n')
    found = read(root)
    assert [(r.input, r.code) for r in found.rejected] == [("as20k-train-2", "duplicate-id")] and [
        (clip.start, clip.end) for clip in found.clips[:2]
    ] == [(0.0, 10.0), (50.0, 60.0)]


STRONG = "segment_id\tstart_time_seconds\tend_time_seconds\tlabel\n"


def test_strong_labels_are_events_and_the_clips_labels_come_from_them(root, tmp_path):
    (root / "audioset_train_strong.tsv").write_bytes(
        b"\xef\xbb\xbf"
        + (
            STRONG + f"{TRAIN[1]}_30000\t2.5\t3.0\t/m/068hy\n"
            f"{TRAIN[1]}_30000\t0.1\t9.9\t/t/dd00006\nshort_0\t0\t1\t/m/068hy\n"
            f"{TRAIN[2]}_0\t5.0\t4.0\t/m/068hy\n{TRAIN[2]}_0\t0.0\t4.0\t/m/09x0r\n"
        )
        .replace("\n", "\r\n")
        .encode()
    )
    (root / "audioset_eval_strong.tsv").write_text(
        STRONG + f"{EVAL[1]}_30000\t0\t10.0\t/m/068hy\n{EVAL[0]}_0\t0\t10.0\t/m/068hy\n"
    )
    (root / "mid_to_display_name.tsv").write_text("/t/dd00006\tHubbub\n/m/068hy\tPets\n")
    put(root / f"{TRAIN[1]}_30000.wav")
    put(root / f"Y{TRAIN[2]}.wav", wav(60.0))
    put(root / f"{EVAL[1]}_30_40.wav")
    found = read(root, audioset_train=("strong",), audioset_eval="strong-eval")
    assert [clip.id for clip in found.clips] == [f"{TRAIN[1]}_30000", f"{TRAIN[2]}_0", f"{EVAL[1]}_30000"]
    first, second, _ = found.clips
    assert first.events == ((0.1, 9.9, "/t/dd00006"), (2.5, 3.0, "/m/068hy")) and first.labels == (
        "/m/068hy",
        "/t/dd00006",
    )
    assert (second.start, second.end, second.events) == (0.0, 10.0, ((0.0, 4.0, "/m/09x0r"),))
    assert found.labels.mids == ("/m/068hy", "/m/09x0r", "/t/dd00006") and found.labels.names == (
        "Pets",
        "Speech",
        "Hubbub",
    )
    assert {r.input: r.code for r in found.rejected} == {
        "audioset_train_strong.tsv line 4": "bad-row",
        "audioset_train_strong.tsv line 5": "bad-row",
        f"{EVAL[0]}_0": "missing-file",
    }
    prepare(found, tmp_path / "store")
    events = frames.StoreEvents(Store.open(tmp_path / "store"))
    assert [events.of(i) for i in range(3)] == [list(clip.events) for clip in found.clips]
    middles = [0.16 * (k + 0.5) for k in range(62)]
    sounds = [
        [
            [
                float(any(start <= middle < end and mid == event for start, end, event in clip.events))
                for mid in found.labels.mids
            ]
            for middle in middles
        ]
        for clip in found.clips
    ]
    assert np.array_equal(
        events.targets([2, 0, 1], 62), np.array(sounds, np.float32)[[2, 0, 1]]
    ) and events.targets([], 62).shape == (0, 62, 3)
    assert read_weak_has_no_events(root)


def test_no_event_is_lost_between_the_middles_of_frames_and_none_lies_outside():
    labels = audioset()
    events = (
        (0.02, 0.03, "/m/09x0r"),
        (0.99, 1.01, "/m/09x0r"),
        (1.3, 1.7, "/m/05zppz"),
        (-1.0, 0.1, "/m/0ytgt"),
        (1.9, 99.0, "/m/0ytgt"),
    )
    targets = frames.frame_targets(events, labels, 4, 0.5)
    assert targets.dtype == np.float32 and targets.sum(axis=0)[
        [labels.index_of_mid[mid] for mid in ("/m/09x0r", "/m/05zppz", "/m/0ytgt")]
    ].tolist() == [2, 1, 0]
    assert np.flatnonzero(targets[:, labels.index_of_mid["/m/09x0r"]]).tolist() == [0, 2] and targets[
        :, labels.index_of_mid["/m/05zppz"]
    ].tolist() == [0, 0, 0, 1]


def read_weak_has_no_events(root: Path) -> bool:
    for name in IDS:
        put(root / f"{name}.wav")
    return all(clip.events == () for clip in whole(read(root)).clips)


# --- hostile folders


def test_fifos_devices_loops_and_archives_in_the_folder_hang_nothing_and_are_accounted_for(root):
    for name in IDS[2:]:
        put(root / f"audio/{name}.wav")
    os.mkfifo(root / f"audio/{IDS[0]}.wav")
    (root / f"audio/{IDS[1]}.wav").symlink_to("/dev/zero")
    (root / "audio/loop").symlink_to(root)
    (root / "audio/circle.wav").symlink_to(root / "audio/circle.wav")
    (root / "audio/gone").symlink_to(root / "nowhere")
    for name in ("x.tar", "x.parquet", "x.h5", "x.tsv", "x.csv"):
        os.mkfifo(root / name)
    put(root / "broken.tar", b"nothing")
    tar(root / "evil.tar", {f"/abs/{IDS[0]}.wav": wav(0.1), f"../{IDS[1]}.wav": wav(0.1)})
    put(root / "other.tar.partial/x.wav")
    found = read(root)
    assert [clip.path.name for clip in found.clips] == [
        f"{name}.wav" for name in IDS
    ]  # the fifo and the device are refused when they are decoded
    assert sorted((r.input, r.code) for r in found.rejected) == [
        ("broken.tar", "bad-archive"),
        (f"evil.tar: ../{IDS[1]}.wav", "unsafe-path"),
        (f"evil.tar: /abs/{IDS[0]}.wav", "unsafe-path"),
        ("x.h5", "not-a-file"),
        ("x.parquet", "not-a-file"),
        ("x.tar", "not-a-file"),
    ]


def test_a_linked_folder_is_followed_once(root, tmp_path_factory):
    disk = tmp_path_factory.mktemp("disk")
    for name in IDS:
        put(disk / f"{name}.wav")
    (root / "balance_wav").symlink_to(disk)
    (root / "again").symlink_to(disk)
    (disk / "back").symlink_to(root)
    assert {clip.path.parent.name for clip in whole(read(root)).clips} == {"again"}


def test_a_folder_that_cannot_be_read_is_in_the_ledger(half_closed):
    for file, names in (("balanced_train", TRAIN), ("eval", EVAL)):
        (half_closed / f"{file}_segments.csv").write_text(segment_csv(names))
    for name in IDS[1:]:
        put(half_closed / f"audio/{name}.wav")
    found = read(half_closed)
    assert [(r.input, r.code) for r in found.rejected] == [
        ("as20k-train-0", "missing-file"),
        ("closed", "missing-file"),
    ] and "Permission denied" in found.rejected[1].reason


def test_a_missing_package_stops_with_one_line(root, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    put(root / "data/train.parquet", b"PAR1" + bytes(100))
    with pytest.raises(UserError, match=r"pip install 'beatline\[data\]'"):
        read(root)


# --- validation from a list


def test_validation_from_a_list_of_clips_or_recordings(root):
    for name in IDS:
        put(root / f"{name}.wav")
    listed = root / "val.txt"
    listed.write_text(f"as20k-train-1\r\n{TRAIN[0]}\n\n# a comment\n")
    found = read(root, validation_list=listed)
    assert (
        recordings(found, "val") == list(TRAIN[:2])
        and recordings(found, "train") == list(TRAIN[2:])
        and "val.txt" in found.val
    )
    for text, code in (("as20k-eval-0\n", "split-overlap"), ("nobody\n", "bad-table"), ("", "no-clips")):
        listed.write_text(text)
        with pytest.raises(UserError) as caught:
            read(root, validation_list=listed)
        assert caught.value.code == code
    with pytest.raises(UserError, match="validation_list"):
        DataConfig(audioset=root, validation="clean", validation_list=listed)
