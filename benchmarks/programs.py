"""The programs that are timed as programs: started anew, files in, scores out, with this environment's
Python.
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import harness


def run(*words: str | Path, env: dict[str, str] | None = None) -> str:
    """What a program prints; raises with its own words when it fails."""
    done = subprocess.run(
        [str(word) for word in words],
        capture_output=True,
        text=True,
        check=False,
        cwd=harness.ROOT,
        env=os.environ | (env or {}),
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, words))} exited {done.returncode}:\n{done.stderr[-2000:]}")
    return done.stdout


def beatline_tag(files: Sequence[Path], model: Path, env: dict[str, str] | None = None) -> str:
    """`beatline tag`, one process for all files; JSON lines."""
    return run(
        sys.executable, "-m", "beatline", "tag", *files, "--model", model, "--format", "jsonl", env=env
    )


def openbeats_infer(files: Sequence[Path], release: Path, out: Path) -> None:
    """`openbeats-infer`, which takes one file a process."""
    for file in files:
        run(
            sys.executable,
            "-c",
            "import openbeats.cli; openbeats.cli.infer_main()",
            "--checkpoint",
            release,
            "--audio",
            file,
            "--out",
            out / f"{file.stem}.npz",
        )


def espnet_inference(files: Sequence[Path], model: Path, out: Path) -> None:
    """`espnet2.bin.cls_inference`, batch 1, one process for all files; they are 16 kHz mono already."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "wav.scp").write_text("".join(f"{file.stem} {file}\n" for file in files))
    options = {
        "output_dir": out / "scores",
        "classification_train_config": model / "config.yaml",
        "classification_model_file": model / "model.pth",
        "output_all_probabilities": "true",
    }
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    run(
        sys.executable,
        "-m",
        "espnet2.bin.cls_inference",
        *words,
        "--data_path_and_name_and_type",
        f"{out / 'wav.scp'},speech,sound",
        "--log_level",
        "ERROR",
    )
