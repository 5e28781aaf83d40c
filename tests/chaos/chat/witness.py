"""The truth at the end: the rows of every chat, and what `witness.sql` has noted on the way."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import psycopg

from tests.chaos.chat.replica import Row

_NOTES: Final = Path(__file__).with_name("witness.sql")
_DISMISSAL: Final = """
DROP TRIGGER chaos_note_number ON chat_message;
DROP TRIGGER chaos_note_departure ON chat_member;
"""
_ROWS: Final = """
SELECT chat_id, id, seq, deleted_at IS NOT NULL, sender_id, role, content,
       floor(extract(epoch FROM created_at) * 1000)::bigint,
       floor(extract(epoch FROM updated_at) * 1000)::bigint
FROM chat_message
"""


@dataclass(slots=True)
class Truth:
    """What the database holds, by chat; `departures` by chat and user, in their order."""

    heads: dict[str, int] = field(default_factory=dict)
    rows: defaultdict[str, dict[str, Row]] = field(default_factory=lambda: defaultdict(dict))
    members: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    numbers: defaultdict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    departures: defaultdict[tuple[str, str], list[int]] = field(
        default_factory=lambda: defaultdict(list)
    )


def install(database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(_NOTES.read_bytes())


def dismiss(database_url: str) -> None:
    """Note nothing from now on: the reconciler reports any trigger that is not the product's."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(_DISMISSAL)


def read(database_url: str) -> Truth:
    """Return everything as it stands in one snapshot."""
    truth = Truth()
    with psycopg.connect(database_url) as connection:
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        truth.heads = dict(_all(connection, "SELECT id, last_seq FROM chat"))
        for chat_id, id_, seq, is_deleted, *told in _all(connection, _ROWS):
            truth.rows[chat_id][id_] = Row(id_, seq, None if is_deleted else tuple(told))
        members = "SELECT chat_id, user_id FROM chat_member WHERE user_id IS NOT NULL"
        for chat_id, user_id in _all(connection, members):
            truth.members[chat_id].add(user_id)
        for chat_id, seq in _all(connection, "SELECT chat_id, seq FROM chaos_number ORDER BY seq"):
            truth.numbers[chat_id].append(seq)
        gone = "SELECT chat_id, user_id, seq FROM chaos_departure ORDER BY id"
        for chat_id, user_id, seq in _all(connection, gone):
            truth.departures[chat_id, user_id].append(seq)
    return truth


def _all(connection: psycopg.Connection[Any], statement: str) -> list[tuple[Any, ...]]:
    return connection.execute(statement.encode()).fetchall()
