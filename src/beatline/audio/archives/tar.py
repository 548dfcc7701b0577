"""Tar files: their members by their offset in the file.

Our own reader of headers. The standard library's reads what a hostile header promises into memory, and keeps
every member. A compressed tar file gives no access to single members and is refused.
"""

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from beatline.audio.archives.common import ID_KEYS, ArchiveError, Entry, check_size, regular
from beatline.core.limits import LIMITS

BLOCK = 512
MOST_ABOUT = 1 << 20  # bytes of a member that is about others: a long name, a JSON file
REGULAR = (b"0", b"\0", b"7")


@dataclass(slots=True)
class _Header:
    """A header block."""

    name: str
    size: int
    type: bytes


def entries(path: Path, extensions: tuple[str, ...]) -> Iterator[Entry]:
    """The members of audio. The member of a WebDataset sample may be named by its key, or by an id in its
    JSON file.
    """
    ids: dict[str, str] = {}
    found: list[Entry] = []
    trouble: ArchiveError | None = None
    with regular(path) as descriptor:
        members = _members(descriptor)
        try:
            for offset, header in members:
                lower = header.name.lower()
                if lower.endswith(".json") and header.size <= MOST_ABOUT and header.type in REGULAR:
                    if written := _id_in_json(os.pread(descriptor, header.size, offset + BLOCK)):
                        ids[_keys(header.name)[0]] = written
                elif lower.endswith(extensions):
                    found.append(Entry(f"{offset}:{header.name}", header.name, problem=_problem(header)))
        except ArchiveError as error:
            trouble = error
    for entry in found:
        keys = _keys(entry.name)
        also = next((ids[key] for key in keys if key in ids), keys[-1] if len(keys) > 1 else "")
        yield Entry(entry.member, entry.name, also, entry.problem) if also else entry
    if trouble:
        raise trouble


def _keys(name: str) -> list[str]:
    """What a member's sample may be called, the longest first: WebDataset cuts a name at its first dot, but a
    key with dots in it may have been meant whole.
    """
    folder, slash, file = name.rpartition("/")
    parts = file.split(".")
    return [folder + slash + ".".join(parts[:count]) for count in range(max(1, len(parts) - 1), 0, -1)]


def _id_in_json(text: bytes) -> str:
    try:
        about = json.loads(text)
    except (ValueError, RecursionError):
        return ""
    return (
        next((about[key] for key in ID_KEYS if isinstance(about.get(key), str)), "")
        if isinstance(about, dict)
        else ""
    )


def _problem(header: _Header) -> tuple[str, str] | None:
    if (
        header.name.startswith(("/", "\\"))
        or re.match(r"[A-Za-z]:[\\/]", header.name)
        or ".." in re.split(r"[\\/]", header.name)
    ):
        return ("unsafe-path", "its name leaves the archive's folder")
    if header.type not in REGULAR:
        return ("not-a-file", "it is a link or a device")
    if header.size > LIMITS.max_member_bytes:
        return ("too-large", f"{header.size} bytes are more than {LIMITS.max_member_bytes}")
    return None


def _members(descriptor: int) -> Iterator[tuple[int, _Header]]:
    """Offset and header of every member that is no folder; long names of GNU and POSIX headers are in."""
    end = os.fstat(descriptor).st_size
    offset = 0
    long_name = ""
    long_size = -1
    magic = os.pread(descriptor, 6, 0)
    if magic.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")):
        raise ArchiveError(
            "bad-archive", "it is compressed as a whole, which gives no access to single clips: unpack it"
        )
    while offset < end:
        block = os.pread(descriptor, BLOCK, offset)
        if not any(block):
            return
        header = _header(block)
        name = long_name or header.name
        size = header.size if long_size < 0 else long_size
        if size < 0:
            raise ArchiveError("bad-archive", f"the size of {name[:100]!r} is no number")
        if offset + BLOCK + size > end:
            raise ArchiveError("bad-archive", f"it breaks off at byte {end}, inside {name[:100]!r}")
        after = offset + BLOCK + (size + BLOCK - 1) // BLOCK * BLOCK
        if header.type in (b"L", b"x"):
            if size > MOST_ABOUT:
                raise ArchiveError("bad-archive", "a name in it is absurdly long")
            about = os.pread(descriptor, size, offset + BLOCK)
            long_name, long_size = (
                (_text(about.rstrip(b"\0")), -1) if header.type == b"L" else _pax(about, long_name)
            )
        elif header.type not in (b"K", b"g"):
            if header.type != b"5":
                yield offset, _Header(name, size, header.type)
            long_name = ""
            long_size = -1
        offset = after
    raise ArchiveError("bad-archive", f"it breaks off at byte {end}, without an end mark")


def _header(block: bytes) -> _Header:
    """The header in a block. Source: POSIX pax, "ustar Interchange Format", and GNU tar's manual for large
    sizes.
    """
    if len(block) < BLOCK or sum(block) - sum(block[148:156]) + 256 != _octal(block[148:156]):
        raise ArchiveError("bad-archive", "it is no tar file, or damaged")
    prefix = block[345:500].split(b"\0", 1)[0] if block[257:263] == b"ustar\0" else b""
    name = block[:100].split(b"\0", 1)[0]
    return _Header(_text(prefix + b"/" + name if prefix else name), _octal(block[124:136]), block[156:157])


def _octal(field: bytes) -> int:
    try:
        return int.from_bytes(field[1:]) if field[0] & 0x80 else int(field.strip(b" \0") or b"0", 8)
    except ValueError:
        return -1


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _pax(records: bytes, name: str) -> tuple[str, int]:
    """Name and size in a POSIX header: records of `length key=value`."""
    size = -1
    while match := re.match(rb"(\d{1,7}) ([^=]+)=", records):
        length = int(match[1])
        value = records[match.end() : length - 1]
        if match[2] == b"path":
            name = _text(value)
        elif match[2] == b"size" and value.isdigit():
            size = int(value)
        records = records[max(length, match.end()) :]
    return name, size


def extent(descriptor: int, member: str) -> tuple[int, int]:
    """Where a member's content begins, and its size."""
    offset = int(member.partition(":")[0])
    header = _header(os.pread(descriptor, BLOCK, offset))
    if header.type not in REGULAR or not 0 <= header.size <= os.fstat(descriptor).st_size - offset - BLOCK:
        raise ArchiveError("bad-archive", "it has changed since it was listed")
    return offset + BLOCK, header.size


def content(path: Path, member: str) -> bytes:
    """The bytes of a member."""
    with regular(path) as descriptor:
        begin, size = extent(descriptor, member)
        check_size(size)
        return os.pread(descriptor, size, begin)
