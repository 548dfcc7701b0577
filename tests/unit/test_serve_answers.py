"""The server's JSON: exact scores, statuses, counts; and uploads as samples on disk."""

import asyncio
import os
import signal
import time
from concurrent.futures import CancelledError
from dataclasses import replace

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from beatline.audio import media, windows
from beatline.audio.pool import Decoders
from beatline.core.errors import EXIT_CODES, UserError
from beatline.core.labels import audioset
from beatline.core.limits import LIMITS, ServeLimits
from beatline.serve import answers
from beatline.serve.metrics import Metrics
from beatline.serve.uploads.decoding import Decoded, decode
from tests.helpers.processes import children
from tests.helpers.sounds import chord, plain


def test_a_score_reads_as_the_same_float32():
    for score in np.random.default_rng(0).random(2000, np.float32) ** 8:
        assert (
            np.float32(answers.number(float(score))) == score and len(repr(answers.number(float(score)))) < 16
        )


def test_every_code_has_a_status_and_several_have_one_together():
    assert {answers.status_of(UserError(code, "", "", "")) for code in EXIT_CODES} == {
        404,
        408,
        413,
        415,
        422,
        429,
        503,
    }
    assert answers.status_of_all(["", "not-audio"]) == 200
    assert answers.status_of_all(["not-audio", "not-audio"]) == 415
    assert answers.status_of_all(["not-audio", "empty-file"]) == 422


def test_the_label_table_is_a_closed_part_of_the_ontology():
    table = answers.label_table(audioset())
    mids = {node["mid"] for node in table["nodes"]}
    assert len(table["labels"]) == 527 and len(mids) == len(table["nodes"]) <= 632
    assert all(set(entry["children"]) <= mids and set(entry["parents"]) <= mids for entry in table["labels"])
    answers.Labels.model_validate(table)


def test_counts_read_as_prometheus_reads_them():
    metrics = Metrics(lambda: 3, lambda: 0, lambda: 0)
    metrics.rejections.labels("server-busy").inc(1234567890)
    for value in (0.5, 1, 3, 100):
        metrics.pass_windows.observe(value)
    found = {family.name: family for family in text_string_to_metric_families(metrics.text())}
    kinds = {name: family.type for name, family in found.items()}
    assert kinds == {
        "beatline_requests": "counter",
        "beatline_files": "counter",
        "beatline_rejections": "counter",
        "beatline_audio_seconds": "counter",
        "beatline_request_seconds": "histogram",
        "beatline_decode_seconds": "histogram",
        "beatline_pass_seconds": "histogram",
        "beatline_pass_windows": "histogram",
        "beatline_queue_files": "gauge",
        "beatline_uploads": "gauge",
        "beatline_connections": "gauge",
    }
    values = {
        (sample.name, *sample.labels.items()): sample.value
        for family in found.values()
        for sample in family.samples
    }
    assert values["beatline_rejections_total", ("code", "server-busy")] == 1234567890
    assert values["beatline_pass_windows_bucket", ("le", "1.0")] == 2
    assert values["beatline_pass_windows_bucket", ("le", "4.0")] == 3
    assert values["beatline_pass_windows_bucket", ("le", "+Inf")] == 4
    assert values["beatline_pass_windows_sum",] == 104.5 and values["beatline_pass_windows_count",] == 4
    assert values["beatline_queue_files",] == 3
    assert all(family.documentation for family in found.values()) and "_created" not in metrics.text()


def test_two_applications_in_a_process_count_apart():
    first, second = (Metrics(lambda: 0, lambda: 0, lambda: 0) for _ in range(2))
    first.audio.inc(7)
    assert "beatline_audio_seconds_total 7.0" in first.text()
    assert "beatline_audio_seconds_total 0.0" in second.text()


def test_bounds_of_decoding_are_those_of_the_decoders():
    with pytest.raises(ValueError, match="max_channels"):
        ServeLimits(max_channels=LIMITS.max_channels - 1)


# --- decoding


@pytest.mark.parametrize("samples", [1, 799, 800, 801, 1000, 1100, 1101, 5000])
def test_windows_from_disk_are_those_of_the_recording(tmp_path, samples):
    sound = np.arange(samples).astype(np.int16)
    sound.tofile(tmp_path / "x.pcm")
    decoded = Decoded(tmp_path / "x.pcm", samples, "")
    for hop in (1, 100, 300, 800):
        found, wanted = list(decoded.windows(800, hop)), list(windows.cut([sound], 800, hop))
        assert len(found) == decoded.count(800, hop) == len(wanted) and all(
            a == b and np.array_equal(x, y) for (a, x), (b, y) in zip(found, wanted, strict=True)
        )


def test_an_upload_is_decoded_as_offline_and_bounded(tmp_path):
    content = plain("OGG", "VORBIS", 44_100, chord(44_100, 2, 25.0))
    upload = tmp_path / "0"
    upload.write_bytes(content)
    limits = ServeLimits()

    async def main() -> None:
        with Decoders(1) as decoders:
            decoded = await decode(decoders, upload, "bark.ogg", limits)
            np.testing.assert_array_equal(np.fromfile(decoded.path, np.int16), media.decode(content).samples)
            assert decoded.bytes == decoded.path.stat().st_size
            with pytest.raises(UserError, match=r"cannot use bark\.ogg: it is longer than 9 s") as caught:
                await decode(decoders, upload, "bark.ogg", replace(limits, max_seconds=9))
            assert caught.value.code == "too-long" and not upload.with_suffix(".pcm").exists()
            with pytest.raises(UserError, match="takes longer than 0 s") as caught:
                await decode(decoders, upload, "bark.ogg", replace(limits, max_decode_seconds=0))
            assert caught.value.code == "decode-timeout" and not upload.with_suffix(".pcm").exists()
            assert (
                await decode(decoders, upload, "bark.ogg", limits)
            ).samples == decoded.samples  # the pool lives

    asyncio.run(main())


def test_the_decoder_of_a_client_that_left_is_killed(tmp_path):
    upload = tmp_path / "0"
    upload.write_bytes(plain("FLAC", "PCM_16", 16_000, np.zeros((16_000 * 3600, 1), np.int16)))

    async def main() -> None:
        before = set(children())
        with Decoders(1) as decoders:
            first = asyncio.create_task(decode(decoders, upload, "long", ServeLimits(max_seconds=1e9)))
            while not (upload.with_suffix(".pcm").exists() and upload.with_suffix(".pcm").stat().st_size):
                await asyncio.sleep(0.01)
            (child,) = set(children()) - before
            os.kill(child, signal.SIGSTOP)  # one that hangs
            await asyncio.sleep(0.5)  # until what it had said is taken
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
            deadline = time.monotonic() + 5
            while child in children():
                assert time.monotonic() < deadline
                await asyncio.sleep(0.01)
            short = tmp_path / "1"
            short.write_bytes(plain("WAV", "PCM_16", 16_000, chord(16_000)))
            assert (await decode(decoders, short, "short", ServeLimits())).samples == 32_000

    asyncio.run(main())


def test_a_stream_that_is_stopped_before_its_turn_never_begins(tmp_path):
    from beatline.audio.pool import Job

    with Decoders(1) as decoders:
        streams = [decoders.stream(Job(tmp_path / "missing"), 1.0, lambda samples: None) for _ in range(3)]
        streams[2].stop()
        assert isinstance(streams[0].exception(), UserError)
        with pytest.raises(CancelledError):
            streams[2].result()
