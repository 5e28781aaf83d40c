"""Who may do what in a data directory: locks of files, which end with their holder.

    start.lock     exclusive: whoever prepares the directory, until it serves
    serving.lock   exclusive: of those who serve from the directory, whoever demo.json names

`stack` and `supervisor` have two more, for the servers.
"""

from __future__ import annotations

import contextlib
import fcntl
import sys
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, Self

START_LOCK: Final = "start.lock"
SERVING_LOCK: Final = "serving.lock"


def is_taken(file: BinaryIO, how: int) -> bool:
    """Take a lock if it is free; return whether it is ours."""
    try:
        fcntl.flock(file, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def starting(directory: Path) -> Iterator[None]:
    """Keep others from preparing the directory meanwhile, who would make other secrets."""
    with (directory / START_LOCK).open("ab") as file:
        if not is_taken(file, fcntl.LOCK_EX):
            # Not to standard output, which is a command's.
            print(
                f"./run: waiting for another one that is starting in {directory} ...",
                file=sys.stderr,
                flush=True,
            )
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


class Serving:
    """A place among those who serve from one directory: the first is in demo.json."""

    def __init__(self, directory: Path) -> None:
        self._file = (directory / SERVING_LOCK).open("ab")
        self.is_first = False

    def __enter__(self) -> Self:
        self.is_first = is_taken(self._file, fcntl.LOCK_EX)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()

    def becomes_first(self) -> bool:
        """Return whether this one has become the first just now."""
        if self.is_first:
            return False
        self.is_first = is_taken(self._file, fcntl.LOCK_EX)
        return self.is_first


def is_served(directory: Path) -> bool:
    """Return whether a server runs on this directory now."""
    with (directory / SERVING_LOCK).open("ab") as file:
        return not is_taken(file, fcntl.LOCK_SH)
