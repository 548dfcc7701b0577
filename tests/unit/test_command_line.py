"""Every command reads its arguments alike, and the tab key knows them."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from beatline import cli, recipe, settings
from beatline.cli import completion
from beatline.core.errors import UserError
from beatline.core.text import nearest

COMMANDS = list(cli.COMMANDS)


def said(capsys, *words: str) -> tuple[int, str, str]:
    code = cli.main(words)
    out, err = capsys.readouterr()
    return code, out, err


# --- help


@pytest.mark.parametrize("name", COMMANDS)
def test_help_is_found_at_the_end_of_a_wrong_line_and_by_the_word_help(name, capsys):
    code, shown, err = said(capsys, *name.split(), "--help")
    assert code == 0 and not err and shown.startswith(f"usage: beatline {name}")
    for words in (["help", *name.split()], [*name.split(), "x", "--frobnicate", "y", "-h"], ["-h", name]):
        if words != ["-h", name] or " " not in name:
            assert said(capsys, *words) == (0, shown, "")


def test_help_alone_lists_every_command_that_there_is_a_module_for(capsys):
    code, shown, _ = said(capsys, "help")
    assert code == 0 and shown == said(capsys, "--help")[1]
    modules = {path.stem for path in Path(cli.__file__).parent.glob("*.py")}
    assert {name.split()[0] for name in COMMANDS} == modules - {"__init__", "options", "parser"}
    assert all(f"  {name} " in shown for name in COMMANDS)


def test_a_command_shows_its_own_options_only(capsys):
    shown = said(capsys, "score", "--help")[1]
    assert "dropout" not in shown and "--score.resamples" in shown and "--predictions" in shown
    assert len(shown.splitlines()) < 50
    assert "--model.init" in said(capsys, "train", "-h")[1]
    assert "--optim.lr" not in said(capsys, "probe", "-h")[1]


def test_the_reference_is_a_help_for_every_command_the_same_everywhere(monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    first = cli.reference()
    monkeypatch.setenv("COLUMNS", "200")
    assert cli.reference() == first
    assert list(first) == ["beatline", *(f"beatline {name}" for name in COMMANDS)]
    for name, text in first.items():
        too_long = [line for line in text.splitlines() if len(line) > 110]
        assert text.startswith(f"usage: {name}") and not too_long


def test_every_option_has_a_help_of_short_sentences():
    for name in COMMANDS:
        parser = cli.parser_of(name)
        for action in [*parser.actions.values(), *parser.positionals]:
            assert action.help, (name, action)
            sentences = action.help.replace("; ", ". ").split(". ")
            assert all(len(sentence.split()) <= 20 for sentence in sentences), (name, action.help)
        prose = " ".join(part for part in parser.description.split("\n\n") if not part.startswith(" "))
        assert all(len(part.split()) <= 20 for part in prose.split(". ")), name


def test_parsing_and_completing_import_no_torch():
    code = (
        "import sys; from beatline import cli; from beatline.cli import completion; cli.reference(); "
        "completion.candidates(['tag', '--']); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# --- arguments


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "completion"])
def test_an_unknown_option_is_answered_with_the_nearest_of_that_command(name, capsys):
    known = next(option for option in reversed(cli.parser_of(name).actions) if option.startswith("--"))
    mistyped = known[:-1] + "x" + known[-1]
    for words in ([mistyped, "1"], [f"{mistyped}=1"]):
        code, _, err = said(capsys, *name.split(), *words)
        assert code == 2 and f"option {mistyped}" in err and f"did you mean {known}?" in err
        assert err.count("\n") == 1


def test_no_option_is_abbreviated(capsys):
    code, _, err = said(capsys, "tag", "a.wav", "--mod", "m")
    assert code == 2 and "option --mod" in err


def test_prepare_takes_an_engine_after_an_equals_sign(monkeypatch):
    seen = []
    monkeypatch.setattr(recipe, "prepare_on_ray", lambda config, source, to: seen.append((source, to)))
    assert cli.main(["prepare", "--engine=ray", "mini", "--to=s3://bucket/x"]) == 0
    assert cli.main(["prepare", "mini", "--to", "s3://bucket/x", "--engine", "ray"]) == 0
    assert seen == [("", "s3://bucket/x")] * 2


def test_prepare_on_ray_alone_has_a_source(capsys):
    code, _, err = said(capsys, "prepare", "mini", "--source=x")
    assert code == 2 and "option --source" in err and err.count("\n") == 1


def test_fetch_takes_a_folder_after_an_equals_sign(monkeypatch):
    from beatline.fetch import checkpoints

    seen = []
    monkeypatch.setattr(checkpoints, "locate", lambda *given: seen.append(given) or given[1])
    assert cli.main(["fetch", "checkpoint", "X", "--to=DIR", "--from=a", "--from", "b"]) == 0
    assert seen == [("X", Path("DIR"), [Path("a"), Path("b")])]


def test_score_takes_predictions_after_an_equals_sign(tmp_path, capsys):
    code, _, err = said(capsys, "score", f"--predictions={tmp_path / 'none'}")
    assert code == 3 and "there is no such folder" in err
    code, shown, _ = said(capsys, "score", "--predictions", "X", "--help")
    assert code == 0 and shown.startswith("usage: beatline score")


def test_verify_takes_an_engine_after_an_equals_sign(monkeypatch):
    from beatline.data import verify

    seen = []
    monkeypatch.setattr(verify, "verify_on_ray", seen.append)
    assert cli.main(["verify", "DIR", "--engine=ray"]) == 0 == cli.main(["verify", "--engine", "ray", "DIR"])
    assert seen == ["DIR", "DIR"]


def test_verify_without_repair_takes_no_configuration(tmp_path, capsys):
    for words in (["mini"], ["--data.csv=x"]):
        code, _, err = said(capsys, "verify", str(tmp_path), *words)
        assert code == 2 and "only --repair" in err and err.count("\n") == 1


@pytest.mark.parametrize("stage", ["prepare", "train", "predict", "score", "report"])
def test_a_stage_without_a_configuration_does_nothing(stage, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    code, _, err = said(capsys, stage)
    assert code == 2 and "no configuration is named" in err and "mini" in err
    assert err.count("\n") == 1 and not list(tmp_path.iterdir())


def test_run_without_a_configuration_is_the_main_job(monkeypatch):
    seen = []
    monkeypatch.setattr(recipe, "run", seen.append)
    assert cli.main(["run", "--train.seed=3", "--optim.lr", "1e-4"]) == 0
    (config,) = seen
    assert config.out == Path("runs/mini") and (config.train.seed, config.optim.lr) == (3, 1e-4)


def test_one_line_of_settings_serves_every_stage(monkeypatch):
    monkeypatch.setattr(recipe, "STAGES", {"score": lambda config: None})
    assert cli.main(["score", "--model.dropout=0.5", "mini"]) == 0


def test_options_stand_before_between_and_after_the_other_arguments(tmp_path):
    given = cli.parser_of("tag").read(["a.wav", "--model", "m", "b.wav", "--top=3", "--", "-c.wav"])
    assert (given.audio, given.model, given.top) == (["a.wav", "b.wav", "-c.wav"], "m", 3)
    assert cli.parser_of("listen").read(["--model", "m", "-"]).source == "-"


def test_a_number_below_zero_is_a_value(capsys):
    code, _, err = said(capsys, "tag", "a.wav", "--model", "m", "--gap", "-1")
    assert code == 2 and "--gap: '-1' is not a number of at least 0" in err


@pytest.mark.parametrize(
    "words",
    [
        ["a", "--model", "m", "--to", "x"],
        ["a", "--model", "m", "--engine", "ray"],
        ["a", "--model", "m", "--engine", "ray", "--to", "x", "--format", "csv"],
        ["a", "--model", "m", "--engine=ray", "--to", "x", "--labels", "Dog"],
        ["a", "--model", "m", "--engine=ray", "--to", "x", "--gap", "1"],
    ],
)
def test_tagging_with_and_without_ray_have_options_of_their_own(words, capsys):
    code, _, err = said(capsys, "tag", *words)
    assert code == 2 and "option --" in err.replace("required: --to", "option --to") and err.count("\n") == 1


def test_debug_works_anywhere(capsys):
    for words in (["--debug", "tag", "a", "--frob"], ["tag", "a", "--debug", "--frob"]):
        code, _, err = said(capsys, *words)
        assert code == 2 and err.startswith("Traceback") and "beatline: option --frob" in err


def test_the_former_name_of_compare_is_compare(capsys):
    assert said(capsys, "common", "--help")[1].startswith("usage: beatline compare")
    assert "did you mean compare?" in said(capsys, "compar")[2]


def test_choices_are_those_of_the_registries():
    from beatline.model.engines import load
    from beatline.tag import formats

    def choices(name: str, option: str) -> tuple[str, ...]:
        return tuple(cli.parser_of(name).values_of(option))

    assert choices("embed", "--engine") == load.engine_names()
    assert choices("export", "--to") == load.export_names()
    assert choices("tag", "--format") == formats.names()
    assert "esc50" in choices("run", "--data.dataset")


# --- completion


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("ta", ["tag"]),
        ("help conv", ["convert"]),
        ("fetch c", ["clips", "checkpoint"]),
        ("tag --even", ["--events"]),
        ("tag a.wav --engine o", ["onnx", "openvino"]),
        ("tag a.wav --engine = o", ["onnx", "openvino"]),
        ("tag --engine=o", ["--engine=onnx", "--engine=openvino"]),
        ("run as", ["as20k", "as20k-espnet"]),
        ("run mini --optim.l", ["--optim.lr"]),
        ("run mini --train.compile t", ["true"]),
        ("tag reco", []),
        ("tag --out fi", []),
        ("nonsense --x", []),
    ],
)
def test_candidates(line, expected):
    assert completion.candidates(line.split()) == expected


def test_an_empty_word_is_completed_too():
    assert completion.candidates([""])[:2] == ["run", "prepare"] and completion.candidates(["fetch", ""])[2:]
    assert completion.candidates(["tag", "--engine", "="])[0] == "auto"


@pytest.fixture
def path(tmp_path):
    """A PATH with a program named beatline, and files to complete."""
    program = tmp_path / "bin/beatline"
    program.parent.mkdir()
    source = Path(cli.__file__).parents[2]
    program.write_text(f'#!/bin/sh\nPYTHONPATH={source} exec {sys.executable} -m beatline "$@"\n')
    program.chmod(0o755)
    (tmp_path / "sound.wav").touch()
    return f"{program.parent}{os.pathsep}{os.environ['PATH']}"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_accepts_the_script_and_completes(shell, path, tmp_path):
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    switch_on = (
        "beatline completion fish | source" if shell == "fish" else f'eval "$(beatline completion {shell})"'
    )
    script = {
        "bash": 'COMP_WORDS=({words}); COMP_CWORD={last}; _beatline; printf "%s\\n" "${{COMPREPLY[@]}}"',
        "zsh": "compadd() {{ shift; print -l -- $@ }}; _files() {{ }}; words=({words}); "
        "CURRENT=$(({last} + 1)); _beatline",
        "fish": 'complete -C "{words}" | string split -f1 \\t',
    }[shell]
    lines = {"beatline ta": ["tag"], "beatline tag --even": ["--events"]}
    lines |= {"beatline tag sou": ["sound.wav"]} if shell == "fish" else {}  # others fall back outside
    for words, expected in lines.items():
        text = f"{switch_on}\n{script.format(words=words, last=len(words.split()) - 1)}"
        options = {"bash": ["--norc"], "zsh": ["-f"], "fish": ["--no-config"]}[shell]
        done = subprocess.run(
            [shell, *options, "-c", text],
            env=os.environ | {"PATH": path, "HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            cwd=tmp_path,
            timeout=60,
        )
        assert done.stdout.split() == expected, done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_is_printed_for_each_shell_and_the_help_has_its_line(shell, capsys):
    code, script, _ = said(capsys, "completion", shell)
    assert code == 0 and "BEATLINE_COMPLETE=1 beatline" in script
    assert f"beatline completion {shell}" in said(capsys, "completion", "--help")[1]


@pytest.mark.parametrize(
    ("words", "name", "value"),
    [
        (["calibrate", "--model", "m", "--goal", "precision=0.7"], "goal", 0.7),
        (["calibrate", "--model", "m", "--goal=f1"], "goal", None),
        (["calibrate", "--model", "m", "--window", "2.5"], "window", 2.5),
        (["tag", "a.wav", "--model", "m", "--top", "3"], "top", 3),
        (["tag", "a.wav", "--model", "m", "--threshold=0.25"], "threshold", 0.25),
        (["serve", "--model", "m", "--port", "0"], "port", 0),
        (["listen", "--model", "m", "--hop", "0.5"], "hop", 0.5),
    ],
)
def test_a_value_is_converted_from_its_text_once(words, name, value):
    assert getattr(cli.parser_of(words[0]).read(words[1:]), name) == value


@pytest.mark.parametrize(
    ("words", "code", "what"),
    [
        (["run", "", "--out", "nowhere"], 3, "missing-file"),
        (["train", ""], 3, "missing-file"),
        (["score", "--predictions", ""], 2, "it is empty"),
        (["score", "--predictions="], 2, "it is empty"),
        (["calibrate", "--model", "m", "--csv", ""], 2, "it is empty"),
        (["tag", "--model", "m", "-dash.ogg"], 2, "./-dash.ogg"),
        (["tag", "--model", "m", "-5.ogg"], 2, "./-5.ogg"),
        (["tag", "a.wav", "--model", "m", "--nosuch.thing", "3"], 2, "no such option"),
    ],
)
def test_an_empty_text_and_a_dash_before_a_name_are_refused_in_one_line(
    words, code, what, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    got, _, error = said(capsys, *words)
    assert got == code and what in error and error.count("\n") == 1 and "delete" not in error
    assert list(tmp_path.iterdir()) == []


LIBRARY_WORDS = ("Parser key", "Namespace", "Expected a", "NoneType", "invalid choice", "argument --")
BAD_VALUES = ("", "x", "-1", "1e999", "[1", "{a: b}")


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_a_bad_value_is_answered_in_the_users_words(name):
    parser = cli.parser_of(name)
    options = [option for option, action in parser.actions.items() if action.nargs != 0]
    for option in (option for option in options if option not in parser.settings):
        for value in BAD_VALUES:
            try:
                parser.read([f"{option}={value}"])
            except UserError as error:
                assert error.exit_code == 2, option
                assert not any(word in str(error) for word in LIBRARY_WORDS), (option, value, str(error))
                assert len(str(error).splitlines()) == 1


@pytest.mark.parametrize("value", BAD_VALUES)
def test_a_setting_of_another_type_is_answered_in_the_users_words(value):
    refused = 0
    for name in settings.table():
        try:
            settings.load("mini", (f"--{name}={value}",))
        except UserError as error:
            refused += 1
            assert (error.exit_code == 2 and name.split(".")[0] in str(error)) or "encoder" in name
            assert not any(word in str(error) for word in LIBRARY_WORDS), str(error)
    assert refused > 20


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("tag a.wav --model m --timeline=yes", "option --timeline: it takes no value, and 'yes' is given"),
        ("tag a.wav --model m --format jsno", "did you mean json?"),
        ("tag a.wav --model m --top", "option --top: its value is missing"),
        ("tag a.wav --model ''", "option --model: it is empty"),
        ("tag '' --model m", "argument FILE|FOLDER|GLOB|-: it is empty"),
        ("verify ''", "argument FOLDER: it is empty"),
        ("compare '' b", "argument A: it is empty"),
        ("completion bsh", "argument SHELL: 'bsh' is none of bash, zsh, fish; did you mean bash?"),
        ("run mini --out ''", "setting out: '' is no path; correct it on the command line"),
        ("run mini --data.csv=", "setting data.csv: '' is no path"),
        ("run mini --optim.lr null", "setting optim.lr: 'null' is no number; correct it on the command line"),
        ("run mini --optim.betas [a,b]", "setting optim.betas: '[a,b]' is no list as [0.9, 0.98]"),
        (
            "run mini --train.lr 3",
            "option --train.lr: `beatline run` has no such option; did you mean --optim.lr?",
        ),
        ("train mini --data.dataset esc5", "there is no data set 'esc5', did you mean esc50?"),
        ("run mini --data.dataset esc50", "set the others to null"),
        (
            "train mini --train.objective clip",
            "setting train.objective: there is no clip; did you mean clips?",
        ),
        ("train mini --augment.order [gian]", "setting augment.order: there is no gian; did you mean gain?"),
    ],
)
def test_a_refusal_names_what_was_typed_and_what_is_wanted(words, told, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, error = said(capsys, *shlex.split(words))
    assert code == 2 and told in error and error.count("\n") == 1 and not out
    assert not any(path.is_file() for path in tmp_path.rglob("*") if path.name != ".lock")


@pytest.mark.parametrize("name", COMMANDS)
def test_missing_words_and_words_too_many_are_told_in_the_users_words(name, capsys):
    parser = cli.parser_of(name)
    needed = [action.metavar for action in parser.positionals if action.nargs not in ("?", "*")]
    needed += [option for option, action in parser.actions.items() if action.required]
    lines = [[]] if needed else []
    if all(action.nargs in (None, "?") for action in parser.positionals):
        required = [word for action in needed if action.startswith("--") for word in (action, "json")]
        lines.append([*required, *(f"w{i}" for i in range(len(parser.positionals) + 1))])
    for words in lines:
        with pytest.raises(UserError) as refused:
            parser.read(words)
        told = str(refused.value)
        assert refused.value.exit_code == 2 and not any(word in told for word in LIBRARY_WORDS), told
        assert all(word in told for word in ([words[-1]] if words else needed)) or "is none of" in told


@pytest.mark.parametrize(
    ("word", "known", "expected"),
    [
        ("--lr", ["--optim.lr", "--out"], "--optim.lr"),
        ("--train.lr", ["--train.order", "--optim.lr"], "--optim.lr"),
        ("--optim.lrr", ["--optim.lr"], "--optim.lr"),
        ("--data.folde", ["--data.fold", "--data.folder"], "--data.folder"),
        ("--modle", ["--model", "--mode"], "--model"),
        ("tga", ["tag", "run"], "tag"),
        ("gian", ["gain", "mixup"], "gain"),
        ("predcit", ["predict", "prepare"], "predict"),
        ("as20", ["as20k", "mini"], "as20k"),
        ("engine", ["gain", "mixup"], None),
        ("--engine", ["--augment.gain", "--seed"], None),
        ("--speed", ["--train.seed"], None),
        ("--data.xyz", ["--data.csv", "--data.folder"], None),
        ("--train.colour", ["--train.order"], None),
        ("xyzzy", ["tag", "run", "export"], None),
        ("x", ["y"], None),
    ],
)
def test_only_a_slip_of_a_name_is_offered_that_name(word, known, expected):
    assert nearest(word, known) == expected
