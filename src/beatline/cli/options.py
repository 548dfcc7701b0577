"""Options that several commands share, and what they ask for."""

from argparse import SUPPRESS, Namespace
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from beatline import settings
from beatline.cli.parser import Parser, above_zero, not_negative, share
from beatline.config import Config
from beatline.core.errors import UserError

if TYPE_CHECKING:
    import numpy as np

    from beatline.audio.media import Audio
    from beatline.tag.tagger import AudioTagger

DEVICES = ("auto", "cpu", "cuda")


# --- settings of a run


def add_config(parser: Parser) -> None:
    """CONFIG, which `load_config` takes."""
    parser.add(
        "config",
        nargs="?",
        type=str,
        metavar="CONFIG",
        help=f"YAML file, or the name of a shipped configuration: {', '.join(settings.shipped())}",
        values=settings.shipped,
    )


def add_settings(
    parser: Parser, shown: Iterable[str], within: str = "", defaults: Mapping[str, object] | None = None
) -> None:
    """Every setting as a dotted option, so that one command line serves all stages.

    Args:
        shown: Settings, or sections such as `data`, that the help has; `*` is all.
        within: Only settings whose name starts with this.
        defaults: By name, those that differ here.
    """
    wanted = set(shown)
    about = settings.sections()
    for setting in settings.table().values():
        if not setting.name.startswith(within):
            continue
        section = setting.name.rpartition(".")[0]
        values = tuple(data_sets()) if setting.name == "data.dataset" else setting.values
        default = (defaults or {}).get(setting.name, setting.default)
        end = f" ({_text(default)})" if default is not None else ""
        title = f"settings of {section}: {about[section]}" if section else "settings of the run"
        is_shown = bool(wanted & {setting.name, section, setting.name.split(".")[0], "*"})
        parser.add_setting(
            setting.name,
            section=title,
            metavar=f"{{{','.join(values)}}}" if values else setting.kind.upper(),
            help=f"{setting.doc}{end}".replace("%", "%%") if is_shown else SUPPRESS,
            values=lambda values=values: values,
        )


def data_sets() -> Iterable[str]:
    """Names of the data sets with official splits."""
    from beatline.data.manifest.sets import names

    return names()


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"[{', '.join(map(str, value))}]" if isinstance(value, list) else str(value)


def load_config(given: Namespace) -> Config:
    """The configuration that CONFIG and the settings among the arguments ask for.

    Raises:
        UserError: as `settings.load`; `bad-usage` without a CONFIG.
    """
    if given.config is None:
        raise UserError(
            "bad-usage",
            f"beatline {given.command}",
            "no configuration is named",
            f"name a YAML file or {', '.join(settings.shipped())}: `beatline {given.command} mini`",
        )
    for override in given.overrides:
        name, _, value = override.partition("=")
        if name == "--data.dataset" and value not in ("", "null"):
            from beatline.data.manifest.sets import data_set

            data_set(value)  # named before what else does not fit
    return settings.load(given.config, given.overrides)


# --- taggers


def add_model_option(parser: Parser) -> None:
    """`--model`: what is tagged with."""
    parser.add(
        "--model",
        required=True,
        metavar="RUN|CHECKPOINT|EXPORT|OWNER/NAME",
        help="run folder, checkpoint of any family, export, or hub repository",
    )


def add_model_options(parser: Parser, more_engines: Sequence[str] = ()) -> None:
    """The options that say which tagger runs, and on what; `load_tagger` takes them."""
    from beatline.model.engines.load import PRECISIONS, engine_names

    engines = (*engine_names(), *more_engines)
    add_model_option(parser)
    parser.add(
        "--engine", choices=engines, default="auto", help="runtime (auto: the fastest that is at hand)"
    )
    parser.add(
        "--precision",
        choices=PRECISIONS,
        default="float32",
        help="arithmetic of the products (float32); on CPUs with AMX, int8 runs as bfloat16, which is faster",
    )
    add_device_option(parser)


def add_device_option(parser: Parser) -> None:
    """`--device`."""
    parser.add(
        "--device", choices=DEVICES, default="auto", help="where to compute (auto: a GPU where present)"
    )


def add_window_options(parser: Parser, merge: bool = True) -> None:
    """How a long recording is cut, and its scores merged."""
    parser.add(
        "--window",
        type=above_zero,
        default=10.0,
        metavar="SECONDS",
        help="longest stretch scored at once (10)",
    )
    parser.add(
        "--hop",
        type=above_zero,
        metavar="SECONDS",
        help="from the start of a window to the next (half a window)",
    )
    if merge:
        parser.add(
            "--merge",
            choices=("mean", "max", "attention"),
            default="mean",
            help="how the scores of windows make those of a recording (mean)",
        )


def add_label_options(parser: Parser, threshold: str) -> None:
    """Which labels are told, and from what score on; `load_tagger` and `choice` take them."""
    parser.add("--threshold", type=share, metavar="SCORE", help=threshold)
    add_calibrated_option(parser)
    parser.add(
        "--labels",
        action="append",
        metavar="LABEL[;LABEL]",
        help="these only: names, mids, or branches of AudioSet's ontology, as in 'Dog/'",
    )
    add_parents_option(parser)


def add_calibrated_option(parser: Parser) -> None:
    """`--calibrated`."""
    parser.add(
        "--calibrated",
        action="store_true",
        help="use the thresholds and the temperature that `beatline calibrate` has put beside the model",
    )


def add_parents_option(parser: Parser) -> None:
    """`--parents`."""
    parser.add(
        "--parents",
        action="store_true",
        help="raise a label's score to those of its kinds in AudioSet's ontology",
    )


def add_event_options(parser: Parser, section: str = "") -> None:
    """How scores become events."""
    parser.add(
        "--low",
        type=share,
        metavar="SHARE",
        section=section,
        help="share of the threshold at which an event ends (0.5)",
    )
    parser.add(
        "--median",
        type=not_negative,
        metavar="SECONDS",
        section=section,
        help="length of the median filter over scores (0.48); 0 is none",
    )
    parser.add(
        "--gap",
        type=not_negative,
        metavar="SECONDS",
        section=section,
        help="longest pause within an event (0.32)",
    )
    parser.add(
        "--shortest",
        type=not_negative,
        metavar="SECONDS",
        section=section,
        help="shortest event that is kept (0)",
    )


def check_label_options(given: Namespace) -> None:
    """Raises `bad-usage` for both of `--threshold` and `--calibrated`, and for `--labels` that name none."""
    if given.calibrated and given.threshold is not None:
        raise UserError(
            "bad-usage",
            "option --threshold",
            "--calibrated brings a threshold for each label",
            "give --threshold or --calibrated, not both",
        )
    if given.labels is not None and not all(words(text) for text in given.labels):
        raise UserError("bad-usage", "option --labels", "it names no label", "name labels, `;` between them")


def words(text: str) -> list[str]:
    """What stands between semicolons."""
    return [word for word in text.split(";") if word.strip()]


def choice(given: Namespace, tagger: "AudioTagger", threshold: float) -> "tuple[list[int], np.ndarray]":
    """Indices of the labels that `add_label_options` asks for, and the least score of each, `threshold` where
    nobody said.
    """
    import numpy as np

    from beatline.core.ontology import label_indices

    chosen = list(range(len(tagger.labels)))
    if given.labels:
        chosen = label_indices(tagger.labels, [word for text in given.labels for word in words(text)])
    if tagger.calibration:
        return chosen, tagger.calibration.thresholds[chosen]
    least = threshold if given.threshold is None else given.threshold
    return chosen, np.full(len(chosen), least, np.float32)


def hop(given: Namespace, share: float = 0.5) -> float:
    """Seconds from a window to the next: `--hop`, or a share of `--window`.

    Raises:
        UserError: `bad-usage` where it is longer than the window.
    """
    seconds = given.window * share if given.hop is None else given.hop
    if seconds > given.window:
        raise UserError(
            "bad-usage", "option --hop", "it is longer than the window", "give at most --window seconds"
        )
    return float(seconds)


def load_tagger(given: Namespace, head: bool = True) -> "AudioTagger":
    """The tagger that the options of `add_model_options`, and of `add_window_options` and `add_label_options`
    where they are there, ask for; `head` as `beatline.load`.
    """
    import beatline
    from beatline.fetch import checkpoints

    seconds = hop(given)
    given.model = checkpoints.locate(given.model)  # once, so that its calibration is looked for beside it
    tagger = beatline.load(
        given.model,
        engine=given.engine,
        precision=given.precision,
        device=given.device,
        parents=getattr(given, "parents", False),
        head=head,
        window=given.window,
        hop=seconds,
        merge=getattr(given, "merge", "mean"),
    )
    if getattr(given, "calibrated", False):
        from beatline.tag.calibration import Calibration

        tagger.calibration = Calibration.load(given.model, tagger.labels)
    return tagger


# --- models and files


def add_license_option(parser: Parser) -> None:
    """`--license`, for `pack` and `push`."""
    parser.add(
        "--license",
        type=str,
        default="",
        metavar="ID",
        help="licence of the weights, for the model card: cc-by-4.0, apache-2.0, ...",
    )


def find_sources(arguments: Sequence[str]) -> "Iterator[Audio]":
    """What the arguments name, standard input included."""
    import sys

    from beatline.audio.inputs import find_audio

    if list(arguments).count("-") > 1:
        raise UserError("bad-usage", "argument -", "standard input can be read only once", "give it once")
    for word in arguments:
        if word != "-":
            found = find_audio([word])
            first = next(found, None)
            if first is None:
                raise UserError(
                    "missing-file",
                    f"nothing to use in {word}",
                    "no audio file there",
                    "check the path, or leave it out",
                )
            yield first
            yield from found
        elif sys.stdin is None or sys.stdin.isatty():
            raise UserError(
                "bad-usage",
                "argument -",
                "standard input is no pipe",
                "pipe a sound file into the command: cat FILE | beatline tag - ...",
            )
        else:
            yield sys.stdin.buffer


def refuse_existing(path: Path) -> None:
    """Raises `not-writable` where something is at `path` already."""
    if path.exists():
        raise UserError(
            "not-writable", f"cannot write {path}", "it is there already", "name another, or move it away"
        )
