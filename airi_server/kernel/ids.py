"""Ids: 21-character nanoids for things people name, time-ordered UUIDs for requests."""

from __future__ import annotations

import os
import secrets
import time
from datetime import datetime
from typing import Final
from uuid import UUID

NANOID_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-"
BASE62_ALPHABET = NANOID_ALPHABET[:62]
DRAWN: Final = 128
MAX_MS: Final = 2**48 - 1
"""The last millisecond that a UUIDv7 can name."""


def nanoid(length: int = 21) -> str:
    """Return a URL-safe random id; 21 characters carry 126 bits."""
    return "".join(NANOID_ALPHABET[byte & 63] for byte in secrets.token_bytes(length))


def base62(length: int) -> str:
    """Return random letters and digits, for secrets that people select with a double click."""
    return "".join(secrets.choice(BASE62_ALPHABET) for _ in range(length))


def uuid7() -> UUID:
    """Return a UUIDv7 (RFC 9562): new rows land at the right edge of their indexes."""
    milliseconds = time.time_ns() // 1_000_000
    value = int.from_bytes(_drawn(), "big")
    value |= milliseconds << 80
    value = value & ~(0xF << 76) | 0x7 << 76
    return UUID(int=value & ~(0x3 << 62) | 0x2 << 62)


def _drawn() -> bytes:
    """Return ten random bytes; the system is asked for many at once, which takes as long as one."""
    try:
        return _random.pop()  # in one step: no two threads get the same
    except IndexError:
        fresh = os.urandom(10 * DRAWN)
        _random.extend(fresh[start : start + 10] for start in range(10, len(fresh), 10))
        return fresh[:10]


_random: list[bytes] = []
os.register_at_fork(after_in_child=_random.clear)  # or both would give out the same


def first_uuid7_at(at: datetime) -> UUID:
    """Return what no UUIDv7 made from then on is smaller than."""
    milliseconds = min(max(0, int(at.timestamp() * 1000)), MAX_MS)
    return UUID(int=milliseconds << 80)
