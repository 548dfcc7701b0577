"""`beatline probe`: a head for labels of your own, on a frozen encoder."""

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from beatline.cli.options import add_device_option, add_settings
from beatline.cli.parser import Parser

if TYPE_CHECKING:
    from beatline.evaluate.metrics import Figures

DEFAULTS = {"test_fraction": 0.0, "validation_fraction": 0.0}

FORMS = """DATA is a folder with a folder for each class, or a table with columns file,labels and optionally
split,id,recording,start,end. Other forms of data: --data.dataset NAME --data.root DIR,
--data.kaldi DIR, --data.audioset DIR. Without splits in the data all clips are learned from;
--data.test_fraction 0.2 holds out whole recordings, to be scored. FOLDER is then a model for
every command, like a run folder."""


def parser() -> Parser:
    """The options of the command."""
    parser = Parser(
        "probe",
        "Fits a head to labelled clips of your own, few of them included, on the frozen encoder of any "
        "model.",
        usage="beatline probe [DATA] --model MODEL --to FOLDER [--SETTING VALUE ...]",
        epilog=FORMS,
    )
    parser.add("data", nargs="?", metavar="DATA", help="labelled clips: a folder, or a table")
    parser.add(
        "--model",
        required=True,
        metavar="RUN|CHECKPOINT|OWNER/NAME",
        help="run folder, checkpoint of any family (it may lack a head), or hub repository",
    )
    parser.add("--to", type=Path, required=True, metavar="FOLDER", help="folder to write")
    parser.add(
        "--head",
        choices=("linear", "nearest"),
        default="linear",
        help="a linear layer, or the labels of the nearest clips by cosine, which are stored (linear)",
    )
    parser.add(
        "--task",
        choices=("multi-label", "single-label"),
        help="whether labels exclude each other (they do where every clip has a single label)",
    )
    add_device_option(parser)
    add_settings(parser, ["data"], "data.", {f"data.{name}": value for name, value in DEFAULTS.items()})
    return parser


def probe(given: Namespace) -> None:
    """Learns, publishes, and prints what the head is worth."""
    overrides = given.overrides
    if given.data is not None:
        overrides = [*overrides, f"--data.{'folder' if Path(given.data).is_dir() else 'csv'}={given.data}"]
    from beatline.core.console import progress, say
    from beatline.evaluate import labelled
    from beatline.fetch import checkpoints
    from beatline.settings import load_data
    from beatline.train.probe import learn

    clips = labelled.of_data(load_data(overrides, **DEFAULTS))
    model = checkpoints.locate(given.model)
    with progress("probe", len(clips.ids)) as advance:
        learned = learn(model, clips, given.to, given.head, given.task, given.device, advance)
    rejected = [f"{rejection.input}: {rejection.reason}" for rejection in clips.rejected]
    for line in (*rejected, *learned.refused):
        say("probe", f"left out {line}")
    counts = ", ".join(f"{name} {count}" for name, count in learned.clips.items() if count)
    say(
        "probe",
        f"{len(clips.ids) - len(learned.refused)} clips ({counts}), {len(learned.labels)} labels, "
        f"{learned.task}",
    )
    if learned.dropped:
        say(
            "probe",
            f"{len(learned.dropped)} labels have no train clip and are left out: "
            f"{', '.join(learned.dropped[:10])}",
        )
    if learned.single:
        say(
            "probe",
            f"{learned.single} labels have a single train recording: none could be held out to judge them",
        )
    what = "penalty" if learned.kind == "linear" else "temperature"
    say("probe", f"{learned.kind} head, {what} {learned.chosen.strength:g}: {learned.chosen.how}")
    _print(learned.test, "on the test clips")
    _print(
        learned.cross_validated,
        f"on the train clips, each by a head that has not seen it (a little high: they chose the {what})",
    )
    say("probe", f"{given.to}")


def _print(figures: "Figures | None", title: str) -> None:
    if figures is not None:
        from beatline.evaluate.score_folder import score_table

        print(f"{title}:\n{score_table(figures, {})}")
