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
from django.apps import apps
from django.db import DatabaseError, connection, transaction

from airi_server.kernel import resources
from billing import prices
from billing.models import FluxAccount, FluxTransaction, LLMRequestLog, PriceVersion
from billing.pricing import Source, Usage
from billing.requests import SETTLE_SQL, settle_columns
from billing.settlements import Charged, Settlement, Ticket

logger = logging.getLogger(__name__)

RESTART_GRACE_S: Final = 60
"""How long after a restart of the database a live instance may still be without a session."""
TRIGGERS: Final = (
    "flux_transaction_append_only",
    "price_version_append_only",
    "reconciliation_run_append_only",
)
PAGE: Final = 1_000
SNAPSHOT_SQL: Final = """
SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY;
SET LOCAL statement_timeout = 0;
SET LOCAL work_mem = '64MB';
SET LOCAL jit = off
"""
FIND_ORPHANS_SQL: Final = resources.read_text("billing", "sql/find_orphans.sql")
LOCK_ORPHAN_SQL: Final = resources.read_text("billing", "sql/lock_orphan.sql")
PRUNE_RESULTS_SQL: Final = resources.read_text("billing", "sql/prune_results.sql")


def _check(name: str) -> str:
    return resources.read_text("billing", f"sql/check_{name}.sql")


CHECKS: Final[tuple[tuple[str, str], ...]] = (
    ("I1", _check("conservation")),
    ("I2", _check("sequence")),
    ("I2", _check("chain")),
    ("I3", _check("append_only")),
    ("I3", _check("reversals")),
    ("I4", _check("effects")),
    ("I5", _check("bounds")),
    ("I5", _check("constraints")),
    ("I6", _check("holds")),
    ("I7", _check("charges")),
    ("debits", _check("debits")),
    ("key-spend", _check("key_spend")),
)
"""Invariant and statement, in the order they are checked."""


@dataclass(frozen=True, slots=True)
class Scope:
    """What to look at: one user or everybody, and what happened since then or ever.

    Sums over an account have no beginning: they are checked whole whatever `since` says.
    """

    user_id: str | None = None
    since: datetime | None = None

    def params(self) -> dict[str, Any]:
        return {"user_id": self.user_id, "since": self.since}


EVERYTHING: Final = Scope()


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


def broken_rows(scope: Scope = EVERYTHING, *, limit_s: float | None = None) -> Iterator[Broken]:
    """Check every invariant and name what breaks it. Call it within `snapshot`.

    Raises:
        OperationalError: It takes longer than `limit_s`; PostgreSQL stopped it.
    """
    params = scope.params() | {"triggers": list(TRIGGERS), "constraints": _constraints()}
    began = time.monotonic()
    for invariant, sql in CHECKS:
        if limit_s is not None:
            _limit(limit_s - (time.monotonic() - began))
        for row in _stream(sql, params):
            yield Broken(invariant, *row)


def _limit(seconds: float) -> None:
    """Let the next statement of this transaction take so long; at least a moment."""
    with connection.cursor() as cursor:
        milliseconds = max(1, int(seconds * 1000))
        cursor.execute("SELECT set_config('statement_timeout', %s, true)", [f"{milliseconds}ms"])


def orphans(scope: Scope = EVERYTHING) -> Iterator[Orphan]:
    """List open requests whose deadline passed or whose instance is gone, oldest first."""
    params = scope.params() | {"settling_s": RESTART_GRACE_S}
    for row in _stream(FIND_ORPHANS_SQL, params):
        yield Orphan(*row)


def settle_orphans(scope: Scope = EVERYTHING) -> Iterator[Ended]:
    """End every orphan, each in its own transaction.

    One that had begun to answer costs its prompt and its last checkpoint, as estimated when it
    opened; one that had not costs nothing. Running it again, or twice at once, changes nothing.
    """
    with snapshot():
        found = [(orphan.id, orphan.user_id) for orphan in orphans(scope)]
    for request_id, user_id in found:
        yield Ended(request_id, user_id, _settle(request_id))


def settle_orphan(request_id: UUID) -> Charged | None:
    """End one orphan as `settle_orphans` does, within the caller's transaction if there is one."""
    return _settle(request_id)


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


def _settle(request_id: UUID) -> Charged | None:
    try:
        with transaction.atomic(), connection.cursor() as cursor:
            taken: dict[str, Any] = {"id": request_id, "settling_s": RESTART_GRACE_S}
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
    ticket = Ticket(*identity, price, prompt, instance_id)  # type: ignore[call-arg]
    usage = Usage(prompt, checkpoint, source=Source.ESTIMATED) if has_begun else None
    return Settlement(ticket, "orphaned", usage, duration_ms=duration_ms, ttft_ms=ttft_ms)


def _stream(sql: str, params: dict[str, Any]) -> Iterator[tuple[Any, ...]]:
    """Read rows through a server-side cursor, a page at a time, so that memory stays flat."""
    with connection.chunked_cursor() as cursor:
        cursor.execute(sql, params)
        while page := cursor.fetchmany(PAGE):
            yield from page


def _constraints() -> list[str]:
    tables = apps.get_app_config("billing").get_models()
    options = [table._meta for table in tables]  # noqa: SLF001  public in all but name
    return [constraint.name for option in options for constraint in option.constraints]
