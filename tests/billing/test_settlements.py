"""What a settlement sends to the database: the facts of its request, and what they cost."""

from __future__ import annotations

import base64
from decimal import Decimal
from typing import Any

import orjson
import pytest

from airi_server.kernel import ids
from billing.pricing import MICRO, Price, TokenSource, Usage
from billing.requests import SETTLE_SQL
from billing.settlements import MAX_REPORT_BYTES, RequestRecord, Settlement
from tests.factories import billing as make

PRICE = Price(
    version=7, input=1_000 * MICRO, output=2_000 * MICRO, cached=500 * MICRO, flat=90, minimum=1,
    usd_input=Decimal(3), usd_output=Decimal(15), usd_cached=Decimal("0.3"),
)  # fmt: skip
FAILURES = [{"upstream": "near", "reason": "429"}]


@pytest.fixture
def ticket():
    return RequestRecord(
        id=ids.uuid7(), user_id="mio", api_key_id="k", kind="chat", client_key="once",
        input_hash="ab" * 32, model="m", stream=True, price=PRICE, prompt_estimate=11,
        instance_id="here",
    )  # fmt: skip


class TestRow:
    def test_of_an_answer_has_every_fact_and_its_price(self, ticket):
        usage = Usage(100, 20, 40, TokenSource.REPORTED)

        row = Settlement(
            ticket, "completed", usage, completed=True, upstream="far", upstream_key_id="k-3",
            attempts=2, failures=FAILURES, status=200, duration_ms=1234, ttft_ms=56,
            result=b"{}",
        ).row()  # fmt: skip

        assert row == {
            "id": ticket.id, "user_id": "mio", "api_key_id": "k", "kind": "chat",
            "client_key": "once", "input_hash": "ab" * 32, "model": "m", "stream": True,
            "price_version": 7, "prompt_estimate": 11, "instance_id": "here",
            "state": "settled", "charge": 60 + 20 + 40, "upstream": "far",
            "upstream_key_id": "k-3", "attempts": 2, "failures": FAILURES, "status": 200,
            "prompt_tokens": 100, "completion_tokens": 20, "cached_tokens": 40,
            "usage_source": "reported", "reported": None, "cost_usd": "0.000492000",
            "outcome": "completed",
            "error_code": None, "duration_ms": 1234, "ttft_ms": 56,
            "result": base64.b64encode(b"{}").decode(),
        }  # fmt: skip

    def test_of_nothing_delivered_is_voided_and_free(self, ticket):
        row = Settlement(ticket, "failed", status=502, error_code="BAD_GATEWAY").row()

        free = {
            "state": "voided", "charge": 0, "prompt_tokens": None, "completion_tokens": None,
            "cached_tokens": None, "usage_source": "none", "cost_usd": None, "failures": None,
            "result": None, "error_code": "BAD_GATEWAY", "status": 502, "duration_ms": 0,
            "ttft_ms": None, "attempts": 0,
        }  # fmt: skip
        assert free.items() <= row.items()

    def test_of_an_empty_answer_keeps_it(self, ticket):
        assert Settlement(ticket, "completed", Usage(1, 0), result=b"").row()["result"] == ""

    @pytest.mark.parametrize(("completed", "charge"), [(True, 90), (False, 12)])
    def test_only_a_whole_answer_costs_the_flat_price(self, ticket, completed, charge):
        usage = Usage(10, 1, source=TokenSource.ESTIMATED)

        assert Settlement(ticket, "x", usage, completed=completed).row()["charge"] == charge


DEEP: dict[str, Any] = {}
for _ in range(5_000):
    DEEP = {"a": DEEP}


class TestReported:
    def test_is_kept_as_it_was_sent(self, ticket):
        report = {"prompt_tokens": 12, "details": {"cached": 1.5, "why": ["\u00e9", None]}}

        assert Settlement(ticket, "completed", reported=report).row()["reported"] == report

    @pytest.mark.parametrize(
        "report",
        [
            {"a": 10**30}, {"a": "\ud800"}, {"a\0": "\0"}, {"a": "x" * MAX_REPORT_BYTES},
            {"a": float("nan")}, DEEP,
        ],
        ids=["number", "surrogate", "nul", "long", "nan", "deep"],
    )  # fmt: skip
    def test_can_be_stored_whatever_it_is(self, ticket, report):
        kept = Settlement(ticket, "completed", reported=report).row()["reported"]

        text = orjson.dumps(kept)
        assert isinstance(kept, dict)
        assert len(text) <= MAX_REPORT_BYTES + 100
        assert b"\\u0000" not in text


@pytest.mark.django_db
class TestStored:
    @pytest.mark.parametrize(
        ("report", "kept"),
        [
            (None, None),
            ({"total_tokens": 7}, {"total_tokens": 7}),
            ({"a\0": "\0"}, {"a\ufffd": "\ufffd"}),
        ],
    )
    def test_the_statement_writes_it_beside_the_usage(self, report, kept):
        make.make_account(100, "mio")
        one = make.ticket("mio", make.price())
        make.open_one(one, 10)

        make.settle_one(make.settlement(one, 7, reported=report))

        assert make.request_of(one).reported == kept
        assert make.broken_here() == []

    def test_an_instance_that_does_not_know_it_yet_goes_on_settling(self):
        make.make_account(100, "mio")
        one = make.ticket("mio", make.price())
        make.open_one(one, 10)
        row = make.settlement(one, 7).row()
        del row["reported"]

        make.run(SETTLE_SQL, make._params([row]))

        settled = make.request_of(one)
        assert (settled.state, settled.reported) == ("settled", None)
