"""Speech Commands V2 as KS2: every word its own class, 35 in the full set. Source: Warden 2018."""

from pathlib import Path

from beatline.core.labels import LabelSet
from beatline.data.manifest.named import DataSet, Found
from beatline.data.manifest.rows import Row
from beatline.data.manifest.table import as_text, listed, read_text

NOISE = "_background_noise_"
KS1_TEST = "speech_commands_test_set_v0.01"


def read(root: Path, fold: int) -> Found:
    """Every spoken file; the splits are those of `validation_list.txt` and `testing_list.txt`."""
    files = spoken(root)
    rows = [Row(name, path, name, [name.split("/")[0]], (split,)) for name, path, split in files]
    labels = LabelSet.from_names(sorted({name.split("/")[0] for name, _, _ in files}) or ["none"])
    return Found(rows=rows, labels=labels)


def spoken(root: Path) -> list[tuple[str, Path, str]]:
    """`<word>/<file>`, path and split of every spoken file, and of every listed file that is not there."""
    homes = {
        line.strip(): split
        for split, name in (("val", "validation_list.txt"), ("test", "testing_list.txt"))
        for line in read_text(root / name).splitlines()
        if line.strip()
    }
    found: dict[str, Path] = {}
    for word in listed(root):
        if word.is_dir() and word.name not in (NOISE, KS1_TEST):
            found |= {
                f"{as_text(word.name)}/{as_text(path.name)}": path
                for path in listed(word)
                if path.suffix == ".wav"
            }
    absent = [
        name
        for name in homes
        if name not in found
        and len(Path(name).parts) == 2
        and ".." not in Path(name).parts
        and not Path(name).is_absolute()
    ]
    return [(name, path, homes.get(name, "train")) for name, path in found.items()] + [
        (name, root / name, homes[name]) for name in absent
    ]


DATA_SET = DataSet(title="Speech Commands V2", clips=105_829, read=read)
