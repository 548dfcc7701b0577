"""The table of mini-audioset from the table of all clips that were made: recordings, and a validation split.

python recipes/mini/split.py            prints what the split is
python recipes/mini/split.py --write    writes the table, renames validation clips, deletes what is left out

In: `clips.csv` beside this file, 300 train and 150 test clips with their sources. Out: `manifest.csv` of the
asset with a column `recording`. Test clips are untouched. Of the others a set of recordings is chosen for
validation: a clip of these alone validates, a clip of none of them trains, a mixture of both is left out.
"""

import csv
import random
import sys
from collections import Counter
from pathlib import Path

CLIPS = Path(__file__).with_name("clips.csv")
ASSET = Path(__file__).parents[2] / "src/beatline/assets/mini-audioset"
JOINT = "|"

SAME = (
    # 0.93 by the fingerprints of `beatline inspect`: two packages have the same cow
    ("stk:cow.ogg", "mg:mudchute_cow_1.ogg"),
    # 0.82 by the fingerprints, 0.97 as waveforms
    ("0ad:day_tropical_10.ogg", "0ad:day_tropical_11.ogg"),
    # half a second of both is alike as a waveform, its spectrum flattened: 0.5 to 0.95
    (
        "0ad:day_temperate_11.ogg",
        "0ad:day_temperate_12.ogg",
        "0ad:day_temperate_gen_01.ogg",
        "0ad:day_temperate_gen_02.ogg",
    ),
    ("0ad:c_11.ogg", "0ad:sp_11.ogg"),
    ("0ad:c_14.ogg", "0ad:sp_14.ogg"),
    ("0ad:c_17.ogg", "0ad:sp_17.ogg"),
    ("0ad:Footstep_Grass_Walking.ogg", "0ad:Footstep_Grass_Running.ogg"),
    (
        "0ad:Footstep_Gravel_Walking.ogg",
        "0ad:Footstep_Gravel_Running.ogg",
        "0ad:Footstep_Rock_Running.ogg",
    ),
    ("0ad:Foorstep_Sand_Walking.ogg", "0ad:Foorstep_Sand_Running.ogg"),
    ("mg:chicken_select1.wav", "mg:chicken_select3.wav", "mg:chicken_standing1.wav", "mg:chicken_die3.wav"),
    ("fluid:program0", "fluid:program1"),
)
"""Sources that hold the same sound under different names; the first name stands for all."""
NAME_OF = {source: sources[0] for sources in SAME for source in sources}

STARTS = 40  # of the search, each from another order
LEAST = {"train": 225, "val": 40}  # clips
MOST = 50  # validation clips beyond which more are no gain
KEPT = 0.6  # share of a label's clips that train should keep
WORTH = (10.0, 2.5, 0.7)  # of the first, second and third validation clip of a label
LOST = 0.5  # cost of a clip left out


class Clips:
    """Clips that may train or validate: their recordings and labels."""

    def __init__(self, rows: list[dict[str, str]]):
        self.recordings = [frozenset(row["recording"].split(JOINT)) for row in rows]
        self.labels = [row["labels"].split(";") for row in rows]
        self.total = Counter(label for labels in self.labels for label in labels)

    def home(self, index: int, chosen: set[str]) -> str:
        """`train`, `val`, or nothing for a clip that is left out."""
        if self.recordings[index] <= chosen:
            return "val"
        return "" if self.recordings[index] & chosen else "train"

    def worth(self, chosen: set[str]) -> float:
        """How good it is to validate on these recordings."""
        homes = [self.home(index, chosen) for index in range(len(self.labels))]
        size = Counter(homes)
        carried = {
            name: Counter(
                label
                for labels, home in zip(self.labels, homes, strict=True)
                if home == name
                for label in labels
            )
            for name in LEAST
        }
        value = -LOST * size[""] - max(0, size["val"] - MOST)
        value -= sum(20.0 * max(0, least - size[name]) for name, least in LEAST.items())
        for label, total in self.total.items():
            value += sum(WORTH[: carried["val"][label]])
            value -= 40 * max(0.0, KEPT - carried["train"][label] / total)
            value -= 0 if carried["train"][label] else 1000
        return value


def choose(clips: Clips) -> set[str]:
    """The recordings to validate on: the best of `STARTS` climbs, each a pure function of its number."""
    names = sorted(set().union(*clips.recordings))
    found = []
    for start in range(STARTS):
        draw = random.Random(start)
        chosen: set[str] = set()
        value = clips.worth(chosen)
        climbing = True
        while climbing:
            climbing = False
            moves = [{name} for name in names] + [set(draw.sample(names, 2)) for _ in names]
            draw.shuffle(moves)
            for move in moves:
                worth = clips.worth(chosen ^ move)
                if worth > value + 1e-9:
                    chosen, value, climbing = chosen ^ move, worth, True
        found.append((value, -start, chosen))
    return max(found, key=lambda climb: climb[:2])[2]


def split(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    """The rows that stay, in order, with `recording` and `split`; a validation clip is named so."""
    for row in rows:
        sources = row["source"].split(JOINT)
        row["recording"] = JOINT.join(dict.fromkeys(NAME_OF.get(source, source) for source in sources))
    tested = {name for row in rows if row["split"] == "test" for name in row["recording"].split(JOINT)}
    free = [row for row in rows if row["split"] == "train" and not tested & {*row["recording"].split(JOINT)}]
    clips = Clips(free)
    chosen = choose(clips)
    home = {row["file"]: clips.home(index, chosen) for index, row in enumerate(free)}
    result = []
    for row in rows:
        name = "test" if row["split"] == "test" else home.get(row["file"], "")
        if name:
            file = row["file"].replace("/train_", "/val_") if name == "val" else row["file"]
            result.append(row | {"file": file, "split": name})
    return result


def write(rows: list[dict[str, str]]) -> None:
    """Writes the asset's table and puts its files right."""
    for row in rows:
        before = ASSET / row["file"].replace("/val_", "/train_")
        if row["split"] == "val" and before.exists():
            before.rename(ASSET / row["file"])
    for path in {*(ASSET / "audio").iterdir()} - {ASSET / row["file"] for row in rows}:
        path.unlink()
    with (ASSET / "manifest.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


def main(arguments: list[str]) -> None:
    """Prints how many clips each label has in each split; with `--write` also writes the table."""
    with CLIPS.open(newline="") as file:
        given = list(csv.DictReader(file))
    rows = split(given)
    sizes = Counter(row["split"] for row in rows)
    print(f"{dict(sizes)}, {len(given) - len(rows)} left out")
    carried = Counter((label, row["split"]) for row in rows for label in row["labels"].split(";"))
    for label in dict.fromkeys(label for label, _ in carried):
        print(label, {name: carried[label, name] for name in sizes})
    if arguments == ["--write"]:
        write(rows)


if __name__ == "__main__":
    main(sys.argv[1:])
