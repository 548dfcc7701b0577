"""docs/tagging.md names every option and every format; its commands and its Python run in `test_docs`."""

from pathlib import Path

from beatline import formats

PAGE = (Path(__file__).parents[2] / "docs/tagging.md").read_text()


def test_every_option_and_format_is_on_the_page():
    from beatline.cli.tagging import _parser

    own = [option for action in _parser()._actions for option in action.option_strings if option not in ("-h", "--help", "--model", "--engine", "--precision", "--device")]
    assert own and [option for option in own if f"{option} " not in PAGE and f"{option}`" not in PAGE] == []
    assert [name for name in formats.NAMES if f"`{name}`" not in PAGE] == []
