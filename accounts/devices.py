"""Known devices: browsers that have logged in to an account before, by signed cookie.

A known device is no credential. It has attempts of its own (`accounts.attempts`), so that whoever
tries passwords elsewhere does not keep the owner out (ADR 0029).
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Final

from django.core.signing import BadSignature, Signer

from accounts.models import User
from airi_server.kernel import ids

KEEP: Final = timedelta(days=365)
MAX_ACCOUNTS: Final = 5
"""Of one browser; the ones that were used last stay."""
MAX_LENGTH: Final = 1_000
"""Of a cookie that is looked at; ours are shorter."""
BETWEEN: Final = "~"
ENTRY: Final = re.compile(r"([A-Za-z0-9_-]{21})\.([0-9]{1,12}):[A-Za-z0-9_-]{43}", re.ASCII)
"""The device's name for one account, when that was given, and the signature."""


def known(user: User, *, cookie: str, at: datetime) -> str | None:
    """Return the device's name for this user, None if they have not logged in there.

    What is forged, too old or another account's is none. So is what was given before the password
    was last changed, or before the user was last kept out.
    """
    names = [_name_in(entry, user, at) for entry in _entries(cookie)]
    is_welcome = user.is_active and not user.is_banned(at)
    return next((name for name in names if name is not None and is_welcome), None)


def remember(user: User, *, cookie: str, at: datetime) -> str:
    """Return the new cookie of a device in which the user has just logged in.

    Args:
        user: As this login has left them: it may have stored the password's hash anew.
        cookie: The device's until now; what it says of other accounts stays in it.
        at: When.
    """
    name = known(user, cookie=cookie, at=at) or ids.nanoid()
    others = [entry for entry in _entries(cookie) if _name_in(entry, user, at) is None]
    mine = _signer(user).sign(f"{name}.{int(at.timestamp())}")
    return BETWEEN.join([mine, *others[: MAX_ACCOUNTS - 1]])


def _entries(cookie: str) -> list[str]:
    """Return what a cookie says of each account; it does not say of which."""
    if len(cookie) > MAX_LENGTH:
        return []
    return [entry for entry in cookie.split(BETWEEN) if ENTRY.fullmatch(entry)][:MAX_ACCOUNTS]


def _name_in(entry: str, user: User, at: datetime) -> str | None:
    try:
        name, _, given = _signer(user).unsign(entry).partition(".")
    except BadSignature:
        return None
    return name if at.timestamp() - int(given) < KEEP.total_seconds() else None


def _signer(user: User) -> Signer:
    """Return what signs a user's devices until the password changes or they are kept out."""
    reset = user.devices_reset_at.isoformat() if user.devices_reset_at else ""
    return Signer(salt=f"accounts.devices {user.pk} {reset} {user.get_session_auth_hash()}")
