"""README.md and docs/ as tests see them: their blocks of commands and of Python, and a folder with everything
that these speak of.

A block without a language is commands, one a line (`\\` goes on with the next), each followed by two spaces
or ` #` and what it is for. `text`, `json` and `yaml` blocks show; they are not run.
"""

import csv
import re
import shutil
import tarfile
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np
import soundfile
import torch

from beatline import load_config, recipe
from beatline.config import DataConfig
from beatline.data import manifest
from beatline.data.manifest.audioset import STRONG_HEADER
from beatline.data.prepare import prepare

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
SHOWN = ("text", "json", "yaml")
CLIPS = Path(str(files("beatline"))) / "assets/mini-audioset"
CLASSES = ("Chicken, rooster", "Drum kit", "Thunder")
ANSWER = CLASSES[0]
"""What is to be heard in rooster.mp3."""
SETTINGS = {
    "data.validation": "given",
    "model.encoder.embed_dim": "32",
    "model.encoder.encoder_layers": "2",
    "model.encoder.encoder_embed_dim": "32",
    "model.encoder.encoder_ffn_embed_dim": "64",
    "model.encoder.encoder_attention_heads": "2",
    "model.encoder.conv_pos": "16",
    "model.encoder.conv_pos_groups": "4",
    "optim.warmup_steps": "8",
    "augment.mixup_probability": "0",
    "augment.time_masks": "0",
    "augment.mel_masks": "0",
    "train.batch": "8",
    "train.average": "2",
    "train.workers": "0",
    "score.resamples": "50",
    "score.baseline": "false",
}


@dataclass(frozen=True)
class Block:
    """What stands between two fences."""

    page: str
    line: int
    language: str
    text: str

    @property
    def commands(self) -> list[str]:
        """Of a block without a language, each without what it is for."""
        lines = re.sub(r"\s*\\\n\s*", " ", self.text).splitlines() if not self.language else []
        return [
            re.split(r"\s{2,}|\s+#\s", line)[0].strip()
            for line in lines
            if line.strip() and not line.startswith("#")
        ]


def blocks(page: Path) -> list[Block]:
    """All of a page's, in order."""
    text = page.read_text()
    name = page.relative_to(ROOT).as_posix()
    return [
        Block(name, text[: found.start()].count("\n") + 1, found[1], found[2])
        for found in re.finditer(r"(?ms)^```(\w*)\n(.*?)^```", text)
    ]


def furnish(place: Path) -> Path:
    """A folder with the names that the pages use: real clips, and runs that were trained on such, in seconds,
    to tell a few sounds apart.
    """
    place.mkdir(parents=True, exist_ok=True)
    for name in ("src", "docs"):
        (place / name).symlink_to(ROOT / name)
    rows = [row for row in csv.DictReader((CLIPS / "manifest.csv").open()) if row["classes"] in CLASSES]
    for row, number in zip(rows, range(len(rows)), strict=True):
        row |= {
            "file": str(CLIPS / row["file"]),
            "start": "0",
            "end": "2",
            "split": "val" if row["split"] == "train" and number % 10 >= 7 else row["split"],
        }
    for name, chosen in {
        "clips.csv": rows,
        "labelled.csv": [row for row in rows if row["split"] == "test"],
    }.items():
        with (place / name).open("w", newline="") as file:
            table = csv.DictWriter(
                file,
                ["file", "labels", "split", "start", "end"] if name == "clips.csv" else ["file", "labels"],
                extrasaction="ignore",
            )
            table.writeheader()
            table.writerows(chosen)
    for name, epochs in {"a": "10", "b": "1"}.items():
        given = {
            "out": place / "runs" / name,
            "data.csv": place / "clips.csv",
            "data.labels": CLIPS / "classes.csv",
            "store": place / "store",
            "train.epochs": epochs,
            "train.validate_every": epochs,
            **SETTINGS,
        }
        settings = load_config(
            "mini", [word for setting, value in given.items() for word in (f"--{setting}", str(value))]
        )
        for stage in ("prepare", "train", "predict", "score"):
            recipe.STAGES[stage](settings)
    for name in ("a/store", "b/store", "as20k/store"):
        shutil.copytree(place / "store", place / "runs" / name)
    shutil.copytree(place / "runs/a", place / "runs/mini")
    _sounds(place, [Path(row["file"]) for row in rows if row["split"] == "test"])
    _checkpoints(place)
    _strong(place)
    return place


def _sounds(place: Path, tests: list[Path]) -> None:
    read = {path.stem: soundfile.read(path, dtype="float32")[0] for path in tests}
    assert {sound.ndim for sound in read.values()} == {1}
    rooster, others = read["test_chicken_rooster_01"], list(read.values())
    for name, sound in {
        "rooster.mp3": rooster,
        "rooster.wav": rooster,
        "long.wav": np.concatenate(others[:8]),
        "street.flac": np.concatenate(others[5:10]),
    }.items():
        soundfile.write(place / name, sound, 16_000)
    (place / "rooster.raw").write_bytes((np.tile(rooster, 4) * 32767).astype("<i2").tobytes())
    (place / "notes.txt").write_text("no sound\n")
    (place / "recordings").mkdir()
    for number, sound in enumerate(others[3:13:3]):
        soundfile.write(
            place / "recordings" / f"{number}.{('wav', 'ogg', 'mp3', 'flac')[number % 4]}", sound, 16_000
        )
    for path in tests:
        folder = (
            place
            / "sounds"
            / next(name for name in CLASSES if path.stem[5:].startswith(re.sub(r"\W+", "_", name.lower())))
        )
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, folder)
    with tarfile.open(place / "more.tar", "w") as archive:
        for path in tests[:3]:
            archive.add(path, path.name)


def _strong(place: Path) -> None:
    """A store of two clips with strong labels."""
    (place / "strong").mkdir()
    for name, clip in {"train": "--4gqARaEJE_0", "eval": "--ARsT8pYTo_30000"}.items():
        (place / f"strong/audioset_{name}_strong.tsv").write_text(
            f"{STRONG_HEADER}\n{clip}\t0.1\t1.5\t/m/07rn7sz\n"
        )
        shutil.copy(place / "rooster.wav", place / "strong" / f"{clip}.wav")
    prepare(
        manifest.read(
            DataConfig(audioset=place / "strong", audioset_train=("strong",), audioset_eval="strong-eval")
        ),
        place / "runs/strong/store",
    )


def _checkpoints(place: Path) -> None:
    """Of the BEATs release's form, small: fine-tuned ones with labels that the runs have, and one that is
    only pre-trained.
    """
    mids = [row["mid"] for row in csv.DictReader((CLIPS / "classes.csv").open())]
    content = torch.load(ROOT / "tests/golden/unilm_finetuned.pt", weights_only=True)
    content["label_dict"] = dict(
        enumerate([mid for mid in mids if mid in (place / "clips.csv").read_text()] + mids[:7])
    )
    content["label_dict"] = dict(enumerate(list(dict.fromkeys(content["label_dict"].values()))[:7]))
    torch.save(content, place / "old.pt")
    content["model"] = {
        name: value * 1.5 if value.is_floating_point() else value for name, value in content["model"].items()
    }
    torch.save(content, place / "new.pt")
    shutil.copy(place / "new.pt", place / "BEATs_iter3_plus_AS2M_finetuned_on_AS2M_cpt2.pt")
    shutil.copy(ROOT / "tests/golden/unilm_pretrained.pt", place / "BEATs_iter3_plus_AS2M.pt")
