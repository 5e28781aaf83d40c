"""Paid requests: open with a hold, mark, settle or void. Each is one round trip for many.

The row is the request. It is opened before anything is sent and closed exactly once, by whoever
wins the compare-and-set on its state: the live path, or `reconcile-usage --settle`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple
from uuid import UUID

import orjson

from airi_server.kernel import database, resources
from airi_server.kernel.errors import DomainError
from airi_server.kernel.group_commit import GroupCommit, Overloaded
from billing import balances, models
from billing.ledger import AccountClosed
from billing.pricing import Hold
from billing.settlements import Charged, RequestRecord, Settlement

logger = logging.getLogger(__name__)

OPEN_SQL: Final = "SELECT * FROM billing_open_requests(%(rows)s::json, %(users)s::text[])"
MARK_SQL: Final = "SELECT billing_mark_requests(%(rows)s::json, %(ids)s::uuid[])"
SETTLE_SQL: Final = (
    "SELECT * FROM billing_settle_requests(%(rows)s::json, %(ids)s::uuid[], %(users)s::text[])"
)
FIND_REQUEST_SQL: Final = resources.read_text("billing", "sql/find_request.sql")
SETTLE_DEADLINE_S: Final = 30.0
MAX_RESULT_BYTES: Final = models.MAX_RESULT_BYTES


class InsufficientFlux(DomainError):
    """Less is free than the smallest useful answer costs. Nothing was opened."""

    code = "PAYMENT_REQUIRED"
    status = 402


class SpendingLimitReached(InsufficientFlux):
    """The API key's own limit is used up. Nothing was opened."""


class AccountFrozen(DomainError):
    """A chargeback is open against the account. Nothing was opened."""

    code = "ACCOUNT_FROZEN"
    status = 402


class StillInFlight(DomainError):
    """The first request with this key has not ended yet."""

    code = "IN_FLIGHT"
    status = 409


class AlreadyProcessed(DomainError):
    """The first request with this key has ended and its answer was not kept."""

    code = "ALREADY_PROCESSED"
    status = 409


class KeyReused(DomainError):
    """The key was used before with another body."""

    code = "IDEMPOTENCY_KEY_REUSED"
    status = 422


class SpendingLimits(NamedTuple):
    """The most Flux one API key may debit, holds included; None is no limit."""

    day: int | None = None
    month: int | None = None
    total: int | None = None


NO_LIMITS: Final = SpendingLimits()


@dataclass(frozen=True, slots=True)
class Replay:
    """The stored answer to a request that was paid for before."""

    id: UUID
    body: bytes
    charged: int


async def open(  # noqa: A001  requests.open reads as a sentence where it is called
    ticket: RequestRecord, *, hold: Hold, limits: SpendingLimits = NO_LIMITS, deadline_s: int
) -> int | Replay:
    """Reserve Flux for a request before anything is sent; return the hold, in whole Flux.

    A repeated `client_key` returns the stored answer of the first request instead. Retried by
    itself when a connection dies: the row's id makes that harmless.

    Raises:
        InsufficientFlux, SpendingLimitReached, AccountFrozen, AccountClosed: Refused.
        StillInFlight, AlreadyProcessed, KeyReused: The client's key is taken.
        psycopg.OperationalError, PoolTimeout: The database is away. At worst an open row
            is left, which the reconciler voids.
    """
    row = ticket.row() | {
        "floor": hold.floor,
        "wanted": hold.wanted,
        "limit_day": limits.day,
        "limit_month": limits.month,
        "limit_total": limits.total,
        "deadline_s": deadline_s,
    }
    outcome, held, available, existing = await _open(row)
    if outcome == "no_account":
        await balances.open_account(ticket.user_id)
        outcome, held, available, existing = await _open(row)
    if outcome in ("opened", "replayed"):
        return held
    if outcome == "duplicate":
        return await _replay(ticket, existing)
    raise _refusal(outcome, available, hold.floor)


async def mark(request_id: UUID, *, checkpoint: int) -> None:
    """Note that a stream has begun, and how many tokens it has delivered so far."""
    await _marks.submit({"id": request_id, "checkpoint": checkpoint})


async def settle(settlement: Settlement) -> Charged:
    """Close a request: debit what it cost, release its hold. Returns once that is on disk.

    Tried again while the database is away, until `SETTLE_DEADLINE_S`; a request that was closed
    before, by this path or by the reconciler, is left as it is and reported as replayed.

    Raises:
        psycopg.OperationalError, PoolTimeout: Still away. The row stays open and is settled by
            `reconcile-usage --settle` from its last checkpoint.
    """
    row = settlement.row()
    loop = asyncio.get_running_loop()
    give_up_at = loop.time() + SETTLE_DEADLINE_S
    pause = 0.02
    while True:
        try:
            return await _settlements.submit(row)
        except (*database.AWAY, Overloaded):
            if loop.time() + pause > give_up_at:
                logger.exception("Unable to settle", extra={"settlement": _evidence(row)})
                raise
        except Exception:
            logger.exception("Unable to settle", extra={"settlement": _evidence(row)})
            raise
        await asyncio.sleep(pause)
        pause = min(1.0, pause * 2)


def _evidence(row: dict[str, Any]) -> dict[str, Any]:
    """Return what it takes to settle by hand; never the answer itself."""
    return {name: value for name, value in row.items() if name not in ("result", "input_hash")}


def settle_columns(row: Any) -> Charged:
    """Read one row that `settle_requests.sql` returned, after its ordinal."""
    state, charged, unbilled, balance, replayed = row
    return Charged(state, charged, unbilled, balance, replayed)


async def _open(row: dict[str, Any]) -> tuple[str, int, int, UUID | None]:
    return await database.retried(lambda: _opens.submit(row))


async def _replay(ticket: RequestRecord, existing: UUID | None) -> Replay:
    found = await database.fetch(FIND_REQUEST_SQL, {"id": existing, "user_id": ticket.user_id})
    if not found:
        raise StillInFlight("The request is being processed.", retry_after_s=1)
    state, input_hash, charged, body = found[0]
    if state == "voided":
        # It failed since we met it, and has left its key free: the next try runs.
        raise StillInFlight("The request is being processed.", retry_after_s=1)
    if input_hash != ticket.input_hash:
        raise KeyReused("The idempotency key was used before with another body.")
    if state in ("open", "streaming"):
        raise StillInFlight("The request is being processed.", retry_after_s=1)
    details = {"requestId": str(existing), "fluxCharged": charged}
    if body is None or existing is None:
        raise AlreadyProcessed("The request was processed before.", details=details)
    return Replay(existing, bytes(body), charged)


def _refusal(outcome: str, available: int, required: int) -> DomainError:
    numbers = {"available": available, "required": required}
    if outcome == "insufficient":
        return InsufficientFlux("Insufficient flux", details=numbers)
    if outcome == "key_limit":
        return SpendingLimitReached("The API key's spending limit is reached", details=numbers)
    if outcome == "frozen":
        return AccountFrozen("The account is frozen.")
    return AccountClosed("The account was deleted.")


def _json(rows: Sequence[dict[str, Any]]) -> str:
    return orjson.dumps(rows).decode()


def _users(rows: Sequence[dict[str, Any]]) -> list[str]:
    return list({row["user_id"] for row in rows})


async def _open_batch(
    lent: database.Connection, rows: Sequence[dict[str, Any]]
) -> list[tuple[str, int, int, UUID | None]]:
    params = {"rows": _json(rows), "users": _users(rows)}
    found = {row[0]: row[1:] for row in await database.execute(lent, OPEN_SQL, params)}
    return [found[position] for position in range(1, len(rows) + 1)]


async def _mark_batch(lent: database.Connection, rows: Sequence[dict[str, Any]]) -> list[None]:
    params = {"rows": _json(rows), "ids": [row["id"] for row in rows]}
    await database.execute(lent, MARK_SQL, params)
    return [None] * len(rows)


async def _settle_batch(lent: database.Connection, rows: Sequence[dict[str, Any]]) -> list[Charged]:
    params = {"rows": _json(rows), "ids": [row["id"] for row in rows], "users": _users(rows)}
    found = {row[0]: row[1:] for row in await database.execute(lent, SETTLE_SQL, params)}
    return [settle_columns(found[position]) for position in range(1, len(rows) + 1)]


_opens: GroupCommit[dict[str, Any], tuple[str, int, int, UUID | None]] = GroupCommit(_open_batch)
_marks: GroupCommit[dict[str, Any], None] = GroupCommit(_mark_batch)
_settlements: GroupCommit[dict[str, Any], Charged] = GroupCommit(_settle_batch)
