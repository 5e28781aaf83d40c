"""How often a password may be tried: for each account and from each address, on all instances.

Counted in windows of `WINDOW_S`, in Redis and in this process; the larger number counts, so that
losing Redis does not open the door.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from datetime import datetime
from typing import Final

from django.core.cache import cache

from airi_server.kernel.errors import TooManyRequests

MAX_ATTEMPTS: Final = 20
WINDOW_S: Final = 60
MAX_KEPT: Final = 50_000

_local: Counter[str] = Counter()


class TooManyAttempts(TooManyRequests):
    """Nobody looked at the password."""


def take(*, account: str, address: str, at: datetime) -> None:
    """Count one attempt, whatever comes of it; known and unknown accounts alike.

    Raises:
        TooManyAttempts: The account or the address has used up its share of this window.
    """
    window, elapsed = divmod(int(at.timestamp()), WINDOW_S)
    counts = [_count(window, name) for name in (f"account {account.lower()}", f"from {address}")]
    if max(counts) > MAX_ATTEMPTS:
        left = WINDOW_S - elapsed
        raise TooManyAttempts(
            f"Too many attempts. Try again in {left} seconds.", retry_after_s=left
        )


def _count(window: int, name: str) -> int:
    """Count for everybody and for this process; what is counted is not in the key's name."""
    key = f"attempts:{window}:{hashlib.sha256(name.encode('utf-8', 'replace')).hexdigest()}"
    if len(_local) >= MAX_KEPT:
        _local.clear()
    _local[key] += 1
    cache.add(key, 0, timeout=2 * WINDOW_S)
    try:
        shared = cache.incr(key)
    except ValueError:  # Redis is away, or lost the key this very moment
        shared = 0
    return max(_local[key], shared or 0)
