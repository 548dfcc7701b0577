"""Child processes that decode: in order, within bounds, and gone with their parent; what one file does to its
child costs only that file.
"""

import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError
from pathlib import Path

import numpy as np
import pytest

from beatline.audio import archives, media
from beatline.audio.pool import AHEAD, Decoders, Job, blocks
from beatline.audio.samples import Decoded
from beatline.core.errors import EXIT_CODES, INPUT, UserError
from tests.helpers.bombs import bombs
from tests.helpers.processes import children, until
from tests.helpers.sounds import CONTAINED, PLAIN, chord, contained, patched, plain

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at children through /proc")


def alive(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def most_memory(pid: int) -> int:
    """The most bytes the process has held."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) * 1024


@pytest.fixture
def long_file(tmp_path: Path) -> Path:
    """Ten hours of zeros that take no disk, and many seconds to decode."""
    path, content = tmp_path / "long.wav", plain("WAV", "PCM_16", 44_100, np.zeros((16, 2), np.float32))
    size = 4 * 44_100 * 11_000
    path.write_bytes(patched(patched(content, content.index(b"data") + 4, "<I", size), 4, "<I", size + 36))
    os.truncate(path, size + 44)
    return path


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "good.flac"
    path.write_bytes(plain("FLAC", "PCM_16", 44_100, chord(44_100, 2)))
    return path


def slow(path: Path) -> Job:
    return Job(path, max_seconds=1e6)


@pytest.mark.slow
def test_every_form_comes_back_in_order_as_decoded_here(tmp_path):
    contents = [plain(form, subtype, 24_000, chord(24_000, 2)) for form, subtype in PLAIN] + [
        contained(a, b, rate, chord(rate, channels)) for a, b, rate, channels, _ in CONTAINED
    ]
    jobs = []
    for number, content in enumerate(contents):
        (tmp_path / f"{number}").write_bytes(content)
        jobs += [
            Job(tmp_path / f"{number}"),
            Job(tmp_path / f"{number}", start=0.25, end=1.5),
            Job(tmp_path / f"{number}", max_seconds=0.5),
        ]
    with Decoders(2) as decoders:
        results = list(decoders.map(jobs))
    assert len(results) == len(jobs)
    for job, found in zip(jobs, results, strict=True):
        try:
            expected = media.decode(job.path, job.start, job.end, job.max_seconds)
        except UserError as error:
            assert isinstance(found, UserError) and str(found) == str(error)
        else:
            assert isinstance(found, Decoded) and np.array_equal(found.samples, expected.samples)
            assert (found.rate_in, found.channels_in, found.seconds_in, found.note) == (
                expected.rate_in,
                expected.channels_in,
                expected.seconds_in,
                expected.note,
            )
    assert not children()


def test_refusals_name_the_file_as_the_caller_does(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("a\nb\udce4.wav").write_bytes(b"hello, world")
    with Decoders(1) as decoders:
        found = list(
            decoders.map(
                [
                    Job(Path("a\nb\udce4.wav")),
                    Job(Path("a\nb\udce4.wav"), name="upload 3"),
                    Job(Path("none.wav")),
                    Job(Path("/dev/zero")),
                    Job(Path("x\0y")),
                ]
            )
        )
    assert [error.code for error in found] == [
        "not-audio",
        "not-audio",
        "missing-file",
        "not-a-file",
        "missing-file",
    ]
    assert [error.what for error in found[1:3]] == ["cannot use upload 3", "cannot use none.wav"]
    assert all("\n" not in str(error) for error in found)


def test_jobs_are_taken_and_results_held_only_so_far_ahead(good):
    taken = 0

    def jobs() -> Iterator[Job]:
        nonlocal taken
        for _ in range(100):
            taken += 1
            yield Job(good)

    with Decoders(2) as decoders:
        results = decoders.map(jobs())
        for number in range(1, 30):
            next(results)
            assert taken <= number + 2 * AHEAD
        results.close()
        assert isinstance(decoders.submit(Job(good)).result(), Decoded)


def test_a_member_of_an_archive(tmp_path, good):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.add(good, "x/good.flac")
    (entry,) = archives.listing(tmp_path / "a.tar", (".flac",))
    with Decoders(1) as decoders:
        found, gone = decoders.map(
            [Job(tmp_path / "a.tar", entry.member, 0.5, 1.0), Job(tmp_path / "b.tar", entry.member)]
        )
    assert isinstance(found, Decoded) and np.array_equal(found.samples, media.decode(good, 0.5, 1.0).samples)
    assert isinstance(gone, UserError) and gone.code == "missing-file" and "b.tar" in gone.what


def test_a_child_is_small_and_bound(good):
    with Decoders(1) as decoders:
        decoders.submit(Job(good)).result()
        (pid,) = children()
        maps, limits = Path(f"/proc/{pid}/maps").read_text(), Path(f"/proc/{pid}/limits").read_text()
        assert "torch" not in maps and "libav" not in maps
        assert most_memory(pid) < 64 << 20
        for name, value in (("Max core file size", 0), ("Max file size", 0), ("Max open files", 64)):
            line = next(line for line in limits.splitlines() if line.startswith(name))
            assert line.removeprefix(name).split()[:2] == [str(value)] * 2
    assert not alive(pid)


# --- what goes wrong


def test_a_killed_decoder_costs_its_job_only(long_file, good):
    with Decoders(1) as decoders:
        for number in (signal.SIGSEGV, signal.SIGKILL, signal.SIGTERM):
            decoders.submit(Job(good)).result()
            (pid,) = children()
            failing, fine = decoders.submit(slow(long_file)), decoders.submit(Job(good))
            time.sleep(0.1)
            os.kill(pid, number)
            error = failing.exception(timeout=30)
            assert (
                isinstance(error, UserError)
                and error.code == "decoder-crashed"
                and number.name in error.cause
            )
            assert isinstance(fine.result(timeout=30), Decoded) and children() != [pid]


def test_a_decoder_that_takes_too_long_is_killed(long_file, good):
    with Decoders(1, max_wait=0.5) as decoders:
        decoders.submit(Job(good)).result()
        (pid,) = children()
        late, fine = decoders.map([slow(long_file), Job(good)])
        assert isinstance(late, UserError) and late.code == "decode-timeout" and "0.5 s" in late.cause
        assert isinstance(fine, Decoded)
        until(lambda: not alive(pid))


def test_a_decoder_that_wants_too_much_memory_is_refused_it(tmp_path, good):
    (tmp_path / "wide.flac").write_bytes(
        plain("FLAC", "PCM_16", 16_000, np.zeros((16_000 * 300, 1), np.float32))
    )
    with Decoders(1, max_bytes=8 << 20) as decoders:
        greedy, fine = decoders.map([Job(tmp_path / "wide.flac"), Job(good)])
        assert isinstance(greedy, UserError) and greedy.code == "decoder-memory"
        assert isinstance(fine, Decoded)


def test_a_child_that_cannot_start_is_no_fault_of_the_file(good, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with Decoders(1) as decoders:
        for _ in range(2):
            with pytest.raises(RuntimeError, match="did not start"):
                decoders.submit(Job(good)).result()


@pytest.mark.timeout(60)
def test_a_reader_that_leaves_early_costs_the_pool_nothing(long_file, good):
    """The child is killed, and the whole blocks that are still in its pipe wait for nobody."""
    with Decoders(1) as decoders:
        for seconds in (0.5, 10.0):
            some = decoders.blocks(Job(long_file, max_seconds=1e9), seconds)
            next(some)
            time.sleep(0.5)  # the pipe fills
            some.close()
            assert isinstance(decoders.submit(Job(good)).result(timeout=20), Decoded)


def test_closing_ends_everything_at_once(long_file, good):
    decoders = Decoders(2)
    futures = [decoders.submit(slow(long_file)) for _ in range(6)]
    until(lambda: len(children()) == 2)
    decoders.close()
    assert not children()
    for future in futures:
        assert future.done()
        with pytest.raises(CancelledError):
            future.result()
    with pytest.raises(RuntimeError):
        decoders.submit(Job(good))


PARENT = """
import sys, time
from contextlib import suppress
from pathlib import Path
from beatline.audio.pool import Decoders, Job
from tests.helpers.processes import children, until
decoders = Decoders(2)  # without a guard for the main module, as people write it
with decoders:
    futures = [decoders.submit(Job(Path(sys.argv[1]), max_seconds=1e6)) for _ in range(4)]
    until(lambda: len(children()) == 2)
    time.sleep(0.5)
    print(*children(), flush=True)
    for future in futures:
        future.result()
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_children_die_with_their_parent(tmp_path, long_file, how):
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(long_file)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    pids = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(pids) == 2 and all(alive(pid) for pid in pids)
    parent.send_signal(how)
    _, errors = parent.communicate(timeout=20)
    assert parent.returncode == -how
    assert errors.count("Traceback") == (how == signal.SIGINT)  # the parent's own, of KeyboardInterrupt
    until(lambda: not any(alive(pid) for pid in pids))


# --- long recordings


def test_blocks_from_a_child_are_those_decoded_here(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(contained("webm", "libopus", 48_000, chord(48_000, 2, 5.0)))
    found = list(blocks(Job(path), 0.77))
    assert np.array_equal(np.concatenate(found), media.decode(path).samples) and len(found) == 7
    (tmp_path / "b").write_bytes(path.read_bytes()[:50])
    with pytest.raises(UserError):
        list(blocks(Job(tmp_path / "b"), 1.0))
    some = blocks(Job(path), 0.5)
    next(some)
    (pid,) = children()
    some.close()
    assert not alive(pid)


# --- hostile files


@pytest.mark.slow
def test_bombs_eight_at_once_stay_small(tmp_path, good):
    contents = bombs()
    assert len(contents) >= 12 and all(len(content) < 4 << 20 for content in contents.values())
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    with Decoders(8, max_wait=60) as decoders:
        results = dict(zip(contents, decoders.map(Job(tmp_path / name) for name in contents), strict=True))
        assert len(children()) == 8
        assert max(map(most_memory, children())) < 256 << 20
        assert isinstance(decoders.submit(Job(good)).result(), Decoded)
    for name, found in results.items():
        if isinstance(found, UserError):
            assert EXIT_CODES[found.code] == INPUT and found.code not in (
                "decoder-crashed",
                "decode-timeout",
            ), (name, found)
        else:
            assert len(found.samples) <= 600 * 16_000, name
    refused = {name: found.code for name, found in results.items() if isinstance(found, UserError)}
    assert {name: refused.get(name) for name in ("hours.flac", "silence.aac", "sound.gz")} == {
        "hours.flac": "too-long",
        "silence.aac": "too-long",
        "sound.gz": "not-audio",
    }


UNPACK = """
import json
import sys
from beatline.audio import child as decoder
from beatline.core.limits import Limits

decoder.LIMITS = Limits(max_row_group_bytes=100 << 20)  # the reader's own stays: it believes the file's word
((answer, _),) = decoder.answers(json.loads(sys.argv[1]), 20 << 20)
print(answer["code"])
"""


@pytest.mark.slow
def test_a_row_that_unpacks_to_much_is_refused_before_it_has_its_memory(tmp_path):
    import pyarrow as pa
    from pyarrow import parquet

    parquet.write_table(
        pa.table({"id": ["a"], "audio": [bytes(200 << 20)]}),
        tmp_path / "a.parquet",
        compression="zstd",
        use_dictionary=False,
    )
    assert (tmp_path / "a.parquet").stat().st_size < 1 << 20
    job = {
        "path": str(tmp_path / "a.parquet"),
        "member": "0",
        "start": 0.0,
        "end": None,
        "max_seconds": 10.0,
        "block_seconds": 0.0,
    }
    said = subprocess.run(
        [sys.executable, "-c", UNPACK, json.dumps(job)], capture_output=True, text=True
    )  # a fork would have what this process gave back to Arrow's pool
    assert said.returncode == -signal.SIGABRT or said.stdout.strip() in ("bad-archive", "decoder-memory"), (
        said
    )  # Arrow may end the process, which costs its child


HERE = """
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
import av
from beatline.audio import media
from beatline.core.errors import EXIT_CODES, INPUT, UserError

def heard(path):
    try:
        for _ in islice(media.blocks(path, 10.0), 20):
            pass
    except UserError as error:
        assert EXIT_CODES[error.code] == INPUT

with ThreadPoolExecutor(8) as pool:
    print(len(list(pool.map(heard, sorted(Path(sys.argv[1]).iterdir())))))
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


@pytest.mark.slow
def test_bombs_eight_at_once_in_one_process_stay_small(tmp_path):
    """Without children too, as `beatline tag` and the library decode: some minutes of each."""
    for name, content in bombs().items():
        (tmp_path / name).write_bytes(content)
    done = subprocess.run(
        [sys.executable, "-c", HERE, str(tmp_path)], capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    count, kilobytes = map(int, done.stdout.split())
    assert count == len(bombs()) and kilobytes < 256 << 10


def test_mutated_files_are_decoded_or_refused():
    run = subprocess.run(
        [sys.executable, ROOT / "benchmarks/fuzz_decode.py", "400", "--seed", "11"],
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    outcomes = json.loads(run.stdout.splitlines()[-1])["outcomes"]
    assert sum(outcomes.values()) == 400 and outcomes["decoded"] > 50 and outcomes["broken-audio"] > 50
    assert "decoder-crashed" not in outcomes
