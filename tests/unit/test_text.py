"""Text from outside on a terminal."""

import pytest

from beatline.core.text import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Hund bellt ä 犬.wav", "Hund bellt ä 犬.wav"),
        ("\x1b[2J\a.wav", "\\x1b[2J\\x07.wav"),
        ("two\nlines\tand a tab", "two\\nlines\\tand a tab"),
        ("turned \u202e round", "turned \\u202e round"),
        ("no text \udcff", "no text \\udcff"),
        (3.5, "3.5"),
    ],
)
def test_a_terminal_shows_it_and_does_not_obey(text, shown):
    assert printable(text) == shown and shown.isprintable()


def test_every_character_comes_out_printable():
    everything = "".join(map(chr, range(0x110000)))
    assert printable(everything).isprintable() and printable(everything, "?").isprintable()


def test_another_sign_may_stand_for_what_cannot_be_shown():
    assert printable("a\x00b\x1b", "\ufffd") == "a\ufffdb\ufffd"
