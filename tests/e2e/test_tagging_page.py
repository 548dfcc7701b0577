"""docs/tagging.md names every option and every format; its commands and its Python run in `test_docs`."""

import re
from pathlib import Path

from beatline.audio.signatures import FORMS as KNOWN
from beatline.cli import main
from beatline.tag import formats

PAGE = " ".join((Path(__file__).parents[2] / "docs/tagging.md").read_text().split())

FORMS = {
    "mov": "MP4, M4A, MOV and 3GP",
    "matroska": "WebM and Matroska",
    "asf": "ASF",
    "amr": "AMR",
    "ogg": "Ogg",
    "flv": "FLV",
    "caf": "CAF",
    "rm": "RealMedia",
    "wv": "WavPack",
    "ape": "Monkey's Audio",
    "tta": "TTA",
    "tak": "TAK",
    "mpc8": "Musepack",
    "mpc": "Musepack",
    "dsf": "DSF",
    "dts": "DTS",
    "mpeg": "MPEG program",
    "aac": "ADTS",
    "avi": "AVI",
    "wav": "WAV",
    "aiff": "AIFF",
    "mp3": "MP3",
    "mpegts": "transport streams",
    "ac3": "AC-3",
    "eac3": "E-AC-3",
    "loas": "LOAS",
}


def test_every_form_of_ffmpeg_s_is_on_the_page():
    assert {form.ffmpeg for form in KNOWN if form.ffmpeg} == set(FORMS) and [
        words for words in FORMS.values() if words not in PAGE
    ] == []


def test_every_option_and_format_is_on_the_page(capsys):
    assert main(["tag", "--help"]) == 0
    shared = {"--help", "--model", "--engine", "--precision", "--device"}
    own = set(re.findall(r"(?<![\w-])--[a-z][\w-]*", capsys.readouterr().out)) - shared
    assert (
        len(own) > 15
        and [option for option in own if f"{option} " not in PAGE and f"{option}`" not in PAGE] == []
    )
    assert [name for name in formats.names() if f"`{name}`" not in PAGE] == []
