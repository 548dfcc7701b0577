"""Speech Commands V1 as KS1: ten keywords, unknown words, silence. Source: Warden 2018, SUPERB's task."""

from pathlib import Path

from beatline.audio import archives, durations
from beatline.core.errors import UserError
from beatline.core.labels import LabelSet
from beatline.data.manifest.named import DataSet, Found
from beatline.data.manifest.rows import Row
from beatline.data.manifest.sets.speech_commands_v2 import KS1_TEST, NOISE, spoken
from beatline.data.manifest.table import as_text, listed

KEYWORDS = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")
SILENCE = "_silence_"
UNKNOWN = "_unknown_"


def read(root: Path, fold: int) -> Found:
    """Ten keywords, unknown words, silence.

    The test split is the official test set of 12 classes, where it lies in or beside the folder. Else it is
    the clips of the testing list. Silence is the background noise cut into seconds. Its recordings stay
    whole. The first by name is for validation. Without the official test set, the second is for test.
    """
    official = next((folder for folder in (root / KS1_TEST, root.parent / KS1_TEST) if folder.is_dir()), None)
    rows = [
        Row(name, path, name, [word if word in KEYWORDS else UNKNOWN], (split,))
        for name, path, split in spoken(root)
        if (word := name.split("/")[0]) and not (official and split == "test")
    ]
    counted = list(rows)
    for number, path in (
        enumerate(path for path in listed(root / NOISE) if path.suffix == ".wav")
        if (root / NOISE).is_dir()
        else ()
    ):
        split = _noise_split(number, official is not None)
        for second in range(int(_seconds(path))):
            rows.append(
                Row(
                    f"{NOISE}/{as_text(path.name)}@{second}",
                    path,
                    f"{NOISE}/{as_text(path.name)}",
                    [SILENCE],
                    (split,),
                    start=float(second),
                    end=second + 1.0,
                )
            )
    for folder in listed(official) if official else ():
        rows += [
            Row(
                f"test/{folder.name}/{as_text(path.name)}",
                path,
                f"test/{folder.name}/{as_text(path.name)}",
                [folder.name],
                ("test",),
            )
            for path in (listed(folder) if folder.is_dir() else ())
            if path.suffix == ".wav"
        ]
    labels = LabelSet.from_names((*KEYWORDS, SILENCE, UNKNOWN))
    return Found(rows=rows, labels=labels, counted=counted)


def _noise_split(number: int, has_official_test: bool) -> str:
    """The split of a recording of background noise, by its number in order of name."""
    if number == 0:
        return "val"
    return "test" if number == 1 and not has_official_test else "train"


def _seconds(path: Path) -> float:
    try:
        with archives.opened(path) as (read_at, size):
            return durations.seconds(read_at, size) or 0.0
    except (UserError, OSError):  # decoding it would say why; without a length it gives no silence
        return 0.0


DATA_SET = DataSet(title="Speech Commands V1", clips=64_727, read=read)
