"""Ordinary requests and prices, and the statements of the hot path run one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import orjson
from django.db import connection

from airi_server.kernel import ids
from airi_server.kernel.threads import in_thread
from billing import ledger, prices
from billing.models import (
    FluxAccount,
    FluxTransaction,
    LLMRequestLog,
    PriceVersion,
    RefusalHour,
    RefusedRequest,
)
from billing.pricing import Hold, Price, TokenSource, Usage
from billing.reconciliation import CheckScope, broken_rows, snapshot
from billing.requests import MARK_SQL, NO_LIMITS, OPEN_SQL, SETTLE_SQL, SpendingLimits
from billing.settlements import Charged, RequestRecord, Settlement

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
FLUX_A_TOKEN = 1000
"""Flux for each 1,000 tokens at which one token costs one Flux."""


def price_row(**columns: Any) -> PriceVersion:
    """Publish a price: by default, one Flux a token and a flat price of 1."""
    rate = Decimal(FLUX_A_TOKEN)
    rates: dict[str, Any] = {
        "model": "chat-default",
        "flux_per_1k_input": rate,
        "flux_per_1k_output": rate,
        "flux_per_1k_cached": rate,
        "flux_per_request": 1,
        "minimum_flux": 0,
    }
    return prices.publish(**{**rates, **columns}, by="tester", at=NOW)


def price(**columns: Any) -> Price:
    return prices.of_version(price_row(**columns).pk)


def make_account(flux: int = 100, user_id: str | None = None, **columns: Any) -> str:
    """Open an account with a balance; return its user's id."""
    user_id = user_id or ids.nanoid()
    ledger.open_account(user_id=user_id)
    if flux:
        ledger.credit(user_id=user_id, amount=flux, request_id=None, description="test", at=NOW)
    if columns:
        FluxAccount.objects.filter(user_id=user_id).update(**columns)
    return user_id


def ticket(user_id: str, at_price: Price, **facts: Any) -> RequestRecord:
    ordinary: dict[str, Any] = {
        "id": ids.uuid7(),
        "api_key_id": None,
        "kind": "chat",
        "client_key": None,
        "input_hash": None,
        "model": "chat-default",
        "stream": False,
        "prompt_estimate": 0,
        "instance_id": "nobody",
    }
    return RequestRecord(**{**ordinary, "user_id": user_id, "price": at_price, **facts})


def opening(
    for_ticket: RequestRecord,
    wanted: int,
    floor: int | None = None,
    *,
    limits: SpendingLimits = NO_LIMITS,
    deadline_s: int = 600,
) -> dict[str, Any]:
    """Return what `billing_open_requests` takes for one request."""
    return for_ticket.row() | {
        "floor": wanted if floor is None else floor,
        "wanted": wanted,
        "limit_day": limits.day,
        "limit_month": limits.month,
        "limit_total": limits.total,
        "deadline_s": deadline_s,
    }


def hold(wanted: int, floor: int | None = None) -> Hold:
    return Hold(floor=wanted if floor is None else floor, wanted=wanted)


def settlement(for_ticket: RequestRecord, tokens: int | None, **facts: Any) -> Settlement:
    """End a request that used `tokens` prompt tokens; None voids it."""
    usage = None if tokens is None else Usage(tokens, 0, source=TokenSource.REPORTED)
    ordinary: dict[str, Any] = {"outcome": "completed" if usage else "failed", "completed": True}
    return Settlement(for_ticket, **{**ordinary, "usage": usage, **facts})


def refused(user_id: str, at: datetime = NOW, **columns: Any) -> RefusedRequest:
    """Make the row of one refused request, and its hour."""
    ordinary: dict[str, Any] = {
        "id": UUID(int=ids.first_uuid7_at(at).int | ids.uuid7().int & 2**80 - 1),
        "api_key_id": "",
        "model": "chat-default",
        "kind": "chat",
        "status": 402,
        "code": "PAYMENT_REQUIRED",
        "message": "Insufficient flux",
    }
    row = RefusedRequest.objects.create(**{**ordinary, **columns}, user_id=user_id, at=at)
    hour = at.replace(minute=0, second=0, microsecond=0)
    kept = {"status": row.status, "count": 1, "first_at": at, "last_at": at}
    RefusalHour.objects.get_or_create(
        user_id=user_id,
        hour=hour,
        api_key_id=row.api_key_id,
        model=row.model,
        code=row.code,
        defaults=kept,
    )
    return row


def run(sql: str, params: dict[str, Any]) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(sql, params)
        rows: list[tuple[Any, ...]] = cursor.fetchall()
        return rows


def _params(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {
        "rows": orjson.dumps(rows).decode(),
        "ids": [row["id"] for row in rows],
        "users": list({row["user_id"]: 0 for row in rows if "user_id" in row}),
    }


def open_batch(*rows: dict[str, Any]) -> list[tuple[Any, ...]]:
    """Return `(outcome, hold, available, existing)` of each, in order."""
    return [row[1:] for row in sorted(run(OPEN_SQL, _params(rows)))]


def open_one(for_ticket: RequestRecord, wanted: int, **more: Any) -> tuple[Any, ...]:
    return open_batch(opening(for_ticket, wanted, **more))[0]


def mark_batch(*rows: tuple[RequestRecord, int]) -> None:
    run(MARK_SQL, _params([{"id": marked.id, "checkpoint": count} for marked, count in rows]))


def settle_batch(*settlements: Settlement) -> list[Charged]:
    rows = run(SETTLE_SQL, _params([each.row() for each in settlements]))
    return [Charged(*row[1:]) for row in sorted(rows)]


def settle_one(one: Settlement) -> Charged:
    return settle_batch(one)[0]


def state_of(user_id: str) -> tuple[int, int]:
    """Return balance and held."""
    found = FluxAccount.objects.get(user_id=user_id)
    return found.balance, found.held


def request_of(for_ticket: RequestRecord) -> LLMRequestLog:
    return LLMRequestLog.objects.get(pk=for_ticket.id)


def entries_of(user_id: str) -> list[FluxTransaction]:
    return list(FluxTransaction.objects.filter(user_id=user_id).order_by("user_seq"))


def broken_here(user_id: str | None = None) -> list[str]:
    """Check the books within the transaction that is open; return `invariant row: why`."""
    return [
        f"{each.invariant} {each.row}: {each.why}"
        for each in broken_rows(CheckScope(user_id=user_id))
    ]


def _broken_in_snapshot(user_id: str | None = None) -> list[str]:
    with snapshot():
        return broken_here(user_id)


def renamed(original: RequestRecord, **facts: Any) -> RequestRecord:
    return original._replace(**facts)


# Tests of the hot path are coroutines: these run in a thread that gives its connection back.
account = in_thread(make_account)
new_price = in_thread(price)
state = in_thread(state_of)
request = in_thread(request_of)
entries = in_thread(entries_of)
broken = in_thread(_broken_in_snapshot)


@in_thread
def refused_later(user_id: str, **columns: Any) -> RefusedRequest:
    """Make a refused request now, from a coroutine."""
    return refused(user_id, datetime.now(UTC), **columns)
