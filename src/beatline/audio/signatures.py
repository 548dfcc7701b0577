"""What a file is, by its first bytes and never by its name: the table for every reader of sound.

In: the first bytes of a file. Out: the `Form` that they belong to. It says what errors call it, and who reads
it, libsndfile or which demuxer of FFmpeg. Here too is what readers of headers share: tags of MP3, chunks of
RIFF. Imports no torch.
"""

import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

HEAD = 512
"""Bytes that decide about a form."""

ReadAt = Callable[[int, int], bytes]
"""(offset, count) -> at most that many bytes."""


@dataclass(frozen=True, slots=True)
class Form:
    """A kind of file, told by what it begins with."""

    begins: bytes
    """Regular expression of its first bytes, without groups."""
    name: str
    """What errors call it; empty where so few bytes do not tell."""
    sndfile: bool = False
    """Whether libsndfile reads it; of its codecs perhaps not all."""
    ffmpeg: str = ""
    """FFmpeg's demuxer, which also knows the codecs that libsndfile lacks; empty for none."""
    short: bool = False
    """Whether only its first two bytes are its own, which raw samples may begin with as well."""


FORMS = (  # the first that matches counts: longer and rarer signatures come first
    Form(rb"RIFF.{4}AVI ", "AVI", ffmpeg="avi"),
    Form(rb"RIFF.{4}WAVE", "WAV", sndfile=True, ffmpeg="wav"),
    Form(rb"RIF[FX]", "WAV", sndfile=True),
    Form(rb"RF64", "RF64", sndfile=True),
    Form(rb"riff\x2e\x91\xcf\x11", "W64", sndfile=True),
    Form(rb"FORM.{4}AIF[FC]", "AIFF", sndfile=True, ffmpeg="aiff"),
    Form(rb"FORM", "AIFF", sndfile=True),
    Form(rb"fLaC", "FLAC", sndfile=True),
    Form(rb"OggS", "Ogg", sndfile=True, ffmpeg="ogg"),
    Form(rb"\.snd", "AU", sndfile=True),
    Form(rb"caff", "CAF", sndfile=True, ffmpeg="caf"),
    Form(rb"ID3", "MP3", sndfile=True),
    Form(rb".{4}ftyp", "MP4 or M4A", ffmpeg="mov"),
    Form(rb".{4}(?:moov|mdat|wide)", "QuickTime", ffmpeg="mov"),
    Form(rb"\x1a\x45\xdf\xa3", "WebM or Matroska", ffmpeg="matroska"),
    Form(rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "WMA", ffmpeg="asf"),
    Form(rb"#!AMR", "AMR", ffmpeg="amr"),
    Form(rb"FLV\x01", "Flash video", ffmpeg="flv"),
    Form(rb"\.RMF", "RealMedia", ffmpeg="rm"),
    Form(rb"\.ra\xfd", "RealAudio", ffmpeg="rm"),
    Form(rb"wvpk", "WavPack", ffmpeg="wv"),
    Form(rb"MAC ", "Monkey's Audio", ffmpeg="ape"),
    Form(rb"TTA1", "TTA", ffmpeg="tta"),
    Form(rb"tBaK", "TAK", ffmpeg="tak"),
    Form(rb"MPCK", "Musepack", ffmpeg="mpc8"),
    Form(rb"MP\+", "Musepack", ffmpeg="mpc"),
    Form(rb"DSD ", "DSF", ffmpeg="dsf"),
    Form(rb"\x7f\xfe\x80\x01", "DTS", ffmpeg="dts"),
    Form(rb"\x00\x00\x01\xba", "MPEG", ffmpeg="mpeg"),
    Form(rb"G.{187}G.{187}G", "MPEG", ffmpeg="mpegts"),
    Form(rb"ADIF", "AAC", ffmpeg="aac"),
    Form(rb"PK\x03\x04", "a ZIP archive"),
    Form(rb"%PDF", "PDF"),
    Form(rb"\x89PNG", "PNG"),
    Form(rb"GIF8", "GIF"),
    Form(rb"\xff\xd8\xff", "JPEG"),
    Form(rb"\x1f\x8b", "gzip", short=True),
    Form(rb"\x0b\x77.{3}[\x00-\x57]", "AC-3", ffmpeg="ac3", short=True),
    Form(rb"\x0b\x77.{4}", "AC-3", ffmpeg="eac3", short=True),
    Form(rb"\x0b\x77", "AC-3", short=True),
    # a frame of MPEG audio: eleven bits of synchronisation, two of version, two of layer, of which 0 is AAC's
    Form(rb"\xff[\xf1\xf9]", "AAC", ffmpeg="aac", short=True),
    Form(rb"\xff[\xe2\xe3\xf2\xf3\xfa\xfb]", "MP3", sndfile=True, ffmpeg="mp3", short=True),
    Form(rb"\xff[\xf0\xf8]", "", ffmpeg="aac", short=True),
    Form(rb"\xff[\xe4-\xe7\xea-\xef\xf4-\xf7\xfc-\xff]", "", ffmpeg="mp3", short=True),
    Form(rb"V[\xe0-\xff]", "", ffmpeg="loas", short=True),
)


_ANY = re.compile(b"|".join(b"(%b)" % form.begins for form in FORMS), re.DOTALL)


def form_of(first: bytes) -> Form | None:
    """The form of a file that begins with these bytes, `HEAD` of them where there are so many; None where
    they are those of no form.
    """
    found = _ANY.match(first)
    return None if found is None or found.lastindex is None else FORMS[found.lastindex - 1]


def looks_like(first: bytes) -> tuple[str, bool]:
    """What a file that begins with these bytes seems to be, and whether libsndfile reads that form."""
    form = form_of(first)
    if form is not None and form.name:
        return form.name, form.sndfile
    words = first.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if words.startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
        return "HTML", False
    if words.startswith((b"<?xml", b"<")):
        return "XML", False
    if words.startswith((b"{", b"[")):
        return "JSON", False
    if first and all(byte in b"\t\n\r\f" or 32 <= byte < 127 for byte in first):
        return "text", False
    if not any(first):
        return "zero bytes", False
    return f"nothing known (first bytes {first[:4].hex(' ')})", False


def tag_length(first: bytes) -> int:
    """Bytes of the ID3 tag that a file begins with, 0 without a tag. Its length is four times seven bits."""
    if not first.startswith(b"ID3") or len(first) <= 10:
        return 0
    return 10 + sum((byte & 127) << shift for byte, shift in zip(first[6:10], (21, 14, 7, 0), strict=True))


def riff_chunks(read_at: ReadAt) -> Iterator[tuple[bytes, int, int]]:
    """Name of each chunk of a RIFF or RF64 file, offset of its content, and the bytes it claims.

    Ends where no further chunk begins. Claims are the file's own: the caller bounds what it reads, and how
    many chunks it looks at.
    """
    offset = 12
    while len(head := read_at(offset, 8)) == 8:
        name, length = struct.unpack("<4sI", head)
        yield name, offset + 8, length
        offset += 8 + length + length % 2


_NAMES = """
.wav .flac .ogg .oga .opus .mp3 .m4a .mp4 .webm .mkv .mka .aac .wma .aiff .aif .aifc .au .snd .caf
.w64 .rf64 .amr .3gp .avi .flv .mov .asf .wv .ac3 .mpg .ts .mp1 .mp2 .m2a .mpa .m4b .m4r .m4v .f4a
.f4v .3g2 .awb .adts .eac3 .ec3 .wmv .mpeg .vob .ogv .spx .rm .ra .rmvb .ape .tta .tak .mpc .mp+
.dsf .dts
"""
EXTENSIONS = tuple(_NAMES.split())
"""Names that a folder, a tar file or an address is searched for, the preferred first. A file named by itself
may be called anything.
"""
