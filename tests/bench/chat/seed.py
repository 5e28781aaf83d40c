"""Who is in which chat: people with a key each, the chat of the load, and the long one.

Import this only after Django's set-up.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

from django.db import connection, connections, transaction

from accounts import keys, users
from chats import rooms
from chats.rooms import Someone

# Checks and keys of rows that PostgreSQL makes itself would be checked a million times.
_FILL: Final = """
INSERT INTO chat_message
    (id, chat_id, seq, sender_id, author_id, role, content, created_at, updated_at)
SELECT 'long-' || n, %s, n, 'bench', 'bench', 'user', repeat('x', 80), now(), now()
FROM generate_series(1, %s) AS n
"""


def people(count: int) -> list[tuple[str, str]]:
    """Make users; return each one's id and key."""
    at = datetime.now(UTC)
    with transaction.atomic():
        return [_person(number, at) for number in range(count)]


def room(*user_ids: str) -> str:
    """Make a chat of these users and return its id."""
    owner, *others = user_ids
    members = [Someone("user", user_id) for user_id in others]
    return rooms.create(caller=owner, at=datetime.now(UTC), members=members).pk


def fill(chat_id: str, count: int) -> None:
    """Put messages into a chat that has none."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL session_replication_role = replica")
        cursor.execute(_FILL, [chat_id, count])
        cursor.execute("UPDATE chat SET last_seq = %s WHERE id = %s", [count, chat_id])


def leave() -> None:
    """Give back the connections: what is measured shall not find us there."""
    connections.close_all()
    pooled: Any = connections["default"]
    pooled.close_pool()


def _person(number: int, at: datetime) -> tuple[str, str]:
    user = users.create(email=f"chat-{number}@example.com", password=None, verified=True, at=at)
    _, key = keys.create(user_id=user.id, name="Bench", at=at)
    return user.id, key
