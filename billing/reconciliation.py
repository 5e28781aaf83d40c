"""Do the books agree? Every invariant that is a query, and an end for orphaned requests.

Checking reads one snapshot and writes nothing. Ending orphans goes through the statement that
the live path settles with, so that however many reconcilers run, each request ends once.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import orjson
from django.db import DatabaseError, connection, transaction

from airi_server.kernel import resources
from airi_server.runtime import schema
from billing import prices
from billing.models import FluxAccount, FluxTransaction, LLMRequestLog, PriceVersion
from billing.pricing import TokenSource, Usage
from billing.requests import SETTLE_SQL, settle_columns
from billing.settlements import Charged, RequestRecord, Settlement

logger = logging.getLogger(__name__)

RESTART_GRACE_S: Final = 60
"""How long after a restart of the database a live instance may still be without a session."""
PAGE: Final = 1_000
SNAPSHOT_SQL: Final = """
SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY;
SET LOCAL statement_timeout = 0;
SET LOCAL work_mem = '64MB';
SET LOCAL jit = off
"""
FIND_ORPHANS_SQL: Final = resources.read_text("billing", "sql/find_orphans.sql")
COUNT_UNJUDGED_SQL: Final = resources.read_text("billing", "sql/count_unjudged.sql")
LOCK_ORPHAN_SQL: Final = resources.read_text("billing", "sql/lock_orphan.sql")
PRUNE_RESULTS_SQL: Final = resources.read_text("billing", "sql/prune_results.sql")


def _check(name: str) -> str:
    return resources.read_text("billing", f"sql/check_{name}.sql")


CHECKS: Final[tuple[tuple[str, str], ...]] = (
    ("I1", _check("conservation")),
    ("I2", _check("sequence")),
    ("I2", _check("chain")),
    ("I3", _check("reversals")),
    ("I4", _check("effects")),
    ("I5", _check("bounds")),
    ("I6", _check("holds")),
    ("I7", _check("charges")),
    ("I9", _check("deliveries")),
    ("I17", _check("grants")),
    ("I17", _check("grant_people")),
    ("debits", _check("debits")),
    ("key-spend", _check("key_spend")),
    ("unbilled", _check("unbilled")),
)
"""Invariant and statement, in the order they are checked. After them comes the `SCHEMA`."""
SCHEMA: Final = "schema"
"""The invariant of the database itself: that it insists on what this release's migrations make."""


@dataclass(frozen=True, slots=True)
class CheckScope:
    """What to look at: one user or everybody, and what happened since then or ever.

    Sums over an account have no beginning: they are checked whole whatever `since` says.
    """

    user_id: str | None = None
    since: datetime | None = None

    def params(self) -> dict[str, Any]:
        return {"user_id": self.user_id, "since": self.since}


EVERYTHING: Final = CheckScope()


@dataclass(frozen=True, slots=True)
class Broken:
    """One row that breaks an invariant, and how. `user_id` is empty for the database itself."""

    invariant: str
    user_id: str
    row: str
    why: str


@dataclass(frozen=True, slots=True)
class Orphan:
    """An open request that nobody will end any more; `hold` Flux of its user wait for that."""

    id: UUID
    user_id: str
    instance_id: str
    state: str
    hold: int
    why: str


@dataclass(frozen=True, slots=True)
class Unjudged:
    """Open requests that somebody may still end, by why; at the latest they are judged then."""

    requests: int
    hold: int
    why: str
    within_s: int


@dataclass(frozen=True, slots=True)
class Ended:
    """What became of an orphan. `charged` None: somebody else is at it, or it was none."""

    id: UUID
    user_id: str
    charged: Charged | None


@contextmanager
def snapshot() -> Iterator[None]:
    """Make every read see the books as of one instant, and every write an error."""
    with transaction.atomic(durable=True):
        with connection.cursor() as cursor:
            cursor.execute(SNAPSHOT_SQL)
        yield


def is_known(user_id: str) -> bool:
    """Return whether the books have heard of this user at all."""
    mine = {"user_id": user_id}
    return any(
        rows.filter(**mine).exists()
        for rows in (FluxAccount.objects, FluxTransaction.objects, LLMRequestLog.objects)
    )


def broken_rows(
    scope: CheckScope = EVERYTHING, *, limit_s: float | None = None
) -> Iterator[Broken]:
    """Check every invariant and name what breaks it. Call it within `snapshot`.

    Raises:
        OperationalError: It takes longer than `limit_s`; PostgreSQL stopped it.
    """
    began = time.monotonic()
    for invariant, sql in CHECKS:
        if limit_s is not None:
            _limit(limit_s - (time.monotonic() - began))
        for row in _stream(sql, scope.params()):
            yield Broken(invariant, *row)
    for place, why in schema.drift():
        yield Broken(SCHEMA, "", str(place), why)


def _limit(seconds: float) -> None:
    """Let the next statement of this transaction take so long; at least a moment."""
    with connection.cursor() as cursor:
        milliseconds = max(1, int(seconds * 1000))
        cursor.execute("SELECT set_config('statement_timeout', %s, true)", [f"{milliseconds}ms"])


def orphans(scope: CheckScope = EVERYTHING, *, grace_s: int | None = None) -> Iterator[Orphan]:
    """List open requests whose deadline passed or whose instance is gone, oldest first.

    Args:
        scope: What to look at.
        grace_s: How long after a restart of the database instances may come back; by default
            `RESTART_GRACE_S`.
    """
    for row in _stream(FIND_ORPHANS_SQL, _asked(scope, grace_s)):
        yield Orphan(*row)


def unjudged(scope: CheckScope = EVERYTHING, *, grace_s: int | None = None) -> list[Unjudged]:
    """Count the open requests that are none of the orphans, by what speaks for them."""
    rows = _stream(COUNT_UNJUDGED_SQL, _asked(scope, grace_s))
    return [Unjudged(requests, hold, why, within_s) for why, requests, hold, within_s in rows]


def settle_orphans(
    scope: CheckScope = EVERYTHING, *, grace_s: int | None = None
) -> Iterator[Ended]:
    """End every orphan, each in its own transaction.

    One that had begun to answer costs its prompt and its last checkpoint, as estimated when it
    opened; one that had not costs nothing. Running it again, or twice at once, changes nothing.
    """
    with snapshot():
        found = [(orphan.id, orphan.user_id) for orphan in orphans(scope, grace_s=grace_s)]
    for request_id, user_id in found:
        yield Ended(request_id, user_id, _settle(request_id, grace_s))


def settle_orphan(request_id: UUID) -> Charged | None:
    """End one orphan as `settle_orphans` does, within the caller's transaction if there is one."""
    return _settle(request_id, None)


def prune_results() -> int:
    """Forget stored answers older than 24 hours; return how many there were."""
    pruned = 0
    while True:
        with connection.cursor() as cursor:
            cursor.execute(PRUNE_RESULTS_SQL, {"page": PAGE})
            deleted = len(cursor.fetchall())
        pruned += deleted
        if deleted < PAGE:
            return pruned


def _asked(scope: CheckScope, grace_s: int | None) -> dict[str, Any]:
    return scope.params() | {"settling_s": RESTART_GRACE_S if grace_s is None else grace_s}


def _settle(request_id: UUID, grace_s: int | None) -> Charged | None:
    try:
        with transaction.atomic(), connection.cursor() as cursor:
            taken: dict[str, Any] = _asked(EVERYTHING, grace_s) | {"id": request_id}
            cursor.execute(LOCK_ORPHAN_SQL, taken)
            locked = cursor.fetchone()
            if locked is None:
                return None
            row = _settlement(locked).row()
            ids, users = [request_id], [row["user_id"]]
            batch: dict[str, Any] = {"rows": orjson.dumps([row]).decode()}
            cursor.execute(SETTLE_SQL, batch | {"ids": ids, "users": users})
            return settle_columns(cursor.fetchone()[1:])
    except (DatabaseError, PriceVersion.DoesNotExist):
        # One that cannot be ended, or not now, must not keep the others from it.
        logger.exception("Unable to end an orphan", extra={"request": str(request_id)})
        return None


def _settlement(row: tuple[Any, ...]) -> Settlement:
    """Turn a row of `lock_orphan.sql` into the settlement that ends it."""
    *identity, version, prompt, instance_id, has_begun, checkpoint, duration_ms, ttft_ms = row
    price = prices.of_version(version)
    # Ticket's own order, as in the statement.
    ticket = RequestRecord(*identity, price, prompt, instance_id)  # type: ignore[call-arg]
    usage = Usage(prompt, checkpoint, source=TokenSource.ESTIMATED) if has_begun else None
    return Settlement(ticket, "orphaned", usage, duration_ms=duration_ms, ttft_ms=ttft_ms)


def _stream(sql: str, params: dict[str, Any]) -> Iterator[tuple[Any, ...]]:
    """Read rows through a server-side cursor, a page at a time, so that memory stays flat."""
    with connection.chunked_cursor() as cursor:
        cursor.execute(sql, params)
        while page := cursor.fetchmany(PAGE):
            yield from page
