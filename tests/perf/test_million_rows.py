"""On a million requests and entries each list of the console opens at once, whatever it is asked.

Counts only: statements, plans, and pages touched. Nothing here looks at a clock.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest
from django.db import connection
from django.test import Client
from django.urls import reverse

from airi_server.pages import paging
from billing import prices
from billing.models import FluxAccount, FluxTransaction, LLMRequestLog, PriceVersion
from tests.factories import accounts
from tests.perf import talk
from tests.perf.million import HEAVY, RARE_MODEL

pytestmark = [
    pytest.mark.django_db,
    pytest.mark.xdist_group("million"),
    pytest.mark.usefixtures("million"),
]

MAX_STATEMENTS = 12
FEW = 1_500
"""Pages that an answer through an index may touch: a hundred rows, each on a page of its own."""
WALK = 14_000
"""Pages that a walk through one slice may touch: a tenth of the table and of an index."""
BIG = {
    "flux_transaction", "llm_request_log", "user_flux", "user", "api_key", "api_key_spend",
    *(table.strip('"') for table in talk.TABLES),
}  # fmt: skip
LIGHT = "user-77"
A_KEY = "sk-airi-k00000000077"
DIRECT: dict[type, list[dict[str, str]]] = {
    FluxAccount: [
        {},
        {"q": HEAVY},
        {"q": LIGHT},
        {"q": "User-77@Million.Example"},
        {"q": "nobody@million.example"},
        {"q": "nobody"},
        {"frozen": "yes"},
        {"holds": "yes"},
        {"frozen": "yes", "holds": "yes"},
        {"after": "user-5"},
        {"before": "user-5"},
    ],
    FluxTransaction: [
        {},
        {"q": HEAVY},
        {"q": LIGHT},
        {"q": "user-77@million.example"},
        {"q": "nobody"},
        {"q": "llm:01234567-89ab-7cde-8f01-23456789abcd"},
        {"user": LIGHT},
        {"last": "1h"},
        {"last": "24h"},
        {"last": "7d"},
        {"last": "30d"},
        {"from": "2001-01-01T00:00", "to": "2001-01-02T00:00"},
        {"from": "2101-01-01T00:00"},
        {"kind": "reversal"},
        {"kind": "initial"},
        {"kind": "promo", "last": "7d"},
        {"kind": "credit", "user": LIGHT},
        {"user": LIGHT, "last": "7d"},
        {"user": HEAVY, "last": "1h"},
        {"user": HEAVY, "to": "2001-01-01T00:00"},
        {"after": "500000"},
        {"before": "500000"},
        {"user": HEAVY, "after": "5000"},
    ],
    LLMRequestLog: [
        {},
        {"q": HEAVY},
        {"q": LIGHT},
        {"q": "user-77@million.example"},
        {"q": "01234567-89ab-7cde-8f01-23456789abcd"},
        {"q": A_KEY},
        {"q": "nobody@million.example"},
        {"user": LIGHT, "model": RARE_MODEL},
        {"last": "1h"},
        {"last": "24h"},
        {"last": "30d"},
        {"last": "1h", "model": RARE_MODEL},
        {"from": "2001-01-01T00:00", "to": "2001-01-02T00:00"},
        {"from": "2101-01-01T00:00", "model": RARE_MODEL},
        {"state": "open"},
        {"state": "streaming"},
        {"state": "under-way"},
        {"state": "under-way", "model": RARE_MODEL},
        {"unbilled": "yes"},
        {"unbilled": "yes", "last": "24h"},
        {"unbilled": "yes", "user": LIGHT},
        {"failed": "yes"},
        {"failed": "yes", "last": "24h"},
        {"failed": "yes", "last": "30d"},
        {"failed": "yes", "from": "2101-01-01T00:00"},
        {"failed": "yes", "user": LIGHT},
        {"after": "01980000-0000-7000-8000-000000000000"},
    ],
}
WALKS: dict[type, list[dict[str, str]]] = {
    FluxAccount: [{"frozen": "no"}],
    FluxTransaction: [
        {"kind": "debit"},
        {"kind": "debit", "user": HEAVY, "last": "1h"},
        {"kind": "reversal", "user": HEAVY},
    ],
    LLMRequestLog: [
        {"model": RARE_MODEL},
        {"model": "no-such-model"},
        {"model": "no-such-model", "last": "30d"},
        {"model": RARE_MODEL, "state": "settled", "outcome": "failed"},
        {"state": "voided"},
        {"outcome": "client_gone", "last": "7d"},
        {"error": "NO_SUCH_CODE"},
        {"q": "no-such-idempotency-key"},
        {"q": "sk-airi-zzzzzzzzzzzz"},
        {"model": "no-such-model", "user": HEAVY},
        {"unbilled": "yes", "user": HEAVY},
        {"unbilled": "yes", "model": "no-such-model"},
        {"failed": "yes", "user": HEAVY},
        {"failed": "yes", "model": "no-such-model"},
        {"failed": "yes", "last": "7d", "model": RARE_MODEL},
    ],
}


def cases(of: dict[type, list[dict[str, str]]]) -> list[Any]:
    return [
        pytest.param(model, query, id=f"{model.__name__} {query}")
        for model, queries in of.items()
        for query in queries
    ]


@pytest.fixture
def root(client: Client) -> Client:
    client.force_login(accounts.user(is_staff=True, is_superuser=True))
    return client


@contextmanager
def recorded() -> Iterator[list[tuple[str, Any]]]:
    """Collect every statement that is sent meanwhile."""
    sent: list[tuple[str, Any]] = []

    def note(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        sent.append((sql, params))
        return execute(sql, params, many, context)

    with connection.execute_wrapper(note):
        yield sent


def explain(sql: str, params: Any) -> dict[str, Any]:
    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {sql}", params)
        found = cursor.fetchone()[0]
    plan: dict[str, Any] = (orjson.loads(found) if isinstance(found, str) else found)[0]["Plan"]
    return plan


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", []):
        yield from nodes(child)


def cost_of(client: Client, address: str, query: dict[str, str]) -> tuple[int, list[str], int]:
    """Open a page; return its statements, the big tables it scans, and the pages it touches."""
    with recorded() as sent:
        answer = client.get(address, query)
    assert answer.status_code == 200, answer
    plans = [explain(sql, params) for sql, params in sent if is_read(sql)]
    scanned = [
        node["Relation Name"]
        for plan in plans
        for node in nodes(plan)
        if node["Node Type"] == "Seq Scan" and node["Relation Name"] in BIG
    ]
    buffers = sum(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] for plan in plans)
    return len(sent), scanned, buffers


def is_scan(node: dict[str, Any]) -> bool:
    return node["Node Type"].endswith("Seq Scan") and node["Relation Name"] in BIG


def is_read(sql: str) -> bool:
    return sql.lstrip().startswith(("SELECT", "WITH", "--"))


def listing(model: type) -> str:
    return reverse(f"admin:billing_{model.__name__.lower()}_changelist")


class TestLists:
    @pytest.mark.parametrize(("model", "query"), cases(DIRECT))
    def test_are_answered_by_an_index(self, root, model, query):
        statements, scanned, buffers = cost_of(root, listing(model), query)

        assert statements <= MAX_STATEMENTS
        assert scanned == []
        assert buffers <= FEW

    @pytest.mark.parametrize(("model", "query"), cases(WALKS))
    def test_look_through_no_more_than_a_slice(self, root, model, query):
        statements, scanned, buffers = cost_of(root, listing(model), query)

        assert statements <= MAX_STATEMENTS
        assert scanned == []
        assert buffers <= WALK

    @pytest.mark.parametrize("lookup", ["description__contains", "user_id__startswith", "o"])
    def test_leave_out_what_no_index_answers(self, root, lookup):
        statements, scanned, buffers = cost_of(root, listing(FluxTransaction), {lookup: "2"})

        answer = root.get(listing(FluxTransaction), {lookup: "2"})
        newest = list(answer.context["cl"].result_list)[:2]
        assert newest[0].pk > newest[1].pk
        assert statements <= MAX_STATEMENTS
        assert scanned == []
        assert buffers <= FEW

    def test_lead_to_rare_rows_a_slice_at_a_time(self, root):
        found, address, pages = [], f"?model={RARE_MODEL}", 0
        while address:
            changes = root.get(listing(LLMRequestLog) + address).context["cl"]
            found += changes.result_list
            address = changes.onward_url
            pages += 1

        assert len(found) == 10
        assert pages <= 1 + 1_000_000 // paging.SLICE
        assert {row.model for row in found} == {RARE_MODEL}

    def test_show_exactly_the_rows_of_a_time(self, root):
        end = datetime.now(UTC) - timedelta(days=20)
        begin = end - timedelta(minutes=2)
        query = {"from": begin.isoformat(), "to": end.isoformat()}

        entries = root.get(listing(FluxTransaction), query).context["cl"].result_list
        requests = root.get(listing(LLMRequestLog), query).context["cl"].result_list

        expected = FluxTransaction.objects.filter(created_at__gte=begin, created_at__lt=end)
        assert {row.pk for row in entries} == set(expected.values_list("pk", flat=True))
        opened = LLMRequestLog.objects.filter(opened_at__gte=begin, opened_at__lt=end)
        assert {row.pk for row in requests} == set(opened.values_list("pk", flat=True))
        assert len(entries) > 10

    def test_of_prices_open_too(self, root):
        statements, scanned, _ = cost_of(root, listing(PriceVersion), {})

        assert (statements <= MAX_STATEMENTS, scanned) == (True, [])


class TestPages:
    @pytest.mark.parametrize("user_id", [HEAVY, LIGHT])
    def test_an_account_opens_through_indexes(self, root, user_id):
        address = reverse("admin:billing_fluxaccount_change", args=[user_id])

        statements, scanned, buffers = cost_of(root, address, {})

        assert statements <= 2 * MAX_STATEMENTS
        assert scanned == []
        assert buffers <= FEW

    @pytest.mark.parametrize("model", ["chat-default", RARE_MODEL, "no-such-model", ""])
    def test_a_price_is_compared_through_indexes(self, model):
        price = prices.priced(prices.in_force(model))

        with recorded() as sent:
            found = prices.repriced(model, old=price, new=price)
        plans = [explain(sql, params) for sql, params in sent]

        # The rare ones are in the oldest tenth of the table, and only the newest is looked through.
        rare = (RARE_MODEL, "no-such-model")
        assert found.requests == (0 if model in rare else prices.SAMPLE)
        assert found.before == found.after
        assert [n for plan in plans for n in nodes(plan) if is_scan(n)] == []
        assert sum(each["Shared Hit Blocks"] + each["Shared Read Blocks"] for each in plans) <= WALK

    @pytest.mark.parametrize("model", [FluxTransaction, LLMRequestLog])
    def test_a_row_opens_through_indexes(self, root, model):
        newest = model.objects.order_by("-pk")[5_000]
        address = reverse(f"admin:billing_{model.__name__.lower()}_change", args=[newest.pk])

        statements, scanned, buffers = cost_of(root, address, {})

        assert statements <= 2 * MAX_STATEMENTS
        assert scanned == []
        assert buffers <= FEW
