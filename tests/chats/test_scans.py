"""A pull from a chat of a million messages reads its page and nothing else.

Counts only: the plan, and pages touched. Nothing here looks at a clock.
"""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from django.db import connection

from chats import messages
from chats.models import MAX_PAGE_BYTES, Chat
from tests.factories import chats as make

pytestmark = [pytest.mark.django_db, pytest.mark.xdist_group("perf")]
MILLION = 1_000_000
FILL = """
INSERT INTO chat_message
    (id, chat_id, seq, sender_id, author_id, role, content, created_at, updated_at)
SELECT 'm' || n, %s, n, 'ria', 'ria', 'user', repeat('x', 80), now(), now()
FROM generate_series(1, %s) AS n
"""
INDEX = "ALTER TABLE chat_message ADD CONSTRAINT chat_message_seq_uniq UNIQUE (chat_id, seq)"
AT = (0, MILLION // 2, MILLION - 500)
FEW_PAGES = 100


@pytest.fixture
def room():
    """A chat of a million messages. Checks and keys would be checked a million times."""
    chat = make.chat()
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL session_replication_role = replica")
        cursor.execute(
            "SELECT conname FROM pg_constraint"
            " WHERE conrelid = 'chat_message'::regclass AND contype IN ('c', 'p', 'u')"
        )
        for (claim,) in cursor.fetchall():
            cursor.execute(f'ALTER TABLE chat_message DROP CONSTRAINT "{claim}"')
        cursor.execute(FILL, [chat.pk, MILLION])
        cursor.execute(INDEX)
        cursor.execute("UPDATE chat SET last_seq = %s WHERE id = %s", [MILLION, chat.pk])
        cursor.execute("SET LOCAL session_replication_role = origin")
        cursor.execute("ANALYZE chat_message")
    return chat


def explain(sql: str, types: str, *arguments: Any) -> dict[str, Any]:
    """Return the plan of a prepared statement as the pool has it after a few calls."""
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL plan_cache_mode = force_generic_plan")
        cursor.execute(f"PREPARE pulled ({types}) AS {sql}")
        places = ", ".join(["%s"] * len(arguments))
        cursor.execute(
            f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE pulled ({places})", arguments
        )
        (plan,) = cursor.fetchone()
        cursor.execute("DEALLOCATE pulled")
    found: list[dict[str, Any]] = plan if isinstance(plan, list) else orjson.loads(plan)
    return found[0]


def nodes(plan: dict[str, Any]) -> list[str]:
    inner = [name for child in plan.get("Plans", ()) for name in nodes(child)]
    return [f"{plan['Node Type']} {plan.get('Index Name', plan.get('Relation Name', ''))}", *inner]


def ensure_small(plan: dict[str, Any]) -> None:
    found = nodes(plan["Plan"])
    touched = plan["Plan"]["Shared Hit Blocks"] + plan["Plan"]["Shared Read Blocks"]
    assert "Index Scan chat_message_seq_uniq" in found, found
    assert not [name for name in found if name.startswith("Seq Scan chat_message")], found
    assert touched < FEW_PAGES, (touched, found)


def test_no_read_grows_with_the_chat(room):
    pull = messages.PULL_MESSAGES_SQL % {
        "chat_id": "$1", "user_id": "$2", "after_seq": "$3", "page": "$4", "max_bytes": "$5"
    }  # fmt: skip
    between = messages.READ_RANGE_SQL % {
        "chat_id": "$1", "from_seq": "$2", "to_seq": "$3", "page": "$4", "max_bytes": "$5"
    }  # fmt: skip
    for after in AT:
        page = (500, MAX_PAGE_BYTES)
        ensure_small(explain(pull, "text, text, bigint, int, int", room.pk, "ria", after, *page))
        range_ = (after + 1, after + 500)
        ensure_small(explain(between, "text, bigint, bigint, int, int", room.pk, *range_, *page))


def pages_of_sends(chat: Chat) -> list[int]:
    """Return the pages that a new message, its edit and its resend touch."""
    touched = []
    new = {"id": make.message().id, "role": "user", "content": "a"}
    for message in (new, {**new, "content": "b"}, {**new, "content": "b"}):
        call = {"chat_id": chat.pk, "user_id": "ria", "messages": [message]}
        with connection.cursor() as cursor:
            cursor.execute(
                f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {messages.SEND_SQL}",
                {"calls": orjson.dumps([call]).decode(), "chats": [chat.pk]},
            )
            (plan,) = cursor.fetchone()
        touched.append(plan[0]["Plan"]["Shared Hit Blocks"])
    return touched


def test_no_send_grows_with_the_table_it_was_planned_on():
    """The plans are made while the table is known to be small, and kept."""
    chat, other = make.chat(), make.chat()
    pages_of_sends(chat)
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE chat_message")
    small = [pages_of_sends(chat) for _ in range(10)][-1]
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL session_replication_role = replica")
        cursor.execute(FILL, [other.pk, 30_000])
        cursor.execute("SET LOCAL session_replication_role = origin")

    large = pages_of_sends(chat)

    assert all(after <= before + FEW_PAGES for before, after in zip(small, large, strict=True)), (
        small,
        large,
    )
