"""Rate limit of password attempts: for each address and each account, on all instances together.

Counted in windows of `WINDOW_S`, in Redis and in this process; the larger number counts, so that
losing Redis does not open the door. A known device of the account has attempts of its own, which
strangers cannot use up (ADR 0029).
"""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from datetime import datetime
from threading import Lock
from typing import Final

from django.core.cache import cache

from accounts import addresses
from airi_server.kernel.errors import TooManyRequests

logger = logging.getLogger(__name__)

MAX_ATTEMPTS: Final = 20
WINDOW_S: Final = 60
MAX_KEPT: Final = 50_000

_local: Counter[str] = Counter()
_lock: Final = Lock()


class TooManyAttempts(TooManyRequests):
    """Nobody looked at the password."""


def take(*, account: str, address: str, at: datetime, device: str | None = None) -> None:
    """Count one attempt, whatever comes of it; known and unknown accounts alike.

    An address that has used up its share does not use up the shares of accounts as well.

    Args:
        account: The address of e-mail that was given.
        address: Where the attempt comes from; an IPv6 address stands for its /64.
        at: When.
        device: The known device of this account that it comes from, if it does
            (`accounts.devices`). Then it counts for the device, and for nothing else.

    Raises:
        TooManyAttempts: The device, or the address or the account, has used up its share of this
            window.
    """
    window, elapsed = divmod(int(at.timestamp()), WINDOW_S)
    account = account.lower()
    if device is None:
        names = {"address": addresses.caller_of(address), "account": account}
    else:
        names = {"device": f"{device} {account}"}
    for kind, name in names.items():
        count = _count(window, f"{kind} {name}")
        if count > MAX_ATTEMPTS:
            if count == MAX_ATTEMPTS + 1:
                logger.warning("Passwords are tried too often", extra={"limit": kind})
            left = WINDOW_S - elapsed
            raise TooManyAttempts(
                f"Too many attempts. Try again in {left} seconds.", retry_after_s=left
            )


def _count(window: int, name: str) -> int:
    """Count for everybody and for this process; what is counted is not in the key's name."""
    key = f"{_begin(window)}{hashlib.sha256(name.encode('utf-8', 'replace')).hexdigest()}"
    with _lock:
        if len(_local) >= MAX_KEPT:
            _make_room(window)
        _local[key] += 1
        here = _local[key]
    cache.add(key, 0, timeout=2 * WINDOW_S)
    try:
        shared = cache.incr(key)
    except ValueError:  # Redis is away, or lost the key this very moment
        shared = 0
    return max(here, shared or 0)


def _make_room(window: int) -> None:
    """Forget the windows that are over; all of this one, if it alone is too much."""
    for key in [key for key in _local if not key.startswith(_begin(window))]:
        del _local[key]
    if len(_local) >= MAX_KEPT:
        _local.clear()


def _begin(window: int) -> str:
    return f"attempts:{window}:"
