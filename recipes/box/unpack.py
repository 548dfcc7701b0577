"""package -> its sound files and copyright files, in a folder.

In: a .deb, wheel or npm tarball. Out: a folder with its audio, also of archives within (zip, Qt resources,
OpenTTD's sounds, tar). Formats: Qt's `rcc` (qt.io documentation), OpenTTD's `.cat` (its wiki).
"""

import os
import shutil
import struct
import subprocess
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

AUDIO = (".wav", ".ogg", ".oga", ".flac", ".mp3", ".aif", ".aiff", ".opus")
ARCHIVES = (".rcc", ".cat", ".pk3", ".pk4", ".zip", ".wz", ".dat", ".h2drumkit", ".sf3", ".sf2")


def unpack(package: Path, folder: Path) -> None:
    """Unpacks into a folder that then holds nothing half-written; does nothing where the folder is there."""
    if folder.exists():
        return
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    if package.suffix == ".deb":
        _deb(package, part)
    elif package.suffix == ".whl":
        with zipfile.ZipFile(package) as archive:
            archive.extractall(part)
    else:
        with tarfile.open(package) as archive:
            archive.extractall(part, filter="data")
    for path in sorted(part.rglob("*")):
        if path.is_file():
            _open_archive(path)
    part.rename(folder)


def _deb(package: Path, folder: Path) -> None:
    wanted = [f"*{end}" for each in AUDIO + ARCHIVES for end in (each, each.upper())]
    reader = subprocess.Popen(["dpkg-deb", "--fsys-tarfile", package], stdout=subprocess.PIPE)
    subprocess.run(
        ["tar", "-x", "-C", folder, "--wildcards", "--no-anchored", *wanted, "*/doc/*/copyright*"],
        stdin=reader.stdout,
        stderr=subprocess.DEVNULL,  # it names each pattern that nothing matches
        check=False,
    )
    if reader.wait():
        raise SystemExit(f"make.py: {package} cannot be read: delete it, and run again")


def _open_archive(path: Path) -> None:
    """Writes the audio within an archive beside it, in a folder `<name>.x`."""
    end = path.suffix.lower()
    if end == ".rcc":
        inside = rcc(path.read_bytes())
    elif end == ".cat":
        inside = opensfx(path.read_bytes())
    elif end in (".pk3", ".pk4", ".zip", ".wz", ".dat") and zipfile.is_zipfile(path):
        inside = _zipped(path)
    elif end == ".h2drumkit":
        inside = _tarred(path)
    else:
        return
    for name, content in inside:
        if name.lower().endswith(AUDIO) or os.path.basename(name).lower().startswith(
            ("copyright", "license")
        ):
            target = Path(f"{path}.x") / name.lstrip("/")
            if ".." not in target.parts:
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(content)
    path.unlink()


def _zipped(path: Path) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if name.lower().endswith(AUDIO):
                yield name, archive.read(name)


def _tarred(path: Path) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(path) as archive:
        for member in archive:
            content = archive.extractfile(member) if member.isfile() else None
            if content:
                yield member.name, content.read()


def opensfx(content: bytes) -> Iterator[tuple[str, bytes]]:
    """Names and WAV files of OpenTTD's sound archive: a table of offsets and sizes, then the entries."""
    entries = (struct.unpack_from("<I", content)[0] & 0x7FFFFFFF) // 8
    for index in range(entries):
        offset, size = struct.unpack_from("<II", content, 8 * index)
        offset &= 0x7FFFFFFF
        begin = offset + 1 + content[offset]
        name = content[offset + 1 : begin].split(b"\0")[0].decode("latin-1")
        entry = content[begin : begin + size]
        riff = entry.find(b"RIFF")
        if riff >= 0:
            length = struct.unpack_from("<I", entry, riff + 4)[0] + 8
            safe = "".join(c if c.isalnum() or c in " .-_" else "_" for c in name)[:80]
            yield f"{index:02d} {safe}.wav", entry[riff : riff + length]


def rcc(content: bytes) -> Iterator[tuple[str, bytes]]:
    """Names and files of a Qt resource archive, versions 1 to 3."""
    version, tree, data, names = struct.unpack_from(">4I", content, 4)
    node = 14 + (8 if version >= 2 else 0)

    def walk(index: int, prefix: str) -> Iterator[tuple[str, bytes]]:
        at = tree + index * node
        name_at, flags = struct.unpack_from(">IH", content, at)
        name = ""
        if index:
            length = struct.unpack_from(">H", content, names + name_at)[0]
            begin = names + name_at + 6
            name = content[begin : begin + 2 * length].decode("utf-16-be")
        path = f"{prefix}/{name}" if index else ""
        if flags & 2:
            count, first = struct.unpack_from(">II", content, at + 6)
            for child in range(first, first + count):
                yield from walk(child, path)
            return
        begin = data + struct.unpack_from(">I", content, at + 10)[0]
        size = struct.unpack_from(">I", content, begin)[0]
        raw = content[begin + 4 : begin + 4 + size]
        if flags & 1:
            yield path, zlib.decompress(raw[4:])
        elif not flags & 4:  # zstandard: no package of the table has it
            yield path, raw

    yield from walk(0, "")
