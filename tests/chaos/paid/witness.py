"""The truth at the end: accounts, ledger, requests and what was audited, in one snapshot."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import psycopg
from psycopg.rows import class_row

_ROWS: Final = """
SELECT id::text, user_id, state, hold, client_key, stream, prompt_estimate, prompt_tokens,
       completion_tokens, cached_tokens, usage_source, flux_consumed AS charged, unbilled,
       outcome, attempts, instance_id, opened_at, settled_at
FROM llm_request_log ORDER BY id
"""
_ENTRIES: Final = """
SELECT id::text, user_id, user_seq AS seq, type AS kind, amount, balance_before AS before,
       balance_after AS after, request_id
FROM flux_transaction ORDER BY user_id, user_seq
"""
_ACCOUNTS: Final = "SELECT user_id, flux, held, ledger_seq AS seq FROM user_flux"
_AUDITED: Final = """
SELECT facts->>'key', subject_id FROM audit_entry WHERE action = 'billing.grant_flux'
"""


@dataclass(frozen=True, slots=True)
class Row:
    """A row of `llm_request_log`."""

    id: str
    user_id: str
    state: str
    hold: int
    client_key: str | None
    stream: bool
    prompt_estimate: int
    prompt_tokens: int | None
    completion_tokens: int | None
    cached_tokens: int | None
    usage_source: str
    charged: int
    unbilled: int
    outcome: str | None
    attempts: int
    instance_id: str
    opened_at: datetime
    settled_at: datetime | None

    @property
    def opened(self) -> float:
        return self.opened_at.timestamp()

    @property
    def is_open(self) -> bool:
        return self.state in ("open", "streaming")


@dataclass(frozen=True, slots=True)
class Entry:
    """A row of `flux_transaction`."""

    id: str
    user_id: str
    seq: int
    kind: str
    amount: int
    before: int
    after: int
    request_id: str | None


@dataclass(frozen=True, slots=True)
class Account:
    """A row of `user_flux`."""

    user_id: str
    flux: int
    held: int
    seq: int


@dataclass(slots=True)
class Truth:
    """What the database holds; the entries of each user in their order."""

    accounts: dict[str, Account] = field(default_factory=dict)
    entries: defaultdict[str, list[Entry]] = field(default_factory=lambda: defaultdict(list))
    rows: dict[str, Row] = field(default_factory=dict)
    audited: Counter[tuple[str, str]] = field(default_factory=Counter)
    """How often each grant (key, user) stands in the audit log."""


def read(database_url: str) -> Truth:
    truth = Truth()
    with psycopg.connect(database_url) as connection:
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        for account in _all(connection, Account, _ACCOUNTS):
            truth.accounts[account.user_id] = account
        for entry in _all(connection, Entry, _ENTRIES):
            truth.entries[entry.user_id].append(entry)
        for row in _all(connection, Row, _ROWS):
            truth.rows[row.id] = row
        truth.audited.update(connection.execute(_AUDITED.encode()).fetchall())
    return truth


def open_rows(database_url: str) -> list[str]:
    """Return the ids of the requests that are open."""
    with psycopg.connect(database_url) as connection:
        found = connection.execute("SELECT id::text FROM llm_request_log WHERE settled_at IS NULL")
        return [id_ for (id_,) in found.fetchall()]


def _all(connection: psycopg.Connection[Any], kind: type[Any], statement: str) -> list[Any]:
    with connection.cursor(row_factory=class_row(kind)) as cursor:
        return cursor.execute(statement.encode()).fetchall()
