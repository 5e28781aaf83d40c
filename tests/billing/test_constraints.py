"""Every constraint of the money tables by name, in the database and not in Python."""

from __future__ import annotations

import pytest
from django.apps import apps
from django.db import IntegrityError, connection, models, transaction

from airi_server.kernel import ids
from billing.models import (
    APIKeySpend,
    FluxAccount,
    FluxTransaction,
    LLMRequestLog,
    LLMRequestResult,
    PriceVersion,
)
from billing.runs import ReconciliationRun
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
    return request(**{"state": "settled", "settled_at": NOW, **columns})


def spend(**columns):
    return APIKeySpend(**{"user_id": "mio", "api_key_id": "k", "day": NOW, "flux": 1, **columns})


def price(**columns):
    rates = dict.fromkeys(
        ("flux_per_1k_input", "flux_per_1k_output", "flux_per_1k_cached", "flux_per_request"), 1
    )
    return PriceVersion(**{**rates, "created_by": "t", "created_at": NOW, **columns})


REFUSED = [
    ("user_flux_balance_not_negative", [account(balance=-1)]),
    ("user_flux_held_not_negative", [account(held=-1)]),
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
    ("llm_request_log_only_settled_rows_charge", [request(flux_charged=1)]),
    (
        "llm_request_log_only_settled_rows_charge",
        [settled(state="voided", unbilled=1)],
    ),
    ("llm_request_log_charge_not_negative", [settled(flux_charged=-1)]),
    ("llm_request_log_charge_not_negative", [settled(unbilled=-1)]),
    ("llm_request_log_charge_not_negative", [request(hold=-1)]),
    ("llm_request_log_tokens_not_negative", [settled(prompt_tokens=-1)]),
    ("llm_request_log_tokens_not_negative", [settled(completion_tokens=-1)]),
    ("llm_request_log_client_key_uniq", [request(client_key="k"), settled(client_key="k")]),
    ("api_key_spend_flux_positive", [spend(flux=0)]),
    ("price_version_rates_not_negative", [price(flux_per_1k_input=-1)]),
    ("price_version_rates_not_negative", [price(minimum_flux=-1)]),
    ("reconciliation_run_counts_not_negative", [run(duration_ms=-1)]),
    ("reconciliation_run_counts_not_negative", [run(broken=-1)]),
    ("reconciliation_run_counts_not_negative", [run(orphans=-1)]),
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

        assert named == {name for name, _ in REFUSED}

    @pytest.mark.parametrize(
        "rows",
        [
            [account(balance=1, held=2, frozen=True)],
            [entry(kind="initial", amount=0, balance_after=0)],
            [entry(), entry(user_seq=2, balance_before=3, balance_after=6)],
            [entry(kind="admin_set", balance_before=3, balance_after=0)],
            [request(client_key="k"), settled(client_key="k", state="voided")],
            [request(client_key="k"), request(client_key="k", user_id="ria")],
            [request(client_key="k"), request(client_key="k", kind="tts")],
            [request(), request()],
        ],
    )
    def test_lets_honest_rows_in(self, rows):
        for row in rows:
            row.save(force_insert=True)

    def test_an_answer_is_kept_once(self):
        answer = {"request": ids.uuid7(), "user_id": "mio", "body": b"", "created_at": NOW}
        LLMRequestResult(**answer).save(force_insert=True)

        with pytest.raises(IntegrityError, match="llm_request_result_pkey"), transaction.atomic():
            LLMRequestResult(**answer).save(force_insert=True)


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
