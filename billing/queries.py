"""Reads for the clients' screens: one round trip each, evaluated values, own rows only."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from airi_server.kernel import database, resources

READ_CAPACITY_SQL: Final = resources.read_text("billing", "sql/read_capacity.sql")
READ_HISTORY_SQL: Final = resources.read_text("billing", "sql/read_history.sql")
READ_REFUSAL_SQL: Final = resources.read_text("billing", "sql/read_refusal.sql")
READ_REQUEST_SQL: Final = resources.read_text("billing", "sql/read_request.sql")
READ_REQUESTS_SQL: Final = resources.read_text("billing", "sql/read_requests.sql")
READ_REQUESTS_AND_REFUSALS_SQL: Final = resources.read_text(
    "billing", "sql/read_requests_and_refusals.sql"
)


@dataclass(frozen=True, slots=True)
class OwnEntry:
    """One ledger entry as its owner sees it; `amount` is never negative."""

    id: int
    type: str
    amount: int
    description: str
    metadata: dict[str, Any] | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class OwnRequest:
    """One request as its owner sees it."""

    id: UUID
    kind: str
    model: str
    stream: bool
    state: str
    outcome: str | None
    status: int | None
    prompt_tokens: int | None
    completion_tokens: int | None
    cached_tokens: int | None
    usage_source: str
    flux_charged: int
    unbilled: int
    hold: int
    opened_at: datetime
    settled_at: datetime | None
    duration_ms: int | None
    ttft_ms: int | None
    error_code: str | None


async def capacity_of(user_id: str) -> int:
    """Return the balance right after the newest top-up; 0 if there was none."""
    rows = await database.fetch(READ_CAPACITY_SQL, {"user_id": user_id})
    return rows[0][0] if rows else 0


async def history(user_id: str, *, limit: int, offset: int) -> list[OwnEntry]:
    """Return ledger entries, newest first."""
    params = {"user_id": user_id, "page": limit, "skip": offset}
    return [OwnEntry(*row) for row in await database.fetch(READ_HISTORY_SQL, params)]


async def requests_before(
    user_id: str, *, before: UUID | None, limit: int, refused: bool = False
) -> list[OwnRequest]:
    """Return requests older than `before`, newest first; if wanted also the refused ones."""
    params = {"user_id": user_id, "page": limit, "before": before}
    sql = READ_REQUESTS_AND_REFUSALS_SQL if refused else READ_REQUESTS_SQL
    return [OwnRequest(*row) for row in await database.fetch(sql, params)]


async def request_of(user_id: str, request_id: UUID) -> OwnRequest | None:
    """Return one of the user's own requests, refused ones too; somebody else's is None."""
    params = {"user_id": user_id, "id": request_id}
    rows = await database.fetch(READ_REQUEST_SQL, params)
    rows = rows or await database.fetch(READ_REFUSAL_SQL, params)
    return OwnRequest(*rows[0]) if rows else None
