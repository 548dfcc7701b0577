"""audio file -> how long it is, from a few bytes of its header.

In: a reader of any part of a file. Out: seconds, or None where the header does not say. Nothing is decoded
and no decoder is asked, so that two million files, also hostile files, can be looked at. The answer decides
only whether a file is a whole recording or an excerpt of a recording. What a file really holds is found out
when it is decoded. Imports no torch.
"""

import re
import struct
from itertools import islice

from beatline.audio.signatures import ReadAt, form_of, riff_chunks, tag_length

FIRST = 64  # bytes that decide about the form
MOST_CHUNKS = 64  # looked at in a file of chunks
OPUS_RATE = 48_000
MP3_KBITS = {  # by version 1 or 2, layer III. Source: ISO/IEC 11172-3 and 13818-3
    1: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 0),
    2: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160, 0),
}
MP3_SYNC = re.compile(rb"\xff[\xe2\xe3\xf2\xf3\xfa\xfb]")  # layer III of version 2.5, 2, 1
MP3_RATES = (44_100, 48_000, 32_000)


def seconds(read_at: ReadAt, size: int) -> float | None:
    """The length that a file's header states, or None.

    MP3 without a count of frames is taken to have a constant bit rate.

    Args:
        size: Of the file, bytes.
    """
    try:
        first = read_at(0, FIRST)
        start = tag_length(first)
        if start:
            first = read_at(start, FIRST)
        form = form_of(first)
        name = form.name if form else ""
        if name in ("WAV", "RF64") and first[:4] != b"RIFX" and first[8:12] == b"WAVE":
            return _wav(read_at, size)
        if name == "FLAC":
            return _flac(first[8:])
        if name == "Ogg":
            return _ogg(read_at, size)
        if name == "MP4 or M4A":
            return _mp4(read_at, 0, size, top=True)
        if name == "WebM or Matroska":
            return _matroska(read_at, size)
        if start or name == "MP3":  # other containers hold the bytes of a frame by chance
            return _mp3(read_at, start, size)
        return None
    except (struct.error, IndexError, ZeroDivisionError, ValueError, OverflowError):
        return None


def _wav(read_at: ReadAt, size: int) -> float | None:
    bytes_per_second = 0
    for name, offset, length in islice(riff_chunks(read_at), MOST_CHUNKS):
        if name == b"fmt ":
            bytes_per_second = struct.unpack("<I", read_at(offset + 8, 4))[0]
        elif name == b"data":
            return min(length, size - offset) / bytes_per_second
    return None


def _flac(stream_info: bytes) -> float | None:
    packed = int.from_bytes(stream_info[10:18])  # rate 20 bits, channels 3, depth 5, samples 36
    samples = packed & (1 << 36) - 1
    return samples / (packed >> 44) if samples else None


def _ogg(read_at: ReadAt, size: int) -> float | None:
    head = read_at(0, 256)
    packet = head[27 + head[26] :]
    skipped = 0
    if packet.startswith(b"\x01vorbis"):
        rate = struct.unpack_from("<I", packet, 12)[0]
    elif packet.startswith(b"OpusHead"):
        rate = OPUS_RATE
        skipped = struct.unpack_from("<H", packet, 10)[0]
    elif packet.startswith(b"\x7fFLAC"):
        rate = int.from_bytes(packet[27:30]) >> 4
    else:
        return None
    tail = read_at(max(0, size - (1 << 16)), 1 << 16)
    ends = [
        struct.unpack_from("<q", tail, page.start() + 6)[0]
        for page in re.finditer(rb"OggS\0", tail)
        if page.start() + 14 <= len(tail)
    ]
    last = max((end for end in ends if end > 0), default=0)
    return (last - skipped) / rate if last else None


def _mp3(read_at: ReadAt, start: int, size: int) -> float | None:
    head = read_at(start, 1 << 12)
    sync = MP3_SYNC.search(head)
    if not sync:
        return None
    second, third, fourth = head[sync.start() + 1 : sync.start() + 4]
    version = {3: 1, 2: 2, 0: 2.5}[second >> 3 & 3]
    rate = MP3_RATES[third >> 2 & 3] / {1: 1, 2: 2, 2.5: 4}[version]
    samples = 1152 if version == 1 else 576
    mono = fourth >> 6 == 3
    side = {(True, False): 32, (True, True): 17, (False, False): 17, (False, True): 9}[version == 1, mono]
    about = head[sync.start() + 4 + side : sync.start() + 4 + side + 12]
    if about[:4] in (b"Xing", b"Info") and about[7] & 1:
        return struct.unpack_from(">I", about, 8)[0] * samples / rate
    kbits = MP3_KBITS[1 if version == 1 else 2][third >> 4]
    return (size - start - sync.start()) * 8 / (kbits * 1000)


def _mp4(read_at: ReadAt, begin: int, end: int, top: bool) -> float | None:
    """The length in `mvhd`; streams in fragments have it in `sidx`."""
    for _ in range(MOST_CHUNKS):
        if begin + 8 > end:
            return None
        length, name = struct.unpack(">I4s", read_at(begin, 8))
        header = 8
        if length == 1:
            (length,) = struct.unpack(">Q", read_at(begin + 8, 8))
            header = 16
        stop = min(begin + length, end) if length else end
        if name == b"moov" and top:
            found = _mp4(read_at, begin + header, stop, top=False)
            if found:
                return found
        elif name == b"mvhd":
            content = read_at(begin + header, 36)
            scale, duration = (
                struct.unpack_from(">IQ", content, 20)
                if content[0]
                else struct.unpack_from(">II", content, 12)
            )
            return duration / scale or None
        elif name == b"sidx":
            return _sidx(read_at(begin + header, min(length - header, 1 << 16)))
        if length and length < header:
            return None
        begin = stop
    return None


def _sidx(content: bytes) -> float | None:
    scale = struct.unpack_from(">I", content, 8)[0]
    offset = 30 if content[0] else 22
    count = struct.unpack_from(">H", content, offset)[0]
    return (
        sum(struct.unpack_from(">I", content, offset + 2 + 12 * i + 4)[0] for i in range(count)) / scale
        or None
    )


def _matroska(read_at: ReadAt, size: int) -> float | None:
    """Duration of the segment's Info, in units of its TimestampScale. Source: RFC 9559."""
    begin, end = 0, size
    scale = 1_000_000
    duration = None
    for _ in range(MOST_CHUNKS):
        if begin >= end:
            break
        head = read_at(begin, 12)
        name, used = _vint(head, keep_marker=True)
        length, more = _vint(head[used:], keep_marker=False)
        content = begin + used + more
        if name in (0x2AD7B1, 0x4489) and length > 8:
            return None
        if name in (0x18538067, 0x1549A966):  # Segment, Info: what is inside
            begin, end = content, end if name == 0x18538067 else content + length
            continue
        if name == 0x2AD7B1:
            scale = int.from_bytes(read_at(content, length))
        elif name == 0x4489:
            duration = struct.unpack(">f" if length == 4 else ">d", read_at(content, length))[0]
        begin = content + length
    return None if duration is None else duration * scale / 1e9


def _vint(first: bytes, keep_marker: bool) -> tuple[int, int]:
    """A number of EBML, and how many bytes it takes."""
    count = 9 - first[0].bit_length()
    value = int.from_bytes(first[:count])
    return value if keep_marker else value & (1 << 7 * count) - 1, count
