"""Errors that a user can act on.

Outside the straight line: every room raises `UserError`. The command line prints the error as a line and
exits by its class. The table `EXIT_CODES` is the whole list of codes. What is not here is a bug and keeps its
traceback.
"""

from beatline.core.text import printable

USAGE, INPUT, CORRUPT, RESOURCE = 2, 3, 4, 5

EXIT_CODES: dict[str, int] = {
    # the command or the configuration
    "bad-usage": USAGE,
    "bad-config": USAGE,
    "run-differs": USAGE,
    "missing-stage": USAGE,
    "missing-package": USAGE,
    "unsupported-system": USAGE,
    # what the user gave us
    "missing-file": INPUT,
    "not-a-file": INPUT,
    "empty-file": INPUT,
    "not-audio": INPUT,
    "broken-audio": INPUT,
    "not-finite": INPUT,
    "too-short": INPUT,
    "too-long": INPUT,
    "too-many-channels": INPUT,
    "bad-sample-rate": INPUT,
    "too-large": INPUT,
    "decode-timeout": INPUT,
    "decoder-memory": INPUT,
    "decoder-crashed": INPUT,
    "upload-timeout": INPUT,
    "bad-table": INPUT,
    "bad-row": INPUT,
    "bad-archive": INPUT,
    "unsafe-path": INPUT,
    "no-label": INPUT,
    "unknown-label": INPUT,
    "duplicate-id": INPUT,
    "hash-mismatch": INPUT,
    "split-overlap": INPUT,
    "no-clips": INPUT,
    "bad-checkpoint": INPUT,
    "label-mismatch": INPUT,
    "bad-scores": INPUT,
    "not-finite-loss": INPUT,
    "export-differs": INPUT,
    # what we wrote and cannot believe any more
    "corrupt-artefact": CORRUPT,
    # the machine
    "disk-full": RESOURCE,
    "not-writable": RESOURCE,
    "busy-folder": RESOURCE,
    "no-network": RESOURCE,
    "download-failed": RESOURCE,
    "upload-failed": RESOURCE,
    "no-token": RESOURCE,
    "service-refused": RESOURCE,
    "out-of-memory": RESOURCE,
    "server-busy": RESOURCE,
    "server-stopping": RESOURCE,
}


class UserError(Exception):
    """A problem in the user's hands: what happened, to which file, why, and what to do.

    Args:
        code: A key of `EXIT_CODES`; stable, meant for programs and ledgers.
        what: What failed, with the file or field in it.
        cause: Why, as a clause.
        remedy: What to do about it, as a clause.
    """

    def __init__(self, code: str, what: str, cause: str, remedy: str):
        super().__init__(
            code, what, cause, remedy
        )  # all four, so that the error survives pickling between processes
        self.code, self.what, self.cause, self.remedy = code, what, cause, remedy
        self.exit_code = EXIT_CODES[code]

    def __str__(self) -> str:
        return printable(" ".join(f"{self.what}: {self.cause}; {self.remedy} [{self.code}]".split()))


def expect(value: object, kind: type | tuple[type, ...], what: str, remedy: str) -> None:
    """Refuses a value of another type, which a program gave by mistake.

    Args:
        value: What was given.
        kind: The types that fit; `numbers.Real` is any number, of NumPy too.
        what: Its name, for the message.
        remedy: What to give, as a clause.

    Raises:
        UserError: `bad-usage`.
    """
    if not isinstance(value, kind):
        raise UserError("bad-usage", what, f"a value of type {type(value).__name__} does not fit", remedy)
