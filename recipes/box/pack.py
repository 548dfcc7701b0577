"""a trained model -> the box: `python recipes/box/pack.py MODEL --work DIR`.

In: the model folder of a run, the work folder of `make.py`. Out: `src/beatline/assets/box`, or `--to`. There
are float16 weights, the graph, the model card with figures of `evaluate.py`, licence and attribution table.
"""

import argparse
from pathlib import Path
from typing import Any

import evaluate

import beatline
from beatline.data.store import Store
from beatline.model.checkpoints.load import load_tagger
from beatline.publish import box

HERE = Path(__file__).parent
BOX = HERE.parents[1] / "src/beatline/assets/box"

LICENCE = """The weights in this folder are licensed under CC BY-SA 4.0
(https://creativecommons.org/licenses/by-sa/4.0/), as is most of the sound from which they come.
attribution.csv names the sound's packages, licences and authors.

The scores that taught them are YAMNet's: copyright The TensorFlow Authors, Apache License 2.0
(https://www.apache.org/licenses/LICENSE-2.0).
"""


def card(figures: dict[str, Any], about: dict[str, Any]) -> str:
    """The model card."""
    mini = figures["mini-audioset test, as it is"]
    unseen = figures["unseen packages"]
    weakest = ", ".join(figures["weakest labels"])
    return f"""# The tagger in the box

A small BEATs encoder with a linear head. It has {about["parameters"] / 1e6:.1f} million parameters and knows
521 of AudioSet's 527 labels. It comes with beatline, so that a sound has an answer at once, offline.

## What it learned from
Its teacher is YAMNet, whose scores and embeddings it repeats; nobody's labels were used. Its sound is freely
licensed: games, telephone prompts, samples, General MIDI phrases. They are {about["clips"]} clips of 4 s;
more than half are composed of others. attribution.csv names each package, licence and author; `recipes/box`
makes all of it again. {about["note"]}

## How good it is
| figure | |
|---|---|
| mAP on mini-audioset's 150 test clips, 25 labels, as it is | {mini["mAP"]:.3f} |
| 95 % interval of it | {mini["low"]:.3f} to {mini["high"]:.3f} |
| mAP against the teacher on packages that it never heard, {unseen["labels"]} labels | {unseen["mAP"]:.3f} |
| of them rare in training, {unseen["rare labels"]} labels | {unseen["rare mAP"]:.3f} |
| correlation with the teacher there | {unseen["correlation"]:.3f} |
| first label the same as the teacher's there | {100 * unseen["same first label"]:.0f} % |
| seconds for 10 s of sound on a core | {figures["seconds for 10 s on a core"]:.3f} |

`python recipes/box/evaluate.py` prints these. The interval is a bootstrap's over clips. YAMNet itself reaches
0.771 mAP on the same test clips (measured once, before this recipe).

## What it is not
It is no match for a BEATs of the release, which has 90 million parameters and learned from AudioSet: `--model
beats`. Labels that its teacher hardly knows it knows less: {weakest} were the weakest among those measured.
Its scores are low, and it leans towards Music and Speech, as its teacher does. It must not decide anything
that harms somebody when it is wrong: it was not made for alarms, medicine or surveillance.

## Licence
CC BY-SA 4.0; the teacher's notice is in LICENSE.
"""


def main() -> None:
    """Writes the box."""
    parser = argparse.ArgumentParser(description="Packs a model as the tagger in the box.")
    parser.add_argument("model", type=Path)
    parser.add_argument("--work", type=Path, required=True, help="folder of make.py")
    parser.add_argument("--to", type=Path, default=BOX)
    parser.add_argument("--note", default="", help="a sentence for the card")
    given = parser.parse_args()
    loaded = load_tagger(given.model)
    tagger = beatline.load(given.model, engine="torch", threads=1)
    figures = evaluate.figures(tagger, given.work)
    clips = len(Store.open(given.work / "store").splits["train"])
    about = {
        "made by": "recipes/box",
        "teacher": "YAMNet",
        "parameters": sum(tensor.numel() for tensor in loaded.state.values()),
        "clips": clips,
        "licence": "CC BY-SA 4.0",
        "figure": f"mini-audioset {100 * figures['mini-audioset test, as it is']['mAP']:.1f} mAP",
        "note": given.note,
        "figures": figures,
    }
    papers = {
        "MODEL_CARD.md": card(figures, about),
        "LICENSE": LICENCE,
        "attribution.csv": (given.work / "corpus/attribution.csv").read_text(),
    }
    worst = box.write(loaded, given.to, papers, about)
    print(f"{given.to}: the graph's scores are within {worst:.1g} of PyTorch's")


if __name__ == "__main__":
    main()
