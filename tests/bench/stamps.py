"""When a chunk was written, in the chunk: put in by the upstream, read by the load.

CLOCK_MONOTONIC is one clock for all processes of a machine.
"""

from __future__ import annotations

import re
import time
from array import array
from typing import Final

PLACE: Final = b"at-%020d" % 0
"""What a chunk has where its stamp goes, of the same length."""
_STAMP: Final = re.compile(rb"at-(\d{20})")


def stamped(chunk: bytes) -> bytes:
    return chunk.replace(PLACE, b"at-%020d" % time.monotonic_ns())


class Delays:
    """How late the chunks of one stream are, as they come; times are in seconds."""

    def __init__(self) -> None:
        self._rest = b""
        self._is_first = True

    def read(self, came: bytes, first: array[float], later: array[float]) -> None:
        """Add the delays of the chunks whose stamp is whole now."""
        now = time.monotonic_ns()
        text = self._rest + came
        end = 0
        for found in _STAMP.finditer(text):
            end = found.end()
            (first if self._is_first else later).append((now - int(found[1])) / 1e9)
            self._is_first = False
        # A stamp that was cut in two is in the end of what came.
        self._rest = text[max(end, len(text) - len(PLACE) + 1) :]
