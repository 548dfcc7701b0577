"""Disk space that all requests share.

In: bytes that a request wants to write. Out: leave to do so, or the reason why not. For the event loop's
thread only.
"""

from beatline.core.errors import UserError


class Spool:
    """What is on disk of all requests.

    Args:
        most: Bytes at once.
    """

    def __init__(self, most: int):
        self.most = most
        self.used = 0


class Share:
    """What a request has on disk; a context manager that gives the bytes back."""

    def __init__(self, spool: Spool):
        self._spool = spool
        self._used = 0

    def __enter__(self) -> "Share":
        return self

    def __exit__(self, *_: object) -> None:
        self.take(-self._used)

    def take(self, count: int) -> None:
        """Takes bytes, or gives bytes back.

        Raises:
            UserError: `server-busy` where that is too much.
        """
        if count > 0 and self._spool.used + count > self._spool.most:
            raise UserError(
                "server-busy",
                "cannot take the upload",
                "the files of all requests fill the space that there is for them",
                "try again later",
            )
        self._spool.used += count
        self._used += count
