"""Text from outside, as a terminal shows it.

Every room passes names of files, words of servers and ids through `printable` before they are printed.
`nearest` is what "did you mean" offers.
"""

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
    """The known word that `word` is a slip of; None where all are other words.

    Every third letter may be a slip: one in 3 to 5 letters, two in 6 to 8. In dotted names each part counts
    alone, and the last part finds the whole: `lr` and `train.lr` find `optim.lr`. Of equals, a name that
    goes on where the word ends comes first.
    """
    plain = word.lower().lstrip("-")
    parts = plain.split(".")
    found: list[tuple[int, str]] = []
    for name in known:
        others = name.lower().lstrip("-").split(".")
        if parts[-1] and parts[-1] == others[-1]:
            found.append((1, name))
        elif len(parts) == len(others):
            slips = [_slips(part, other) for part, other in zip(parts, others, strict=True)]
            most = [max(len(part), len(other)) // 3 for part, other in zip(parts, others, strict=True)]
            if all(count <= limit for count, limit in zip(slips, most, strict=True)):
                found.append((sum(slips), name))
    if not found:
        return None
    return min(found, key=lambda pair: (pair[0], not pair[1].lower().lstrip("-").startswith(plain)))[1]


def _slips(word: str, name: str) -> int:
    """Letters left out, put in, replaced, or exchanged with the next, from a word to a name."""
    before: list[int] = []
    row = list(range(len(name) + 1))
    for i, letter in enumerate(word):
        earlier = before
        before = row
        row = [i + 1]
        for j, other in enumerate(name):
            row.append(min(before[j + 1] + 1, row[j] + 1, before[j] + (letter != other)))
            if i and j and letter == name[j - 1] and word[i - 1] == other:
                row[-1] = min(row[-1], earlier[j - 1] + 1)
    return row[-1]


def did_you_mean(word: str, known: Iterable[str], otherwise: str) -> str:
    """A remedy: the nearest known word, or what else helps."""
    near = nearest(word, known)
    return f"did you mean {near}?" if near else otherwise
