"""Every constraint of the money tables by name, in the database and not in Python."""

from __future__ import annotations

import re

import pytest
from django.apps import apps
from django.db import IntegrityError, connection, models, transaction

from airi_server.kernel import ids
from billing import pricing
from billing.models import (
    MAX_TOKENS,
    APIKeySpend,
    FluxAccount,
    FluxTransaction,
    LLMRequestLog,
    LLMRequestResult,
    PriceVersion,
    RefusalHour,
    RefusedRequest,
)
from billing.reconciliation_runs import ReconciliationRun
from billing.requests import MAX_RESULT_BYTES
from billing.usage.models import MAX_MESSAGE, MAX_MODEL
from tests.factories import billing as make

pytestmark = pytest.mark.django_db
NOW = make.NOW


def account(**columns):
    return FluxAccount(**{"user_id": "mio", "balance": 9, "updated_at": NOW, **columns})


def entry(**columns):
    ordinary = {
        "user_id": "mio",
        "user_seq": 1,
        "kind": "credit",
        "amount": 3,
        "balance_before": 0,
        "balance_after": 3,
        "description": "test",
        "created_at": NOW,
    }
    return FluxTransaction(**{**ordinary, **columns})


def refused(**columns):
    ordinary = {
        "id": ids.uuid7(), "user_id": "mio", "api_key_id": "", "model": "m" * MAX_MODEL,
        "kind": "chat", "status": 402, "code": "X", "message": "é" * MAX_MESSAGE, "at": NOW,
    }  # fmt: skip
    return RefusedRequest(**{**ordinary, **columns})


def refusals(count):
    return RefusalHour(
        user_id="", hour=NOW, api_key_id="", model="", code="X", status=401, count=count,
        first_at=NOW, last_at=NOW,
    )  # fmt: skip


def request(**columns):
    ordinary = {
        "id": ids.uuid7(),
        "user_id": "mio",
        "kind": "chat",
        "state": "open",
        "hold": 1,
        "model": "m",
        "stream": False,
        "prompt_estimate": 1,
        "price_version": 1,
        "instance_id": "i",
        "opened_at": NOW,
        "deadline_at": NOW,
    }
    return LLMRequestLog(**{**ordinary, **columns})


def run(**columns):
    counts = {"duration_ms": 0, "broken": 0, "orphans": 0}
    return ReconciliationRun(**{"at": NOW, "by": "op", **counts, **columns})


def settled(**columns):
    ordinary = {"state": "settled", "settled_at": NOW, "outcome": "completed"}
    return request(**{**ordinary, "usage_source": "reported", **columns})


def voided(**columns):
    return settled(**{"state": "voided", "outcome": "failed", "usage_source": "none", **columns})


def streaming(**columns):
    return request(**{"state": "streaming", "first_byte_at": NOW, **columns})


def spend(**columns):
    return APIKeySpend(**{"user_id": "mio", "api_key_id": "k", "day": NOW, "flux": 1, **columns})


def answer(**columns):
    ordinary = {"request": ids.uuid7(), "user_id": "mio", "body": b"", "created_at": NOW}
    return LLMRequestResult(**{**ordinary, **columns})


def price(**columns):
    rates = dict.fromkeys(
        ("flux_per_1k_input", "flux_per_1k_output", "flux_per_1k_cached", "flux_per_request"), 1
    )
    return PriceVersion(**{**rates, "created_by": "t", "created_at": NOW, **columns})


REFUSED = [
    ("user_flux_balance_not_negative", [account(balance=-1)]),
    ("user_flux_held_and_seq_not_negative", [account(held=-1)]),
    ("user_flux_held_and_seq_not_negative", [account(ledger_seq=-1)]),
    ("user_flux_held_covered_unless_frozen", [account(balance=1, held=2)]),
    ("flux_transaction_amount_positive", [entry(amount=0, balance_after=0)]),
    ("flux_transaction_amount_positive", [entry(amount=-3, balance_after=-3)]),
    ("flux_transaction_balance_adds_up", [entry(balance_after=4)]),
    ("flux_transaction_balance_adds_up", [entry(kind="debit", balance_before=1)]),
    ("flux_transaction_balance_adds_up", [entry(kind="promo", balance_before=6)]),
    ("flux_transaction_balance_adds_up", [entry(kind="admin_set", balance_after=1)]),
    (
        "flux_transaction_balance_not_negative",
        [entry(kind="debit", balance_before=0, balance_after=-3)],
    ),
    (
        "flux_transaction_balance_not_negative",
        [entry(balance_before=-3, balance_after=0)],
    ),
    ("flux_transaction_balance_adds_up", [entry(kind="debit", amount=-3)]),
    ("flux_transaction_balance_adds_up", [entry(kind="initial", amount=-3, balance_after=-3)]),
    ("flux_transaction_balance_adds_up", [entry(kind="reversal", balance_after=2)]),
    ("flux_transaction_kind_known", [entry(kind="gift")]),
    ("flux_transaction_seq_positive", [entry(user_seq=0)]),
    ("flux_transaction_reversal_names_an_entry", [entry(kind="reversal")]),
    ("flux_transaction_reversal_names_an_entry", [entry(reverses_seq=1)]),
    ("flux_transaction_user_seq_uniq", [entry(), entry()]),
    (
        "flux_transaction_user_request_uniq",
        [entry(request_id="k"), entry(request_id="k", user_seq=2)],
    ),
    (
        "flux_transaction_reversed_once",
        [entry(kind="reversal", reverses_seq=9, user_seq=seq) for seq in (1, 2)],
    ),
    ("llm_request_log_state_known", [request(state="done")]),
    ("llm_request_log_closed_rows_say_when", [request(state="settled")]),
    ("llm_request_log_closed_rows_say_when", [request(settled_at=NOW)]),
    ("llm_request_log_closed_rows_say_when", [streaming(settled_at=NOW)]),
    ("llm_request_log_closed_rows_say_when", [voided(settled_at=None)]),
    ("llm_request_log_closed_rows_say_how", [settled(outcome=None)]),
    ("llm_request_log_closed_rows_say_how", [request(outcome="completed")]),
    ("llm_request_log_kind_known", [request(kind="chta")]),
    ("llm_request_log_outcome_known", [settled(outcome="fine")]),
    ("llm_request_log_usage_source_known", [settled(usage_source="guessed")]),
    ("llm_request_log_usage_source_known", [request(usage_source="")]),
    ("llm_request_log_first_byte_of_streams", [request(first_byte_at=NOW)]),
    ("llm_request_log_first_byte_of_streams", [streaming(first_byte_at=None)]),
    ("llm_request_log_first_byte_of_streams", [voided(first_byte_at=NOW)]),
    ("llm_request_log_only_settled_rows_charge", [request(flux_charged=1)]),
    ("llm_request_log_only_settled_rows_charge", [streaming(flux_charged=1)]),
    ("llm_request_log_only_settled_rows_charge", [voided(unbilled=1)]),
    ("llm_request_log_only_settled_rows_have_usage", [voided(usage_source="reported")]),
    ("llm_request_log_only_settled_rows_have_usage", [request(usage_source="estimated")]),
    ("llm_request_log_charge_not_negative", [settled(flux_charged=-1)]),
    ("llm_request_log_charge_not_negative", [settled(unbilled=-1)]),
    ("llm_request_log_charge_not_negative", [request(hold=-1)]),
    *(
        ("llm_request_log_counts_not_negative", [settled(**{count: -1})])
        for count in (
            "prompt_estimate",
            "prompt_tokens",
            "completion_tokens",
            "cached_tokens",
            "units",
            "checkpoint",
            "duration_ms",
            "ttft_ms",
            "attempts",
        )
    ),
    ("llm_request_log_cached_among_prompt", [settled(prompt_tokens=4, cached_tokens=5)]),
    ("llm_request_log_tokens_plausible", [settled(prompt_tokens=MAX_TOKENS + 1)]),
    ("llm_request_log_tokens_plausible", [settled(completion_tokens=MAX_TOKENS + 1)]),
    ("llm_request_log_status_of_http", [settled(status=99)]),
    ("llm_request_log_status_of_http", [voided(status=600)]),
    ("llm_request_log_cost_not_negative", [settled(provider_cost_usd=-1)]),
    ("llm_request_log_client_key_uniq", [request(client_key="k"), settled(client_key="k")]),
    ("api_key_spend_flux_positive", [spend(flux=0)]),
    ("price_version_rates_not_negative", [price(flux_per_1k_input=-1)]),
    ("price_version_rates_not_negative", [price(minimum_flux=-1)]),
    *(
        ("price_version_costs_not_negative", [price(**{f"usd_per_1m_{part}": -1})])
        for part in ("input", "output", "cached")
    ),
    ("price_version_has_a_publisher", [price(created_by="")]),
    ("llm_request_result_body_bounded", [answer(body=b"x" * (MAX_RESULT_BYTES + 1))]),
    ("reconciliation_run_counts_not_negative", [run(duration_ms=-1)]),
    ("reconciliation_run_counts_not_negative", [run(broken=-1)]),
    ("reconciliation_run_counts_not_negative", [run(orphans=-1)]),
    ("reconciliation_run_has_an_author", [run(by="")]),
    ("refused_request_is_of_a_user", [refused(user_id="")]),
    ("refused_request_status_refuses", [refused(status=399)]),
    ("refused_request_status_refuses", [refused(status=600)]),
    ("refused_request_is_short", [refused(message="é" * (MAX_MESSAGE + 1))]),
    ("refused_request_is_short", [refused(model="é" * (MAX_MODEL + 1))]),
    ("refusal_hour_count_positive", [refusals(0)]),
]


def drop_the_other_checks(row, kept):
    """Several checks may refuse one row: each has to do so alone. Rolled back with the test."""
    with connection.cursor() as cursor:
        for constraint in row._meta.constraints:
            if isinstance(constraint, models.CheckConstraint) and constraint.name != kept:
                cursor.execute(
                    f"ALTER TABLE {row._meta.db_table} DROP CONSTRAINT {constraint.name}"
                )


class TestConstraints:
    @pytest.mark.parametrize(("name", "rows"), REFUSED)
    def test_refuses_by_name(self, name, rows):
        drop_the_other_checks(rows[0], name)

        with pytest.raises(IntegrityError, match=f'"{name}"'), transaction.atomic():
            for row in rows:
                row.save(force_insert=True)

    def test_every_one_has_a_row_it_refuses(self):
        tables = apps.get_app_config("billing").get_models()
        named = {constraint.name for table in tables for constraint in table._meta.constraints}

        # Those of grants are in test_grant_rows.py, with the grants that they are about.
        rest = {name for name in named if not name.startswith("flux_grant")}
        assert rest == {name for name, _ in REFUSED}

    @pytest.mark.parametrize(
        "rows",
        [
            [account(balance=1, held=2, frozen=True)],
            [entry(kind="initial", amount=0, balance_after=0)],
            [entry(), entry(user_seq=2, balance_before=3, balance_after=6)],
            [entry(), entry(kind="admin_set", user_seq=2, balance_before=3, balance_after=0)],
            [
                entry(),
                entry(
                    kind="reversal", reverses_seq=1, user_seq=2, balance_before=3, balance_after=0
                ),
            ],
            [request(client_key="k"), voided(client_key="k")],
            [streaming(), settled(first_byte_at=NOW), settled(), voided(status=502)],
            [settled(prompt_tokens=MAX_TOKENS, completion_tokens=MAX_TOKENS, cached_tokens=0)],
            [settled(prompt_tokens=5, cached_tokens=5, status=599)],
            [price(usd_per_1m_input=0), answer(body=b"x" * MAX_RESULT_BYTES)],
            [request(client_key="k"), request(client_key="k", user_id="ria")],
            [request(client_key="k"), request(client_key="k", kind="tts")],
            [request(), request()],
            [refused(), refused(status=400, message="", model=""), refused(status=599)],
            [refusals(1)],
        ],
    )
    def test_lets_honest_rows_in(self, rows):
        for row in rows:
            row.save(force_insert=True)

    def test_an_answer_is_kept_once(self):
        kept = answer()
        kept.save(force_insert=True)

        with pytest.raises(IntegrityError, match="llm_request_result_pkey"), transaction.atomic():
            kept.save(force_insert=True)

    @pytest.mark.parametrize(
        ("constraint", "words"),
        [
            ("flux_transaction_kind_known", FluxTransaction.Kind),
            ("llm_request_log_state_known", LLMRequestLog.State),
            ("llm_request_log_kind_known", LLMRequestLog.Kind),
            ("llm_request_log_outcome_known", LLMRequestLog.Outcome),
            ("llm_request_log_usage_source_known", LLMRequestLog.UsageSource),
            ("llm_request_log_usage_source_known", pricing.TokenSource),
        ],
    )
    def test_know_the_words_that_the_code_knows(self, constraint, words):
        definition = make.run(
            "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = %(name)s",
            {"name": constraint},
        )[0][0]

        assert set(re.findall(r"[{,]([a-z_]+)(?=[,}])", definition)) == {
            str(each) for each in words
        }

    def test_take_as_many_tokens_as_reports_may_have(self):
        assert MAX_TOKENS == pricing.MAX_TOKENS


class TestAppendOnly:
    @pytest.mark.parametrize("table", ["flux_transaction", "price_version"])
    @pytest.mark.parametrize(
        "statement", ["UPDATE {} SET id = id", "DELETE FROM {}", "TRUNCATE {} CASCADE"]
    )
    @pytest.mark.parametrize("filled", [True, False])
    def test_the_database_refuses_to_rewrite(self, table, statement, filled):
        if filled:
            entry().save(force_insert=True)
            price().save(force_insert=True)

        with pytest.raises(IntegrityError, match=f"{table} is append-only"), transaction.atomic():
            with connection.cursor() as cursor:
                cursor.execute(statement.format(table))

    def test_so_does_the_orm(self):
        entry().save(force_insert=True)
        kept = FluxTransaction.objects.get()
        kept.amount = 4

        for rewrite in (kept.save, kept.delete, FluxTransaction.objects.all().delete):
            with pytest.raises(IntegrityError, match="append-only"), transaction.atomic():
                rewrite()

        with pytest.raises(IntegrityError, match="append-only"), transaction.atomic():
            FluxTransaction.objects.update(amount=models.F("amount") + 1)
