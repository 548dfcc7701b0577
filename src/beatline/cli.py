"""The program `beatline`: argv in, stages called, one line and an exit code out.

Only here are arguments parsed and errors printed. `beatline --help` imports no torch.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from beatline import __version__
from beatline.artefact import disk_errors
from beatline.errors import USAGE, UserError

STAGES = {
    "run": "all stages in order, each only where something is missing",
    "prepare": "decode every clip once into a store",
    "train": "fine-tune the tagger",
    "predict": "score the test clips with it",
    "score": "every figure of the recipe, or of given score files",
    "report": "RESULTS.md, a table per label, and report.html",
}
OTHERS = {
    "fetch": "get AudioSet's tables, its clips, a starting checkpoint",
    "inspect": "say what a store holds, lacks, repeats and contradicts",
    "common": "score two runs on their common clips",
    "convert": "turn a checkpoint into a beatline model folder or into ESPnet's layout",
    "tag": "tag audio files with a trained model",
    "export": "write a model as an ONNX graph that runs without PyTorch",
    "verify": "find every damaged or missing file of a folder that beatline made, and mend a store",
    "doctor": "say what this machine and a run folder are like",
}
HELP = f"""usage: beatline <command> [...]

{chr(10).join(f"  {name:8} {text}" for name, text in (STAGES | OTHERS).items())}

beatline run                                 the main job on the embedded real sound
beatline run as20k --data.audioset DIR --model.init CHECKPOINT
beatline run FILE.yaml [--section.setting VALUE ...]
beatline <command> --help                    every setting
beatline score --scores FILE --text FILE --tokens FILE     ESPnet's own text files
beatline score --predictions FOLDER
beatline convert SOURCE TARGET [--to beatline|espnet] [--architecture FILE]
beatline tag FILE|FOLDER|GLOB... --model RUN|CHECKPOINT|EXPORT [--top N] [--format table|jsonl|csv] [--window S] [--hop S] [--merge mean|max]
             [--engine auto|torch|onnx|openvino] [--precision float32|bfloat16|int8] [--device auto|cpu|cuda]
beatline export RUN|CHECKPOINT FOLDER [--int8]
beatline prepare CONFIG --engine ray [--source PLACE] [--to PLACE]    on many machines; a place is a folder or an address like s3://bucket/store
beatline verify PLACE [--engine ray | --repair [CONFIG] [--section.setting VALUE ...]]
beatline doctor [RUN]
beatline fetch audioset|clips|checkpoint ...  (beatline fetch --help)
beatline inspect STORE [--json] [--html FILE] [--quality qa_true_counts.csv]
beatline common RUN_A RUN_B [--json]         or folders of predictions

--debug shows the whole traceback of an error. Exit codes: 0 done, 2 usage, 3 bad input, 4 damaged file of ours, 5 disk or memory, 130/143 stopped.
"""


def _stage(name: str, arguments: list[str]) -> None:
    from beatline import config

    if "--help" in arguments or "-h" in arguments:
        print(f"usage: beatline {name} [CONFIG.yaml or shipped name: {', '.join(sorted(config.shipped()))}] [--section.setting VALUE ...]\n{STAGES.get(name, '')}\n")
        print(config.settings_parser(prog=f"beatline {name}").format_help().split("\n\n", 1)[1])
        return
    engine, source, to = (_option(arguments, option) if name == "prepare" else None for option in ("--engine", "--source", "--to"))
    chosen = arguments.pop(0) if arguments and not arguments[0].startswith("-") else "mini"
    settings = config.load(chosen, arguments)
    from beatline import stages

    if _is_ray(engine):
        stages.prepare_on_ray(settings, source or "", to or "")
        return
    if source or to:
        raise UserError("bad-usage", "options --source and --to", "only Ray reads and writes other places", "add --engine ray, or use --data and --store settings")
    (stages.run if name == "run" else stages.STAGES[name])(settings)


def _is_ray(engine: str | None) -> bool:
    if engine not in (None, "ray"):
        raise UserError("bad-usage", f"engine {engine!r}", "there is no such engine", "leave --engine out, or name ray")
    return engine == "ray"


def _option(arguments: list[str], name: str) -> str | None:
    """Takes `--name VALUE` out of the arguments."""
    if name not in arguments:
        return None
    place = arguments.index(name)
    if place + 1 == len(arguments):
        raise UserError("bad-usage", f"option {name}", "its value is missing", "`beatline --help` shows the form")
    del arguments[place]
    return arguments.pop(place)


def _nothing_left(arguments: list[str]) -> None:
    if arguments:
        raise UserError("bad-usage", f"argument {arguments[0]!r}", "not understood", "`beatline --help` shows the form")


def _score_files(arguments: list[str]) -> None:
    from beatline import metrics
    from beatline.predictions import Predictions
    from beatline.stages import score_table

    folder, scores, text, tokens = (_option(arguments, name) for name in ("--predictions", "--scores", "--text", "--tokens"))
    _nothing_left(arguments)
    if folder:
        predictions = Predictions.load(Path(folder))
    elif scores and text and tokens:
        predictions = Predictions.from_espnet(Path(scores), Path(text), Path(tokens))
    else:
        raise UserError("bad-usage", "beatline score", "score files need all of --scores, --text and --tokens", "`beatline --help` shows the form")
    figures = metrics.figures(predictions.scores, predictions.targets, clips_hash=predictions.clips_hash)
    print(score_table(figures, {}))
    if folder:
        print("mean_acc is in the label table's order; `beatline score CONFIG` takes the training frequency's, as ESPnet's files do")


def _convert(arguments: list[str]) -> None:
    from beatline.model.checkpoint import export_espnet, load_checkpoint, save

    target_form = _option(arguments, "--to") or "beatline"
    architecture = _option(arguments, "--architecture")
    if len(arguments) != 2 or target_form not in ("beatline", "espnet"):
        raise UserError("bad-usage", "beatline convert", "it takes SOURCE and TARGET and --to beatline or espnet", "`beatline --help` shows the form")
    source, target = arguments
    if Path(target).exists():
        raise UserError("not-writable", f"cannot write {target}", "it is there already", "name another folder, or move it away")
    loaded = load_checkpoint(source, architecture)
    tagger, labels = loaded.tagger(), loaded.labels
    assert labels is not None  # tagger() refuses a model without a head
    if target_form == "espnet":
        export_espnet(Path(target), tagger, labels)
    else:
        save(Path(target), tagger, labels, {"converted_from": str(loaded.source), "family": loaded.family})
    left = f", {len(loaded.ignored)} tensors left out on purpose" if loaded.ignored else ""
    print(f"convert  {loaded.source} ({loaded.family}, {len(labels)} labels{left}) -> {target}")


def _choice(arguments: list[str], name: str, allowed: tuple[str, ...]) -> str:
    """As `_option`, one of the allowed values; the first where it is left out."""
    value = _option(arguments, name) or allowed[0]
    if value not in allowed:
        raise UserError("bad-usage", f"option {name}", f"{value!r} is not one of {', '.join(allowed)}", "`beatline --help` shows the form")
    return value


def _number(arguments: list[str], name: str, default: float) -> float:
    value = _option(arguments, name)
    try:
        number = default if value is None else float(value)
    except ValueError:
        number = -1
    if not 0 < number < float("inf"):
        raise UserError("bad-usage", f"option {name}", f"{value!r} is not a number above 0", "`beatline --help` shows the form")
    return number


def _model_path(name: str) -> Path:
    """A run folder stands for the model in it."""
    path = Path(name)
    return path / "model" if (path / "model").is_dir() else path


def _tag(arguments: list[str]) -> None:
    from beatline import tag

    model = _option(arguments, "--model")
    form = _choice(arguments, "--format", ("table", "jsonl", "csv"))
    engine, precision = _choice(arguments, "--engine", ("auto", "torch", "onnx", "openvino")), _choice(arguments, "--precision", ("float32", "bfloat16", "int8"))
    device, merge = _choice(arguments, "--device", ("auto", "cpu", "cuda")), _choice(arguments, "--merge", ("mean", "max"))
    top, window = int(_number(arguments, "--top", 5)), _number(arguments, "--window", tag.WINDOW_SECONDS)
    hop = _number(arguments, "--hop", window * tag.HOP_SECONDS / tag.WINDOW_SECONDS)
    for argument in arguments:
        if argument.startswith("--"):
            raise UserError("bad-usage", f"argument {argument!r}", "not understood", "`beatline --help` shows the form")
    if model is None or not arguments:
        raise UserError("bad-usage", "beatline tag", "it takes audio files and --model", "`beatline --help` shows the form")
    if hop > window:
        raise UserError("bad-usage", "option --hop", "it is longer than the window", "give at most --window seconds")
    sources = list(tag.find(arguments))
    if not sources:
        raise UserError("missing-file", f"nothing to tag in {' '.join(arguments)}", "no audio file there", "give audio files, or a folder with some")
    results = tag.tag(tag.load(_model_path(model), engine, precision, device), sources, window, hop, merge)  # type: ignore[arg-type]
    refused = tag.write(results, form, top)
    if refused is not None:  # each refused file has had its line
        raise SystemExit(refused.exit_code)


def _export(arguments: list[str]) -> None:
    int8 = "--int8" in arguments
    rest = [a for a in arguments if a != "--int8"]
    if len(rest) != 2 or rest[1].startswith("--"):
        raise UserError("bad-usage", "beatline export", "it takes SOURCE and FOLDER", "`beatline --help` shows the form")
    source, folder = _model_path(rest[0]), Path(rest[1])
    if folder.exists():
        raise UserError("not-writable", f"cannot write {folder}", "it is there already", "name another folder, or move it away")
    from beatline import export
    from beatline.model.checkpoint import load_checkpoint

    loaded = load_checkpoint(source)
    tagger, labels = loaded.tagger("exact"), loaded.labels
    assert labels is not None  # tagger() refuses a model without a head
    for precision, difference in export.export(tagger, labels, folder, int8, {"source": str(loaded.source)}).items():
        print(f"export   {folder / export.GRAPHS[precision]}: scores within {difference['worst']:.2g} of PyTorch's on real clips, {difference['mean']:.2g} in the mean")


def _verify(arguments: list[str]) -> None:
    from beatline import verification

    form = "beatline verify FOLDER [--engine ray | --repair [CONFIG] [--section.setting VALUE ...]]"
    on_ray = _is_ray(_option(arguments, "--engine"))
    if not arguments or arguments[0].startswith("-") or arguments[1:2] not in ([], ["--repair"]):
        raise UserError("bad-usage", "beatline verify", "it takes a folder, and --repair after that", f"the form is: {form}")
    folder = Path(arguments[0])
    if on_ray and len(arguments) == 1:
        verification.verify_on_ray(arguments[0])
        return
    if on_ray or "://" in arguments[0]:
        raise UserError("bad-usage", "beatline verify", "an address is verified by Ray, and only a folder here can be repaired", f"the form is: {form}")
    if len(arguments) == 1:
        verification.verify(folder)
        return
    from beatline import config

    of_the_run, settings = folder.parent / "config.yaml", arguments[2:]
    if settings and not settings[0].startswith("-"):
        chosen = settings.pop(0)
    elif of_the_run.exists():
        chosen = str(of_the_run)
    else:
        raise UserError("bad-usage", f"cannot repair {folder}", "it does not say which configuration it was prepared with", f"name it: {form}")
    verification.repair(folder, config.load(chosen, settings))


FETCH_HELP = """usage: beatline fetch audioset DIR [--from FOLDER|ADDRESS]... [--unbalanced]
       beatline fetch clips DIR [--from SOURCE]... [--tables balanced,eval] [--cookies FILE] [--rate CLIPS_AN_HOUR] [--jobs N]
       beatline fetch checkpoint NAME|OWNER/NAME[/FILE]|PATH [--to FOLDER] [--from FOLDER]...

audioset     AudioSet's tables, ontology and strong labels into DIR; --unbalanced adds the table of two million clips (101 MB)
clips        the audio of the tables' clips into DIR, each from the first SOURCE that has it: a folder with audio, hub:OWNER/NAME (hub:confit/audioset-16khz-wds,
             hub:agkphysics/AudioSet), or youtube; without a SOURCE the ledger of what DIR has. DIR/fetch-ledger.jsonl says of every clip where it is, or why it is missing
             --tables balanced,eval   or unbalanced, or names of CSVs of the same form in DIR
             --cookies FILE           of a browser, for YouTube; --rate 250 videos an hour; --jobs 4 at the same time
checkpoint   BEATs_iter3, BEATs_iter3_plus_AS20K, BEATs_iter3_plus_AS2M; or a Hugging Face repository; into --to checkpoints

What is in DIR already stays, what is found in a --from FOLDER comes before any network; the same command goes on after a stop. See docs/audioset.md.
"""


def _fetch(arguments: list[str]) -> None:
    from beatline.fetch import audioset, checkpoints, clips

    what, rest = (arguments[0] if arguments else ""), arguments[1:]
    if what not in ("audioset", "clips", "checkpoint"):
        raise UserError("bad-usage", f"beatline fetch {what}".rstrip(), "it takes audioset, clips or checkpoint", "`beatline fetch --help` shows the form")
    sources: list[str] = []
    while (source := _option(rest, "--from")) is not None:
        sources.append(source)
    target = _option(rest, "--to") if what == "checkpoint" else None
    unbalanced = what == "audioset" and _flag(rest, "--unbalanced")
    options = _clips_options(rest) if what == "clips" else None
    if len(rest) != 1 or rest[0].startswith("-"):
        raise UserError("bad-usage", f"beatline fetch {what}", f"it takes one argument besides its options, not {' '.join(rest) or 'none'}", "`beatline fetch --help` shows the form")
    if what == "audioset":
        audioset.fetch(Path(rest[0]), sources, unbalanced)
    elif options is not None:
        print(clips.fetch(Path(rest[0]), sources, options))
    else:
        path = checkpoints.fetch(rest[0], Path(target or "checkpoints"), [Path(source) for source in sources])
        print(f"use it with --model.init {path}")


def _clips_options(rest: list[str]) -> Any:
    """The options of `beatline fetch clips`, checked."""
    from beatline.fetch.clips import Options

    given = {name: _option(rest, f"--{name}") for name in ("tables", "cookies", "rate", "jobs")}
    numbers: dict[str, float] = {}
    for name, lowest, highest in (("rate", 1.0, 1_000_000), ("jobs", 1, 64)):
        if (text := given[name]) is not None:
            try:
                numbers[name] = type(lowest)(text)
            except ValueError:
                numbers[name] = -1
            if not lowest <= numbers[name] <= highest:
                raise UserError("bad-usage", f"option --{name}", f"{text!r} is not a number from {lowest} to {highest}", "`beatline fetch --help` shows the form")
    tables = tuple((given["tables"] or "balanced,eval").split(","))
    return Options(tables=tables, cookies=Path(given["cookies"]) if given["cookies"] else None, **numbers)  # type: ignore[arg-type]


def _doctor(arguments: list[str]) -> None:
    from beatline.doctor import print_facts

    print_facts([Path(a) for a in arguments])


def _flag(arguments: list[str], name: str) -> bool:
    """Takes `--name` out of the arguments."""
    given = name in arguments
    arguments[:] = [argument for argument in arguments if argument != name]
    return given


def _inspect(arguments: list[str]) -> None:
    import json

    from beatline import artefact, inspection, inspection_page
    from beatline.label_noise import read_quality
    from beatline.runlog import progress

    html, quality, as_json = _option(arguments, "--html"), _option(arguments, "--quality"), _flag(arguments, "--json")
    if len(arguments) != 1:
        raise UserError("bad-usage", "beatline inspect", "it takes one STORE", "`beatline --help` shows the form")
    folder, page = Path(arguments[0]), Path(html) if html else None
    if page and (page.is_dir() or page.resolve().is_relative_to(folder.resolve())):
        raise UserError("not-writable", f"cannot write {page}", "it is a folder, or lies in the store, which must stay as it is", "name a file elsewhere")
    store = inspection.open_store(folder)
    rated = read_quality(Path(quality), store.labels) if quality else None
    with progress("inspect", len(store.ids)) as advance:
        found = inspection.inspect(store, rated, advance)
    print(json.dumps(found, indent=1, allow_nan=False) if as_json else inspection_page.console(found))
    if page:
        artefact.write_atomic(page, inspection_page.page(found, store.samples_of))
        print(f"page      {page}", file=sys.stderr if as_json else sys.stdout)


def _common(arguments: list[str]) -> None:
    import json

    from beatline import comparison

    as_json = _flag(arguments, "--json")
    if len(arguments) != 2:
        raise UserError("bad-usage", "beatline common", "it takes RUN_A and RUN_B", "`beatline --help` shows the form")
    first, second = (comparison.find_predictions(Path(folder)) for folder in arguments)
    result = comparison.compare(first, second, (arguments[0], arguments[1]))
    print(json.dumps(result.to_dict(), indent=1, allow_nan=False) if as_json else comparison.console(result))


def _dispatch(arguments: list[str]) -> None:
    command, rest = arguments[0], arguments[1:]
    if command == "score" and {"--scores", "--predictions", "--text", "--tokens"} & set(rest):
        _score_files(rest)
    elif command in STAGES:
        _stage(command, rest)
    elif command in OTHERS:
        if "--help" in rest or "-h" in rest:
            print(FETCH_HELP if command == "fetch" else HELP)
        else:
            {"fetch": _fetch, "convert": _convert, "tag": _tag, "export": _export, "verify": _verify, "doctor": _doctor, "inspect": _inspect, "common": _common}[command](rest)
    else:
        import difflib

        near = difflib.get_close_matches(command, STAGES | OTHERS, n=1)
        raise UserError("bad-usage", f"command {command!r}", "there is no such command", f"did you mean {near[0]}?" if near else "`beatline --help` lists them")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # busy waiting makes two threads slower than one on a shared machine
    debug = "--debug" in arguments
    arguments = [a for a in arguments if a != "--debug"]
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(HELP)
        return 0 if arguments else USAGE
    if arguments[0] == "--version":
        print(f"beatline {__version__}")
        return 0
    try:
        _dispatch(arguments)
    except UserError as error:
        if debug:
            raise
        print(f"beatline: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("beatline: stopped; the same command goes on from here", file=sys.stderr)
        return 130
    except (MemoryError, RuntimeError) as error:
        if debug or not (isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"):  # torch's, without importing torch
            raise
        print("beatline: out of memory; use a smaller --train.batch, or cut the step with --train.accumulate [out-of-memory]", file=sys.stderr)
        return 5
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or Python complains once more at its end
        return 141
    except OSError as error:
        if debug:
            raise
        try:
            with disk_errors(Path(error.filename or "a file of the run")):
                raise error
        except UserError as refused:
            print(f"beatline: {refused}", file=sys.stderr)
            return refused.exit_code
    return 0
