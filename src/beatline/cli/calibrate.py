"""`beatline calibrate`: thresholds and a temperature for a model, from labelled clips."""

import math
from argparse import ArgumentTypeError, Namespace
from pathlib import Path

from beatline.cli.options import add_model_options, add_window_options, load_tagger
from beatline.cli.parser import Parser
from beatline.core.errors import UserError

FOLDS = 5


def goal(text: str) -> float | None:
    """Argument type: a precision from `precision=P`, None for `f1`."""
    name, _, value = text.partition("=")
    try:
        number = float(value)
    except ValueError:
        number = 0.0
    if text != "f1" and (name != "precision" or not 0 < number <= 1):
        raise ArgumentTypeError(f"{text!r} is neither f1 nor precision= a number above 0, at most 1")
    return None if text == "f1" else number


def parser() -> Parser:
    """The options of the command."""
    parser = Parser(
        "calibrate",
        "Learns a threshold for each label, and a temperature with which scores mean probabilities, for "
        "`beatline tag --calibrated`. Publishes them beside the model.",
    )
    add_model_options(parser)
    add_window_options(parser)
    parser.add(
        "--csv",
        type=Path,
        metavar="FILE|FOLDER",
        help="labelled clips that neither train nor test the model (the run's validation clips)",
    )
    parser.add(
        "--goal",
        type=goal,
        metavar="f1|precision=P",
        help="what thresholds are for: the highest F1 (f1), or the lowest with this precision",
    )
    return parser


def calibrate(given: Namespace) -> None:
    """Does what the command says."""
    from beatline.core.console import progress
    from beatline.evaluate import calibrate as calibration
    from beatline.evaluate import calibrate_page, labelled
    from beatline.tag.calibration import Calibration, calibration_folder, model_hash

    clips = labelled.listed(given.csv) if given.csv else labelled.validation(Path(given.model))
    tagger = load_tagger(given)
    targets, known = labelled.for_labels(clips, tagger.labels)
    if not known.any():
        raise UserError(
            "label-mismatch",
            f"cannot learn from {clips.name}",
            "the model knows none of its labels",
            "write labels as the model does: `beatline tag --top 1000` shows them",
        )
    with progress("calibrate", len(clips.ids)) as advance:
        heard = labelled.hear(tagger, clips, advance)
    evidence = calibration.Evidence(
        heard.logits, targets[heard.indices], known, tagger.engine.score, tagger.merge, tagger.engine.task
    )
    temperature = calibration.fit_temperature(evidence)
    thresholds, states = calibration.fit_thresholds(
        evidence.scores(temperature), evidence.targets, given.goal
    )
    worth = calibration.worth(
        evidence,
        labelled.folds([clips.recordings[i] for i in heard.indices], evidence.targets, FOLDS),
        given.goal,
    )
    gains = {"calibration_error": worth.errors, "f1": [decision["f1"] for decision in worth.decisions]}
    about = {
        "goal": "f1" if given.goal is None else f"precision={given.goal:g}",
        "clips": len(heard.indices),
        "clips_hash": clips.part(heard.indices.tolist()).clips_hash,
        "model_hash": model_hash(Path(given.model)),
        "gains": {
            name: [value if math.isfinite(value) else None for value in values]
            for name, values in gains.items()
        },
    }
    folder = calibration_folder(Path(given.model))
    learned = Calibration(tagger.labels, thresholds, temperature, states, evidence.targets.sum(axis=0), about)
    shown = calibrate_page.page(Path(given.model).name, learned, worth, evidence.task)
    learned.save(folder, lambda partial: (partial / calibrate_page.FILE).write_text(shown, encoding="utf-8"))
    for line in heard.refused:
        print(f"calibrate  left out {line}")
    print(
        f"calibrate  {len(heard.indices)} clips, {int(known.sum())} of {len(known)} labels learned, the "
        f"others keep {calibration.DEFAULT:g}; temperature {temperature:.3f}"
    )
    print(
        f"           on clips that had no part in it: calibration error {gains['calibration_error'][0]:.3f} "
        f"-> {gains['calibration_error'][1]:.3f}, F1 of decisions {gains['f1'][0]:.3f} (at 0.5) -> "
        f"{gains['f1'][1]:.3f}"
    )
    print(f"           {folder / calibrate_page.FILE}")
