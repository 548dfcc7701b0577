"""debian/copyright -> licence and author of each file, and whether the licence is free.

In: the machine-readable copyright file of a Debian package (format 1.0, "DEP-5"). Out: for an installed path
the short names of its licences and who holds the copyright. What cannot be established is no free file.
"""

import fnmatch
import gzip
import re
from dataclasses import dataclass
from pathlib import Path

FREE = re.compile(
    r"^(cc0.*|cc-?by-?[\d.]+\+?|cc-?by-?sa-?[\d.]+\+?|ccby.*|public[ -]domain.*|pd|expat|mit|x11|zlib|isc|"
    r"wtfpl.*|unlicen[sc]e|boost.*|bsd.*|artistic-2.*|free-?art.*|lal.*|ofl.*|attribution.*)$",
    re.I,
)
"""Short names of licences under which a recording may teach weights that are shared."""

FORBIDDEN = re.compile(r"-nc|non-?commercial|by-nd|sampling", re.I)


@dataclass(frozen=True)
class Stanza:
    """A paragraph of a copyright file."""

    globs: tuple[str, ...]
    licence: str
    author: str


def read(folder: Path) -> list[Stanza]:
    """The stanzas of every copyright file below a folder, in order; empty where none is machine-readable."""
    stanzas = []
    for path in sorted(folder.rglob("copyright*")):
        if not path.is_file():
            continue
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        stanzas += parse(raw.decode("utf-8", "replace"))
    return stanzas


def parse(text: str) -> list[Stanza]:
    """The stanzas that name files, of one copyright file."""
    found = []
    for part in re.split(r"\n\s*\n", text.replace("\r", "")):
        fields = dict(
            (name.lower(), value)
            for name, value in re.findall(r"^([A-Za-z-]+):((?:.*)(?:\n[ \t].*)*)", part, re.M)
        )
        if "files" not in fields or "license" not in fields:
            continue
        globs = tuple(re.sub(r"^\./", "", glob) for glob in re.split(r"[\s,]+", fields["files"].strip()))
        licence = fields["license"].strip().splitlines()[0].strip() if fields["license"].strip() else ""
        author = "; ".join(" ".join(line.split()) for line in fields.get("copyright", "").splitlines())
        found.append(Stanza(globs, licence, author.strip("; ")[:200]))
    return found


def is_free(licence: str) -> bool:
    """Whether one of the alternatives of an expression such as `GPL-2+ or CC-BY-SA-3.0` is free in all its
    parts.
    """
    for alternative in re.split(r"\s+or\s+|\s*\|\s*", licence, flags=re.I):
        parts = [part.strip(" ,") for part in re.split(r"\s+and\s+|,", alternative, flags=re.I)]
        if parts and all(FREE.match(part) and not FORBIDDEN.search(part) for part in parts if part):
            return bool([part for part in parts if part])
    return False


def of_file(stanzas: list[Stanza], path: str) -> Stanza | None:
    """The stanza that holds for an installed path; None where none does.

    A glob names a path in the source, which is installed elsewhere: it matches where its end does. The stanza
    of which most folders match holds; of equals the last, as the format has it; of none that for `*`.
    """
    best = None
    depth = 0
    for stanza in stanzas:
        own = max((_depth(glob, path) for glob in stanza.globs), default=0)
        if own and own >= depth:
            best = stanza
            depth = own
    if best is not None:
        return best
    general = [stanza for stanza in stanzas if {"*", ""} & set(stanza.globs)]
    return general[-1] if general else None


def _depth(glob: str, path: str) -> int:
    """How many folders and names of a glob's end match a path's end; 0 where it does not match."""
    glob = glob.strip("/")
    if glob in ("", "*") or glob.startswith("debian/"):
        return 0
    path = "/" + path.lstrip("/")
    parts = glob.split("/")
    for begin in range(len(parts)):
        tail = "/".join(parts[begin:])
        if begin > 0 and begin == len(parts) - 1 and re.fullmatch(r"\*?(\.\w+)?", tail):
            continue  # `*` or `*.ogg` alone says nothing of which folder
        if fnmatch.fnmatchcase(path, "*/" + tail) or fnmatch.fnmatchcase(path, "*/" + tail + "/*"):
            return len(parts) - begin
    return 0
