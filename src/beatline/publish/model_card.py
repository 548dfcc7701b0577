"""what a run's files say of a model -> its model card, `README.md` of a repository.

In: `Facts`. Out: Markdown with the front matter that the Hugging Face Hub reads. Every figure is the run's
own, or published by others and then called so. What the run does not say, the card says is not known.
"""

import json
import math
from dataclasses import dataclass, field
from typing import Any

import yaml

from beatline.core.html import markdown
from beatline.core.labels import LabelSet
from beatline.core.version import __version__
from beatline.evaluate.metrics import Figures
from beatline.model.heads.neighbours import Neighbours
from beatline.model.tagger import Tagger
from beatline.tag.calibration import Calibration

FIGURES = (
    ("mAP", "mAP", 100),
    ("mean_auc", "mean AUC", 100),
    ("d_prime", "d'", 1),
    ("mean_acc", "accuracy, as the recipe counts it", 100),
    ("top1_hit_rate", "top-1 hit rate", 100),
)
PUBLISHED = (
    ("BEATs paper, arXiv 2212.09058, table 1", "38.9", "18 987"),
    ("ESPnet, egs2/as20k/cls1", "37.46", "20 123"),
)
"""mAP of fine-tuning on AudioSet-20K, and clips: the figures that the configurations `as20k` and
`as20k-espnet` open with.
"""
BEATS = """@inproceedings{chen2023beats,
  title = {{BEATs}: Audio Pre-Training with Acoustic Tokenizers},
  author = {Chen, Sanyuan and Wu, Yu and Wang, Chengyi and Liu, Shujie and Tompkins, Daniel and Chen, Zhuo and
    Che, Wanxiang and Yu, Xiangzhan and Wei, Furu},
  booktitle = {International Conference on Machine Learning},
  year = {2023}
}"""
AUDIOSET = """@inproceedings{gemmeke2017audioset,
  title = {Audio Set: An ontology and human-labeled dataset for audio events},
  author = {Gemmeke, Jort F. and Ellis, Daniel P. W. and Freedman, Dylan and Jansen, Aren and Lawrence, Wade
    and Moore, R. Channing and Plakal, Manoj and Ritter, Marvin},
  booktitle = {IEEE International Conference on Acoustics, Speech and Signal Processing},
  year = {2017}
}"""
MOST_LABELS = 40  # shown by name
WORST = 5


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What is known of a model."""

    name: str
    """`owner/name`, or the folder's name."""
    labels: LabelSet = field(repr=False)
    tagger: Tagger = field(repr=False)
    family: str
    """What kind of file it was read from."""
    about: dict[str, Any] = field(repr=False)
    """Of the model folder: the resolved configuration as `config`, and how the weights were chosen."""
    figures: Figures | None = field(default=None, repr=False)
    baselines: dict[str, float] = field(default_factory=dict)
    """mAP by name, on the same clips."""
    data: dict[str, Any] | None = field(default=None, repr=False)
    """The store's summary."""
    calibration: Calibration | None = None
    licence: str = ""
    """As the Hub calls it; empty is not stated."""


def card(facts: Facts) -> str:
    """The card as Markdown."""
    head: dict[str, object] = {"license": facts.licence} if facts.licence else {}
    head |= {
        "pipeline_tag": "audio-classification",
        "library_name": "beatline",
        "tags": ["audio-tagging", "beats", "audioset"] if _is_audioset(facts) else ["audio-tagging", "beats"],
    }
    parts = [
        _title(facts),
        _use(facts),
        _results(facts),
        _data(facts),
        _training(facts),
        _limits(facts),
        _citation(facts),
    ]
    return (
        f"---\n{yaml.safe_dump(head, sort_keys=False, allow_unicode=True)}---\n\n" + "\n\n".join(parts) + "\n"
    )


def _config(facts: Facts) -> dict[str, Any]:
    """The run's configuration; empty where the model is of no run."""
    config = facts.about.get("config")
    return (
        config
        if isinstance(config, dict) and config.keys() >= {"data", "train", "optim", "model", "augment"}
        else {}
    )


def _is_audioset(facts: Facts) -> bool:
    return bool(_config(facts).get("data", {}).get("audioset"))


def _title(facts: Facts) -> str:
    tagger = facts.tagger
    size = sum(parameter.numel() for parameter in tagger.parameters())
    several = (
        "any number of labels to a sound (sigmoid)"
        if tagger.task == "multi-label"
        else "one label to a sound (softmax)"
    )
    head = (
        f"a head of {len(tagger.head.examples)} stored examples"
        if isinstance(tagger.head, Neighbours)
        else "a linear head"
    )
    names = "; ".join(markdown(name) for name in facts.labels.names[:MOST_LABELS])
    more = (
        f"; and {len(facts.labels) - MOST_LABELS} more (`labels.csv`)"
        if len(facts.labels) > MOST_LABELS
        else ""
    )
    return (
        f"# {markdown(facts.name.split('/')[-1])}\n\nTags sound: a BEATs encoder "
        f"({tagger.config.encoder_layers} layers of {tagger.config.encoder_embed_dim}) with {head}, "
        f"{size / 1e6:.1f} million parameters, "
        f"{len(facts.labels)} labels, {several}. Written by beatline {__version__}.\n\nLabels: {names}{more}."
    )


def _use(facts: Facts) -> str:
    calibrated = (
        (
            "\nThresholds and a temperature learned on labelled clips are in `calibration/`; `beatline tag "
            "--calibrated` uses them.\n"
        )
        if facts.calibration
        else ""
    )
    return f"""## How to use it

```python
import beatline

tagger = beatline.load("{facts.name}")
print(tagger("bark.mp3").top(5))
```

`beatline tag recordings/ --model {facts.name}` does the same for files. With transformers (`pip install
'beatline[transformers]'`), at most ten seconds at a time:

```python
import beatline.transformers
import soundfile
from transformers import pipeline

samples, rate = soundfile.read("bark.wav", dtype="float32")  # mono, 16 kHz
print(pipeline("audio-classification", model="{facts.name}")({{"raw": samples, "sampling_rate": rate}}))
```
{calibrated}""".rstrip()


def _results(facts: Facts) -> str:
    figures = facts.figures
    lines = ["## Results", ""]
    if figures is None:
        lines.append("None are stated: no score came with this model.")
    else:
        lines += [
            f"On {figures.n_instances} test clips, {figures.n_labels_scored} of {figures.n_labels} labels "
            f"with a clip among them. Intervals: 95 %, bootstrap over clips.",
            "",
        ]
        lines += ["| | measured | interval |", "|---|---|---|"]
        for name, title, scale in FIGURES:
            low_high = figures.intervals.get(name)
            lines.append(
                f"| {title} | {number(getattr(figures, name), scale)} | "
                f"{' to '.join(number(value, scale) for value in low_high) if low_high else ''} |"
            )
        lines.append(f"| chance (mAP) | {number(figures.chance, 100)} | |")
        lines += [
            f"| {markdown(name)} (mAP) | {number(value, 100)} | |" for name, value in facts.baselines.items()
        ]
        lines += ["", f"Clip list: SHA-256 `{figures.clips_hash}`."]
    if _is_audioset(facts) and _config(facts)["data"].get("audioset_train") == ["balanced"]:
        lines += [
            "",
            "Published for fine-tuning on AudioSet-20K, by others and on their copies of the test clips; "
            "not measured here:",
            "",
            "| published by | mAP | test clips |",
            "|---|---|---|",
        ]
        lines += [f"| {who} | {value} | {clips} |" for who, value, clips in PUBLISHED]
    return "\n".join(lines)


def _data(facts: Facts) -> str:
    data = facts.data
    lines = ["## Data", "", _source(facts)]
    if data is None and "probe" not in facts.about:
        lines.append(
            "How many clips there were, and which were missing, is not known here: the prepared audio was "
            "not beside the model."
        )
    elif data is not None:
        clips = ", ".join(f"{count} {split}" for split, count in data["splits"].items())
        lines.append(
            f"{data['inputs']} clips were listed, {data['ok']} were used ({clips}; {data['hours']:.2f} "
            f"hours), {data['inputs'] - data['ok']} were missing or refused."
        )
        lines += (
            [f"Why: {', '.join(f'{markdown(code)} {count}' for code, count in data['rejected'].items())}."]
            if data["rejected"]
            else []
        )
        lost = sorted(
            (row for row in data["labels"] if row["lost"]), key=lambda row: -row["lost"] / row["expected"]
        )
        if lost:
            shown = "; ".join(
                f"{markdown(row['name'])} {row['lost']} of {row['expected']}" for row in lost[:WORST]
            )
            lines.append(f"{len(lost)} labels lost clips; the largest shares: {shown}.")
        lines.append(f"Validation: {markdown(data['validation'])}.")
    lines.append(
        f"Licence of the weights, as stated by who published them: {markdown(facts.licence)}."
        if facts.licence
        else "Licence of the weights: not stated by who published them."
    )
    return "\n".join([*lines[:3], *(f"\n{line}" for line in lines[3:])])


def _source(facts: Facts) -> str:
    if "probe" in facts.about:
        probe = facts.about["probe"]
        clips = ", ".join(f"{count} {split}" for split, count in probe["clips"].items() if count)
        return (
            f"The head was fitted to clips of who made it ({clips}; their licence is not stated), on the "
            f"encoder of {markdown(probe['encoder'])} ({markdown(probe['encoder_family'])}), which stayed "
            "as it was."
        )
    if not _config(facts):
        return (
            f"Not known here: the weights were read from a file of another kind ({markdown(facts.family)})."
        )
    data = _config(facts)["data"]
    if data.get("audioset"):
        tables = " and ".join(markdown(table) for table in data["audioset_train"])
        return (
            f"AudioSet: trained on its table {tables}, tested on {markdown(data['audioset_eval'])}. Its "
            f"labels are CC BY 4.0; the sound is that of videos, under the terms of those who published them."
        )
    if data.get("csv") == "mini":
        return (
            "mini-audioset, the set that comes with beatline: clips of 4 s with AudioSet's labels, CC "
            "BY-SA 4.0 as a collection, each clip under the licence in its row."
        )
    if data.get("dataset"):
        return f"{markdown(data['dataset'])}. Its licence is for its own page to say."
    return "Clips of who trained it. Their licence is not stated."


def _training(facts: Facts) -> str:
    config = _config(facts)
    if not config:
        return (
            f"## Training\n\nWhat the model's folder says of "
            f"it:\n\n```json\n{json.dumps(facts.about, indent=1)}\n```"
        )
    train = config["train"]
    optim = config["optim"]
    model = config["model"]
    augment = config["augment"]
    rows = {
        "start": markdown(model["init"]) if model["init"] else "random weights",
        "epochs, batch": f"{train['epochs']}, {train['batch']}"
        + (f" in {train['accumulate']} parts" if train["accumulate"] > 1 else ""),
        "steps": facts.about.get("steps"),
        "weights": facts.about.get("chosen"),
        "learning rate": f"{optim['lr']:g} down to {optim['min_lr']:g}, {optim['warmup_steps']} steps of "
        f"warm-up, AdamW with weight decay {optim['weight_decay']:g}",
        "mixup, SpecAugment": f"probability {augment['mixup_probability']:g}; {augment['time_masks']} masks "
        f"in time, {augment['mel_masks']} in frequency",
        "precision, seed": f"{train['precision']}, {train['seed']}",
        "best mAP on validation clips": number(facts.about["best_validation_mAP"], 100)
        if isinstance(facts.about.get("best_validation_mAP"), float)
        else None,
    }
    table = "\n".join(f"| {name} | {value} |" for name, value in rows.items() if value is not None)
    return f"## Training\n\n| | |\n|---|---|\n{table}\n\nEvery setting is in `config.json`, under `about`."


def _limits(facts: Facts) -> str:
    lines = [
        "It hears 16 kHz mono: nothing above 8 kHz, and no direction.",
        "It knows its own labels only. A sound that is none of them gets scores all the same.",
        "Scores are probabilities as far as the calibration's clips are like yours, and only with its "
        "temperature."
        if facts.calibration
        else "Scores are no probabilities: nobody has calibrated them.",
        "Times of events are as good as labels of whole clips can teach: it was not trained on onsets.",
    ]
    if facts.figures is not None:
        figures = facts.figures
        unheard = figures.n_labels - figures.n_labels_scored
        lines += (
            [f"{unheard} labels had no test clip: how well it knows them was not measured."]
            if unheard
            else []
        )
        known = [i for i in figures.ap.argsort() if not math.isnan(figures.ap[i])]
        worst = "; ".join(
            f"{markdown(facts.labels.names[i])} {number(float(figures.ap[i]), 100)}" for i in known[:WORST]
        )
        lines += [f"Labels with the lowest AP: {worst}."] if len(known) > 2 * WORST else []
    return "## Limits\n\n" + "\n".join(f"- {line}" for line in lines)


def _citation(facts: Facts) -> str:
    entries = (
        [BEATS, AUDIOSET]
        if any(label.mid.startswith("/m/") or label.mid.startswith("/t/") for label in facts.labels.labels)
        else [BEATS]
    )
    return (
        "## Citation\n\nThe model is BEATs"
        + ("; its labels are AudioSet's" if len(entries) > 1 else "")
        + ".\n\n```bibtex\n"
        + "\n\n".join(entries)
        + "\n```"
    )


def number(value: float, scale: float) -> str:
    """Two digits after the point; a dash for what is not defined."""
    return f"{scale * value:.2f}" if math.isfinite(value) else "–"
