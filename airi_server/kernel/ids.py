"""Ids: 21-character nanoids for things people name, time-ordered UUIDs for requests."""

from __future__ import annotations

import os
import secrets
import time
from uuid import UUID

NANOID_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-"
BASE62_ALPHABET = NANOID_ALPHABET[:62]


def nanoid(length: int = 21) -> str:
    """Return a URL-safe random id; 21 characters carry 126 bits."""
    return "".join(NANOID_ALPHABET[byte & 63] for byte in secrets.token_bytes(length))


def base62(length: int) -> str:
    """Return random letters and digits, for secrets that people select with a double click."""
    return "".join(secrets.choice(BASE62_ALPHABET) for _ in range(length))


def uuid7() -> UUID:
    """Return a UUIDv7 (RFC 9562): new rows land at the right edge of their indexes."""
    milliseconds = time.time_ns() // 1_000_000
    value = int.from_bytes(os.urandom(10), "big")
    value |= milliseconds << 80
    value = value & ~(0xF << 76) | 0x7 << 76
    return UUID(int=value & ~(0x3 << 62) | 0x2 << 62)
