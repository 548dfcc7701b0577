"""`beatline run` and its stages."""

from pathlib import Path

from beatline.cli.options import is_ray, nothing_left, option
from beatline.core.errors import UserError

FORMS = {
    "prepare": "       beatline prepare CONFIG --engine ray [--source PLACE] [--to PLACE]    on many "
    "machines; a place is a folder or an address like s3://bucket/store\n",
    "score": "       beatline score --scores FILE --text FILE --tokens FILE [--to FOLDER]    ESPnet's own "
    "text files\n       beatline score --predictions FOLDER [--to FOLDER]    --to writes labels.csv, the "
    "figures per label, and the scores as ESPnet's text files\n",
}
"""Other forms that some stages have."""


def stage(name: str, arguments: list[str], description: str) -> None:
    """Runs one stage of a configuration, or all of them; `score` also takes files."""
    if name == "score" and {"--scores", "--predictions", "--text", "--tokens"} & set(arguments):
        score_files(arguments)
        return
    from beatline import config

    if "--help" in arguments or "-h" in arguments:
        print(
            f"usage: beatline {name} [CONFIG.yaml or shipped name: {', '.join(sorted(config.shipped()))}] "
            f"[--section.setting VALUE ...]\n{FORMS.get(name, '')}{description}\n"
        )
        print(config.settings_help(f"beatline {name}"))
        return
    engine, source, to = (
        option(arguments, word) if name == "prepare" else None for word in ("--engine", "--source", "--to")
    )
    chosen = arguments.pop(0) if arguments and not arguments[0].startswith("-") else "mini"
    settings = config.load(chosen, arguments)
    from beatline import recipe

    if is_ray(engine):
        recipe.prepare_on_ray(settings, source or "", to or "")
        return
    if source or to:
        raise UserError(
            "bad-usage",
            "options --source and --to",
            "only Ray reads and writes other places",
            "add --engine ray, or use --data and --store settings",
        )
    (recipe.run if name == "run" else recipe.STAGES[name])(settings)


def score_files(arguments: list[str]) -> None:
    """Prints the figures of given score files; where asked, writes those per label and the scores as ESPnet's
    files.
    """
    from beatline.evaluate import metrics
    from beatline.evaluate.predictions import Predictions
    from beatline.evaluate.score_folder import score_table

    folder, to, scores, text, tokens = (
        option(arguments, name) for name in ("--predictions", "--to", "--scores", "--text", "--tokens")
    )
    nothing_left(arguments)
    if to and Path(to).exists():
        raise UserError(
            "not-writable",
            f"cannot write {to}",
            "it is there already",
            "name another folder, or move it away",
        )
    if folder:
        predictions = Predictions.load(Path(folder))
    elif scores and text and tokens:
        predictions = Predictions.from_espnet(Path(scores), Path(text), Path(tokens))
    else:
        raise UserError(
            "bad-usage",
            "beatline score",
            "score files need all of --scores, --text and --tokens",
            "`beatline score --help` shows the form",
        )
    figures = metrics.figures(predictions.scores, predictions.targets, clips_hash=predictions.clips_hash)
    print(score_table(figures, {}))
    if to:
        predictions.to_espnet(Path(to), metrics.label_table(figures, predictions.labels))
        print(
            f"{to}: labels.csv, the figures per label; score, text, reference_text and token_list, as "
            f"ESPnet's scorer reads them"
        )
    if folder:
        print(
            "mean_acc is in the label table's order; `beatline score CONFIG` takes the training "
            "frequency's, as ESPnet's files do"
        )
