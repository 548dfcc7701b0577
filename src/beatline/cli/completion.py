"""`beatline completion`: commands, options and values by the tab key.

A shell's function calls `beatline` with the words of the line and BEATLINE_COMPLETE set. The function gets
`candidates`, each on a line. Where there are none, it offers files. The parsers themselves give the options.
"""

from argparse import Namespace
from collections.abc import Iterable, Sequence

from beatline.cli import COMMANDS, parser_of, split
from beatline.cli.parser import Parser
from beatline.core.errors import UserError

SCRIPTS = {
    "bash": """_beatline() {
    local IFS=$'\\n'
    COMPREPLY=($(BEATLINE_COMPLETE=1 beatline "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null))
}
complete -o default -F _beatline beatline""",
    "zsh": """_beatline() {
    local -a found
    found=(${(f)"$(BEATLINE_COMPLETE=1 beatline "${(@)words[2,CURRENT]}" 2>/dev/null)"})
    if (( $#found )); then compadd -- $found; else _files; fi
}
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit }
compdef _beatline beatline""",
    "fish": """function __beatline
    set -l words (commandline -opc) (commandline -ct)
    set -l found (BEATLINE_COMPLETE=1 beatline $words[2..-1] 2>/dev/null)
    if set -q found[1]
        string join -- \\n $found
    else
        __fish_complete_path (commandline -ct)
    end
end
complete -c beatline -f -a '(__beatline)'""",
}
LINES = {
    "bash": 'eval "$(beatline completion bash)"     in ~/.bashrc',
    "zsh": 'eval "$(beatline completion zsh)"      in ~/.zshrc',
    "fish": "beatline completion fish | source     in ~/.config/fish/config.fish",
}


def parser() -> Parser:
    """The options of the command."""
    lines = "\n".join(f"  {line}" for line in LINES.values())
    parser = Parser(
        "completion",
        f"Prints what makes a shell complete words with the tab key. One line switches it on:\n\n{lines}",
    )
    parser.add("shell", choices=tuple(SCRIPTS), metavar="SHELL", help=", ".join(SCRIPTS))
    return parser


def completion(given: Namespace) -> None:
    """Does what the command says."""
    print(SCRIPTS[given.shell])


def candidates(words: Sequence[str]) -> list[str]:
    """What may stand at the last word, which may be begun or empty; nothing where files are meant.

    Args:
        words: The line after `beatline`; bash gives `--option=value` as three words.
    """
    *before, begun = words or [""]
    if begun == "=":
        before = [*before, "="]
        begun = ""
    if not before or before == ["help"]:
        firsts = [name.split()[0] for name in COMMANDS]
        return _fitting([*firsts, *([] if before else ["help"])], begun)
    before = before[1:] if before[0] == "help" else before
    below = [name.split()[1] for name in COMMANDS if name.startswith(f"{before[0]} ")]
    if below and len(before) == 1:
        return _fitting(below, begun)
    try:
        name, rest = split(before)
    except UserError:
        return []
    return _of_parser(parser_of(name), rest, begun)


def _of_parser(parser: Parser, before: list[str], begun: str) -> list[str]:
    """What may follow `before` among the arguments of a command."""
    if before and before[-1] == "=":
        return _fitting(parser.values_of(before[-2]), begun) if len(before) > 1 else []
    option, equals, value = begun.partition("=")
    if begun.startswith("-") and equals:
        return [f"{option}={word}" for word in _fitting(parser.values_of(option), value)]
    if before and parser.takes_value(before[-1]):
        return _fitting(parser.values_of(before[-1]), begun)
    if begun.startswith("-"):
        return _fitting((name for name in parser.actions if name.startswith("--")), begun)
    return _fitting(
        (value for action in parser.positionals for value in parser.values_of(action.dest)), begun
    )


def _fitting(found: Iterable[str], begun: str) -> list[str]:
    """Each once, in order."""
    return [word for word in dict.fromkeys(found) if word.startswith(begun)]
