"""docs/tagging.md names every option and every format; its commands and its Python run in `test_docs`."""

from pathlib import Path

from beatline.audio.decoders import ffmpeg
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
}


def test_every_form_of_ffmpeg_s_is_on_the_page():
    assert {demuxer for _, _, demuxer in ffmpeg.FORMS} == set(FORMS) and [
        words for words in FORMS.values() if words not in PAGE
    ] == []


def test_every_option_and_format_is_on_the_page():
    from beatline.cli.tag import _parser

    own = [
        option
        for action in _parser()._actions
        for option in action.option_strings
        if option not in ("-h", "--help", "--model", "--engine", "--precision", "--device")
    ]
    assert own and [option for option in own if f"{option} " not in PAGE and f"{option}`" not in PAGE] == []
    assert [name for name in formats.NAMES if f"`{name}`" not in PAGE] == []
