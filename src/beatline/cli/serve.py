"""`beatline serve`: a tagger over HTTP."""

from argparse import Namespace
from importlib.util import find_spec

from beatline.cli.options import (
    add_calibrated_option,
    add_model_options,
    add_parents_option,
    add_window_options,
    load_tagger,
)
from beatline.cli.parser import Parser, whole
from beatline.core.errors import UserError


def parser() -> Parser:
    """The options of the command."""
    parser = Parser("serve", "Tags audio files sent to POST /v1/tag, and shows a page at /.")
    add_model_options(parser)
    add_window_options(parser)
    add_calibrated_option(parser)
    add_parents_option(parser)
    parser.add(
        "--host",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="address to listen on (127.0.0.1: this machine only)",
    )
    parser.add(
        "--port", type=whole(0, 65_535), default=8000, metavar="N", help="port; 0 takes a free port (8000)"
    )
    return parser


def serve(given: Namespace) -> int:
    """Runs until SIGTERM or Ctrl-C; then 0."""
    missing = [name for name in ("fastapi", "uvicorn", "python_multipart") if find_spec(name) is None]
    if missing:
        raise UserError(
            "missing-package",
            "command serve",
            f"{missing[0]} is not installed",
            "pip install 'beatline[serve]'",
        )
    from beatline.serve import app, program

    return program.run(app.create_app(load_tagger(given)), given.host, given.port)
