"""The ordinary user and the ordinary key."""

from __future__ import annotations

from datetime import UTC, datetime

from accounts import keys, users
from accounts.models import APIKey, User
from airi_server.kernel import ids

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def user(**columns) -> User:
    columns = {"email": f"{ids.nanoid(8)}@example.com", "at": NOW, "password": None, **columns}
    return users.create(**columns)


def api_key(*, owner: User | None = None, **columns) -> tuple[APIKey, str]:
    """Return a key and its plaintext."""
    owner = owner or user()
    return keys.create(user_id=owner.pk, **{"name": "laptop", "at": NOW, **columns})
