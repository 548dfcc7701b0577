"""`beatline serve`: a tagger over HTTP."""

from importlib.util import find_spec

from beatline.cli.options import Parser, add_model_options, add_window_options, load_tagger
from beatline.core.errors import UserError


def serve(arguments: list[str]) -> int:
    """Runs until SIGTERM or Ctrl-C; then 0."""
    parser = Parser("serve", "Tags audio files sent to POST /v1/tag, and shows a page at /.")
    add_model_options(parser)
    add_window_options(parser)
    parser.add_argument(
        "--calibrated",
        action="store_true",
        help="use the temperature and the thresholds that `beatline calibrate` has put beside the model",
    )
    parser.add_argument(
        "--parents",
        action="store_true",
        help="raise a label's score to those of its kinds in AudioSet's ontology",
    )
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (127.0.0.1: this machine only)"
    )
    parser.add_argument("--port", type=_port, default=8000, help="0 takes a free one (8000)")
    given = parser.parse_args(arguments)
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


def _port(text: str) -> int:
    number = int(text)
    if not 0 <= number < 1 << 16:
        raise ValueError
    return number


_port.__name__ = "port"
