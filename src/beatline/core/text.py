"""Text from outside, as a terminal shows it.

Every room passes names of files, words of servers and ids through `printable` before they are printed.
`nearest` is what "did you mean" offers.
"""

import difflib
from collections.abc import Iterable


def printable(value: object, instead: str | None = None) -> str:
    """The value as text on one line, which a terminal shows and does not obey.

    Control characters, line breaks and lone surrogates become escapes such as `\\x1b`.

    Args:
        instead: What stands for each of them instead of its escape.
    """
    return "".join(
        letter if letter.isprintable() else instead or letter.encode("unicode_escape").decode()
        for letter in str(value)
    )


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that somebody who typed `word` meant; None where none is near."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.7)
    return near[0] if near else None


def did_you_mean(word: str, known: Iterable[str], otherwise: str) -> str:
    """A remedy: the nearest known word, or what else helps."""
    near = nearest(word, known)
    return f"did you mean {near}?" if near else otherwise


def megabytes(size: int) -> str:
    """A size in bytes as people read it: `363 MB`, `4.2 MB`, `12 kB`."""
    if size < 1_000_000:
        return f"{size / 1e3:.0f} kB"
    return f"{size / 1e6:,.{0 if size >= 10_000_000 else 1}f} MB"
