"""the recordings that clips are made of -> which clips belong together.

In: what a manifest or a store calls a clip's recording: a name, or several joined by `|` where the clip is a
mixture. Out: the names, and a group for each clip. Clips that share a recording, or are linked by clips that
do, are a group: no split and no part of a cross-validation may cut it.
"""

from collections.abc import Iterable, Sequence

JOINT = "|"


def names_of(recording: str, file: str) -> tuple[str, ...]:
    """The recordings of a clip, each once, at least one.

    Where a table names no recording, the clip's own file stands for it: such a name is not taken apart.

    Args:
        recording: As `Clip.recording`.
        file: The clip's file, path or name.
    """
    if JOINT not in recording or file.endswith(recording):
        return (recording,)
    names = dict.fromkeys(filter(None, map(str.strip, recording.split(JOINT))))
    return tuple(names) or (recording,)


def groups_of(clips: Iterable[Sequence[str]]) -> list[str]:
    """The group of each clip, named by the first of its recordings in order of name.

    Args:
        clips: The recordings of each clip, as from `names_of`.
    """
    leader: dict[str, str] = {}

    def find(name: str) -> str:
        while (above := leader.get(name, name)) != name:
            leader[name] = name = leader.get(above, above)
        return name

    first = []
    for names in clips:
        first.append(names[0])
        for other in names[1:]:
            low, high = sorted((find(names[0]), find(other)))
            leader[high] = low
    return [find(name) for name in first]
