"""`beatline score`: the fourth stage of a run, and the figures of given score files."""

from argparse import Namespace
from pathlib import Path

from beatline.cli.options import add_config, add_settings, load_config, refuse_existing
from beatline.cli.parser import Parser
from beatline.core.errors import UserError


def parser() -> Parser:
    """The options of the command."""
    parser = Parser(
        "score",
        "Computes every figure of the recipe on the test clips of a run, or of given score files. Other "
        "settings of `beatline run` are taken and not used.",
        usage="beatline score CONFIG [--SETTING VALUE ...]\n"
        "       beatline score --predictions FOLDER [--to FOLDER]\n"
        "       beatline score --scores FILE --text FILE --tokens FILE [--to FOLDER]",
    )
    add_config(parser)
    files = "given score files"
    parser.add(
        "--predictions", type=Path, metavar="FOLDER", section=files, help="folder of predictions of a run"
    )
    parser.add("--scores", type=Path, metavar="FILE", section=files, help="scores as ESPnet writes them")
    parser.add(
        "--text", type=Path, metavar="FILE", section=files, help="the labels of each clip, as ESPnet has them"
    )
    parser.add(
        "--tokens", type=Path, metavar="FILE", section=files, help="ESPnet's list of all labels, in order"
    )
    parser.add(
        "--to",
        type=Path,
        metavar="FOLDER",
        section=files,
        help="also write labels.csv, the figures per label, and the scores as ESPnet's text files",
    )
    add_settings(parser, ["out", "store", "score"])
    return parser


def score(given: Namespace) -> None:
    """Does what the command says."""
    if given.predictions or given.scores or given.text or given.tokens:
        _score_files(given)
        return
    if given.to:
        raise parser().refusal("option --to", "it needs --predictions, or --scores, --text and --tokens")
    config = load_config(given)
    from beatline import recipe

    recipe.STAGES["score"](config)


def _score_files(given: Namespace) -> None:
    """Prints the figures of score files; with `--to` writes those per label, and ESPnet's files."""
    from beatline.evaluate import metrics
    from beatline.evaluate.predictions import Predictions
    from beatline.evaluate.score_folder import score_table

    if given.config or given.overrides:
        word = given.config or given.overrides[0].partition("=")[0]
        raise parser().refusal(f"argument {word}", "given score files have no configuration")
    if given.to:
        refuse_existing(given.to)
    if given.predictions:
        predictions = Predictions.load(given.predictions)
    elif given.scores and given.text and given.tokens:
        predictions = Predictions.from_espnet(given.scores, given.text, given.tokens)
    else:
        raise UserError(
            "bad-usage",
            "beatline score",
            "score files need all of --scores, --text and --tokens",
            "`beatline score --help` shows the form",
        )
    figures = metrics.figures(predictions.scores, predictions.targets, clips_hash=predictions.clips_hash)
    print(score_table(figures, {}))
    if given.to:
        predictions.to_espnet(given.to, metrics.label_table(figures, predictions.labels))
        print(
            f"{given.to}: labels.csv, the figures per label; score, text, reference_text and token_list, as "
            f"ESPnet's scorer reads them"
        )
    if given.predictions:
        print(
            "mean_acc is in the label table's order; `beatline score CONFIG` takes the training "
            "frequency's, as ESPnet's files do"
        )
