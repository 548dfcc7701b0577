"""AudioSet's tables, tars, parquet files and checkpoints in small."""

import io
import json
import tarfile

import numpy as np
import pyarrow
import soundfile
from pyarrow import parquet

from beatline.core import ontology

HEAD = (
    "# a test\n# num_ytids={0}, num_segs={0}, num_unique_labels=1, num_positive_labels=1\n# YTID, "
    "start_seconds, end_seconds, positive_labels\n"
)
TRAIN = [f"{'-Y'[number % 2]}train_{number:04}" for number in range(12)]
EVAL = [f"Yeval__{number:04}" for number in range(8)]


def table(ids):
    return HEAD.format(len(ids)) + "".join(f'{name}, 30.000, 40.000, "/m/09x0r"\n' for name in ids)


def wav(seconds=0.2) -> bytes:
    out = io.BytesIO()
    soundfile.write(out, np.zeros(round(16_000 * seconds), np.int16), 16_000, format="WAV")
    return out.getvalue()


def tar(ids) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name in ids:
            info = tarfile.TarInfo(f"{name}.wav")
            info.size = len(wav())
            archive.addfile(info, io.BytesIO(wav()))
    return out.getvalue()


def rows(ids) -> bytes:
    out = pyarrow.BufferOutputStream()
    parquet.write_table(
        pyarrow.table(
            {
                "video_id": ids,
                "audio": [
                    {"bytes": np.random.default_rng(0).bytes(200_000), "path": f"{name}.flac"} for name in ids
                ],
            }
        ),
        out,
        row_group_size=2,
        compression="none",
    )
    return out.getvalue().to_pybytes()


def write(folder, files):
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)


SEGMENTS = (
    "# made for a test\n# num_ytids=2, num_segs=2, num_unique_labels=1, num_positive_labels=2\n# "
    "YTID, start_seconds, end_seconds, positive_labels\n--aaaaaaaaa, 30.000, 40.000, "
    '"/m/09x0r"\nYbbbbbbbbbb, 0.000, 10.000, "/m/09x0r"\n'
)


def tables(folder):
    """Small files in the official forms."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("balanced_train_segments.csv", "eval_segments.csv", "unbalanced_train_segments.csv"):
        (folder / name).write_text(SEGMENTS)
    (folder / "ontology.json").write_text(
        json.dumps(
            [
                {"id": node.mid, "name": node.name, "child_ids": node.children}
                for node in ontology.ontology().values()
            ]
        )
    )
    (folder / "qa_true_counts.csv").write_text("mid,num_rated,num_true\n/m/09x0r,10,9\n")
    for name in ("audioset_train_strong.tsv", "audioset_eval_strong.tsv"):
        (folder / name).write_text(
            "segment_id\tstart_time_seconds\tend_time_seconds\tlabel\n--aaaaaaaaa_30000\t0.0\t1.0\t/m/09x0r\n"
        )
    (folder / "mid_to_display_name.tsv").write_text("/m/09x0r\tSpeech\n")


WEIGHTS = bytes(range(256)) * 400
