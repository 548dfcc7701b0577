"""a table's other columns -> the column that says where clips come from, although it is not called recording.

In: a `Manifest` that knows no recordings but files, and the values of columns with such names. Out: how many
validation and test clips share a value with train, for the column that shares most. Nothing is decided by it:
only the owner of the table knows what a column means.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace

from beatline.data.manifest.recordings import names_of
from beatline.data.manifest.table import Manifest, SharedColumn

NAME = re.compile(
    r"(source|src|origin|original|parent)(audio|clip|file|filename|id|name|path|recording|track|url|wav)?s?"
    r"|(freesound|recording|session|song|track|video|youtube)(file|filename|id|key|name|no|number|title|url)?s?"
    r"|ytid|fsid|url"
)
"""Of a column that may name recordings, in small letters and digits."""
FEW, MANY = 10, 20  # values that are fewer, with more clips each, are kinds of source and no sources


def suspects(columns: Iterable[str]) -> list[str]:
    """The columns that may name recordings; none where the table has a column for them."""
    names = list(columns)
    if "recording" in names:
        return []
    return [name for name in names if NAME.fullmatch(re.sub(r"[^a-z0-9]", "", name.lower()))]


def with_suspect(found: Manifest, values: Mapping[str, Mapping[str, str]], own_splits: bool) -> Manifest:
    """The manifest with the column of which most validation and test clips share a value with train.

    Args:
        values: The value of each clip by its id, for each suspect column.
        own_splits: Whether the table names splits.
    """
    shared = [_shared(found, name, of, own_splits) for name, of in values.items()]
    most = max(shared, key=lambda column: sum(column.shared.values()), default=None)
    return replace(found, shared=most) if most and any(most.shared.values()) else found


def _shared(found: Manifest, name: str, values: Mapping[str, str], own_splits: bool) -> SharedColumn:
    of_clip = [names_of(value, "") if (value := values.get(clip.id)) else () for clip in found.clips]
    count = Counter(value for own in of_clip for value in own)
    if len(count) < FEW and count.total() > MANY * len(count):
        return SharedColumn(name, {}, {}, own_splits)
    train = set(found.splits["train"])
    seen = {value for i in train for value in of_clip[i]}
    held = {split: [i for i in found.splits[split] if i not in train] for split in ("val", "test")}
    return SharedColumn(
        name,
        {split: sum(not seen.isdisjoint(of_clip[i]) for i in clips) for split, clips in held.items()},
        {split: len(clips) for split, clips in held.items()},
        own_splits,
    )
