"""Loop detection: a header of ours names the installations that a request has come through.

An upstream may be this software as well, another installation or, by mistake, this one: then one
request would be held, routed and paid for until its deadline.
"""

from __future__ import annotations

import functools
import hashlib
from typing import Final

from django.conf import settings

from airi_server.kernel.errors import DomainError

HEADER: Final = "x-airi-hops"
MOST: Final = 5
"""Installations in a row."""


class LoopDetected(DomainError):
    """The request has come through this installation before. Nothing was charged."""

    code = "LOOP_DETECTED"
    status = 508


@functools.cache
def own() -> str:
    """Return the name of this installation, the same on every instance and worth nothing else."""
    return hashlib.sha256(b"airi hops " + settings.SECRET_KEY.encode()).hexdigest()[:12]


def onward(header: str | None) -> str:
    """Return the header for the upstream, given the caller's.

    Raises:
        LoopDetected: We are in it, or it is too long.
    """
    if not header:
        return own()
    passed = [name for each in header.split(",") if (name := each.strip())]
    if own() in passed or len(passed) >= MOST:
        raise LoopDetected(
            "This request has passed this server before: an upstream of the model leads back here."
        )
    plain = [name[:32] for name in passed if name.isascii() and name.isalnum()]
    return ", ".join([*plain, own()])
