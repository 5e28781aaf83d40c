"""No statement of the hot path reads a big table from end to end, and none grows with it.

Counts only: plans, and pages touched. Nothing here looks at a clock.
"""

from __future__ import annotations

import random
from typing import Any, Final
from uuid import UUID

import orjson
import pytest

from billing import balances, queries, requests
from billing.usage import refusals
from tests.perf.conftest import GROWTH, ROWS, USER, Tables

# pytest-django makes the database for tests that are marked; the rows are in our own transaction.
pytestmark = [pytest.mark.django_db, pytest.mark.xdist_group("perf")]

SLOPE: Final = 1.3
CALLS: Final = 8
"""After so many, PostgreSQL has made up its mind about the plan of a prepared statement."""
FEW_PAGES: Final = 8
"""What B-trees that became one level higher may cost a read, in pages."""
ONE_LEVEL: Final = 2.0
"""The same for a batch, whose every member looks into several trees; four times would be a scan."""


def _deep(rows: int) -> UUID:
    """Return a request of the user's in the middle of the table."""
    return UUID(int=rows // 4 * 2)


def _reads(rows: int) -> dict[str, tuple[str, dict[str, Any]]]:
    """Return every read of a big table with parameters that have to go deep."""
    listing = {"user_id": USER, "page": 21, "before": None, "only": None}
    deep = _deep(rows)
    return {
        "listing": (queries.READ_REQUESTS_SQL, listing),
        "listing, deep": (queries.READ_REQUESTS_SQL, {**listing, "before": deep}),
        "one request": (queries.READ_REQUESTS_SQL, {**listing, "page": 1, "only": deep}),
        "listing with refusals": (queries.READ_REQUESTS_AND_REFUSALS_SQL, listing),
        "listing with refusals, deep": (
            queries.READ_REQUESTS_AND_REFUSALS_SQL,
            {**listing, "before": deep},
        ),
        "history": (queries.READ_HISTORY_SQL, {"user_id": USER, "page": 21, "skip": 0}),
        "history, deep": (
            queries.READ_HISTORY_SQL,
            {"user_id": USER, "page": 21, "skip": rows // 4},
        ),
        "capacity": (queries.READ_CAPACITY_SQL, {"user_id": USER}),
        "find": (requests.FIND_REQUEST_SQL, {"id": deep, "user_id": USER}),
        "balances": (balances.READ_BALANCES_SQL, {"users": [USER, "user-2"]}),
    }


READS: Final = tuple(_reads(0))


def _open_rows(ids: list[UUID]) -> list[dict[str, Any]]:
    """Return one batch to open: some with a client key, some with spending limits."""
    return [
        {
            "id": request_id, "user_id": USER if place % 2 else f"user-{place + 1}",
            "api_key_id": f"key-{place % 7}", "kind": "chat",
            "client_key": f"new-{request_id}" if place % 3 else None,
            "input_hash": "00" if place % 3 else None, "model": "chat-default", "stream": False,
            "price_version": 1, "prompt_estimate": 10, "floor": 1, "wanted": 5,
            "limit_day": 1000, "limit_month": None, "limit_total": None, "instance_id": "perf",
            "deadline_s": 60,
        }
        for place, request_id in enumerate(ids)
    ]  # fmt: skip


def _settle_rows(opened: list[dict[str, Any]]) -> list[dict[str, Any]]:
    end = {
        "state": "settled", "charge": 1, "upstream": "u", "upstream_key_id": "k", "attempts": 1,
        "failures": None, "status": 200, "prompt_tokens": 1, "completion_tokens": 1,
        "cached_tokens": 0, "usage_source": "reported", "cost_usd": None, "outcome": "completed",
        "error_code": None, "duration_ms": 1, "ttft_ms": 1, "result": None,
    }  # fmt: skip
    return [{**row, **end} for row in opened]


def _refusals(ids: list[UUID]) -> dict[str, Any]:
    """Return what records one batch of refusals, and forgets as many again that are old."""
    at = "2026-03-01T12:00:00Z"
    who = {"user_id": USER, "model": "chat-default", "code": "PAYMENT_REQUIRED", "status": 402}
    rows = [
        {**who, "id": each, "api_key_id": "key-1", "kind": "chat", "message": "", "at": at}
        for each in ids
    ]
    counts = [
        {**who, "api_key_id": f"new-{each}", "hour": at, "count": 2, "first_at": at, "last_at": at}
        for each in ids
    ]
    return {
        "rows": orjson.dumps(rows).decode(),
        "counts": orjson.dumps(counts).decode(),
        "old": UUID(int=2**12),
        "oldest": "2026-01-03T00:00:00Z",
        "page": len(ids),
    }


def _ids(count: int) -> list[UUID]:
    return [UUID(int=0xF << 124 | random.getrandbits(120)) for _ in range(count)]


def _run_batch(tables: Tables, ids: list[UUID]) -> dict[str, int]:
    """Open, mark and settle a batch; return the pages each of the three has touched."""
    opened = _open_rows(ids)
    users = list({row["user_id"] for row in opened})
    marks = [{"id": request_id, "checkpoint": 3} for request_id in ids]

    def pages(sql: str, rows: list[dict[str, Any]]) -> int:
        params = {"rows": orjson.dumps(rows).decode(), "ids": ids, "users": users}
        return tables.explain(sql, params).buffers

    refused = tables.explain(refusals.RECORD_SQL, _refusals(ids)).buffers
    return {
        "refuse": refused,
        "open": pages(requests.OPEN_SQL, opened),
        "mark": pages(requests.MARK_SQL, marks),
        "settle": pages(requests.SETTLE_SQL, _settle_rows(opened)),
    }


@pytest.mark.parametrize("name", READS)
def test_no_read_scans_a_table(tables, name):
    sql, params = _reads(tables.rows)[name]

    plan = tables.explain(sql, params, after=CALLS)

    assert not [node for node in plan.nodes if node.startswith("Seq Scan")]


def test_no_batch_scans_a_table(tables):
    before = tables.sequential_scans()

    with tables.session.transaction(force_rollback=True):
        for _ in range(CALLS):
            _run_batch(tables, _ids(16))

    assert tables.sequential_scans() == before


@pytest.fixture(scope="module")
def pages(tables: Tables) -> dict[str, tuple[int, int]]:
    """Pages touched by everything, before and after the tables have grown."""

    def touched() -> dict[str, int]:
        # The reads come first: batches would leave rows of other users on top of the newest.
        found = {
            name: tables.explain(sql, params, after=CALLS).buffers
            for name, (sql, params) in _reads(tables.rows).items()
        }
        for _ in range(CALLS):
            _run_batch(tables, _ids(16))
        return found | _run_batch(tables, _ids(16))

    with tables.session.transaction(force_rollback=True):
        small = touched()
    tables.grow(GROWTH * ROWS)
    large = touched()
    return {name: (count, large[name]) for name, count in small.items()}


@pytest.mark.parametrize("name", READS)
def test_no_read_grows_with_the_tables(pages, name):
    small, large = pages[name]

    assert large <= max(SLOPE * small, small + FEW_PAGES)


@pytest.mark.parametrize("name", ["open", "mark", "settle", "refuse"])
def test_no_batch_grows_with_the_tables(pages, name):
    small, large = pages[name]

    assert large <= ONE_LEVEL * small
