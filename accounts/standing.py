"""Whether people and keys are let in, in words."""

from __future__ import annotations

from datetime import datetime

from accounts.models import APIKey, User


def standing_of(user: User, at: datetime) -> str:
    """Say in words whether somebody is let in."""
    if user.is_banned(at):
        end = user.ban_expires_at
        until = f"until {end:%Y-%m-%d %H:%M} UTC" if end else "for good"
        return f"Banned {until}"
    return "In good standing" if user.is_active else "Switched off"


def state_of(key: APIKey, at: datetime) -> str:
    """Say in a word whether a key works, as far as it depends on the key."""
    if key.disabled_at is not None:
        return "Disabled"
    return "Expired" if key.expires_at is not None and key.expires_at <= at else "Works"
