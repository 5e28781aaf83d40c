"""`reconcile-usage`: corrupt the books by SQL, once per invariant, and see the row named."""

from __future__ import annotations

from decimal import Decimal
from importlib import resources
from typing import Any

import pytest
from django.db import OperationalError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from accounts import users
from airi_server.runtime import audit
from billing import adjustments, grants, ledger, pricing, reconciliation
from billing.models import FluxAccount
from billing.pricing import TokenSource, Usage
from tests.billing.corruption import corrupt
from tests.factories import billing as make

VOID = (
    "UPDATE user_flux SET held = 0 WHERE user_id = 'mio';"
    "UPDATE llm_request_log SET state = 'voided', settled_at = now(), outcome = 'failed', {}"
    " WHERE state = 'open'"
)
"""End the request that waits without a charge, and say something about it that cannot be."""
AUDITED = (
    "INSERT INTO audit_entry (at, actor_id, actor, action, subject_kind, subject_id, sentence,"
    " facts, request_id) SELECT now(), '', 'op', 'billing.grant_flux', 'billing.fluxaccount',"
    " 'mio', 'x', jsonb_build_object('entry', {}, 'amount', 8), '' FROM flux_transaction"
    " WHERE request_id = 'c'"
)
PERSON = (
    "INSERT INTO flux_grant (description, granted_by, granted_at) VALUES ('d', 'op', now());"
    "INSERT INTO flux_grant_person"
    " (grant_id, position, user_id, amount, result, error, entry_id, at)"
    " SELECT max(g.id), 0, '{}', {}, 'granted', '', t.id, now()"
    " FROM flux_grant g, flux_transaction t WHERE t.request_id = 'c' GROUP BY t.id"
)
"""Say of the credit, which is 9 Flux for Mio, that it was a grant to somebody."""
GRANTED = "UPDATE flux_transaction SET type = 'promo' WHERE request_id = 'c';" + AUDITED.format(
    "id"
).replace("8)", "9)")
CORRUPTIONS = {
    # what is done to the books: (SQL, the checks that must name it)
    "a balance changed by hand": (
        "UPDATE user_flux SET flux = flux + 1 WHERE user_id = 'mio'",
        {"I1 account", "I2 entry 4"},
    ),
    "an account gone": (
        "DELETE FROM user_flux WHERE user_id = 'mio'",
        {"I1 account", "I2 account", "I6 account"},
    ),
    "an entry gone": (
        "DELETE FROM flux_transaction WHERE user_id = 'mio' AND user_seq = 2",
        {"I1 account", "I2 account", "I2 entry 3"},
    ),
    "all entries gone": (
        "DELETE FROM flux_transaction WHERE user_id = 'ria'",
        {"I1 account", "I2 account"},
    ),
    "a hole in the sequence": (
        "UPDATE flux_transaction SET user_seq = 5 WHERE user_id = 'mio' AND user_seq = 4",
        {"I2 account"},
    ),
    "a sequence that runs ahead": (
        "UPDATE user_flux SET ledger_seq = ledger_seq + 1 WHERE user_id = 'mio'",
        {"I2 account"},
    ),
    "history moved up by one": (
        (
            "UPDATE flux_transaction SET balance_before = balance_before + 1,"
            " balance_after = balance_after + 1 WHERE user_id = 'mio' AND user_seq = 3"
        ),
        {"I2 entry 3", "I2 entry 4"},
    ),
    "a trigger switched off": (
        "ALTER TABLE flux_transaction DISABLE TRIGGER flux_transaction_append_only",
        {"schema trigger flux_transaction_append_only of flux_transaction"},
    ),
    "a trigger dropped": (
        "DROP TRIGGER price_version_append_only ON price_version",
        {"schema trigger price_version_append_only of price_version"},
    ),
    "a reversal of something else": (
        (
            "UPDATE flux_transaction SET type = 'reversal', reverses_seq = 1"
            " WHERE user_id = 'mio' AND user_seq = 2"
        ),
        {"I3 entry 2"},
    ),
    "a key with two entries": (
        (
            "DROP INDEX flux_transaction_user_request_uniq;"
            "UPDATE flux_transaction SET request_id = 'k' WHERE user_id = 'ria'"
        ),
        {"I4 key k", "schema index flux_transaction_user_request_uniq of flux_transaction"},
    ),
    "an entry reversed twice": (
        (
            "DROP INDEX flux_transaction_reversed_once;"
            "UPDATE flux_transaction SET type = 'reversal', reverses_seq = 9"
            " WHERE user_id = 'mio' AND amount > 0"
        ),
        {
            "I4 entry 9",
            "schema index flux_transaction_reversed_once of flux_transaction",
            "I3 entry 2",
        },
    ),
    "a client key with two requests": (
        (
            "DROP INDEX llm_request_log_client_key_uniq;"
            "UPDATE llm_request_log SET client_key = 'c' WHERE user_id = 'mio'"
        ),
        {
            "I4 client key c (chat)",
            "schema index llm_request_log_client_key_uniq of llm_request_log",
        },
    ),
    "more held than there is": (
        (
            "ALTER TABLE user_flux DROP CONSTRAINT user_flux_held_covered_unless_frozen;"
            "UPDATE user_flux SET held = 1000 WHERE user_id = 'mio'"
        ),
        {
            "I5 account",
            "schema constraint user_flux_held_covered_unless_frozen of user_flux",
            "I6 account",
        },
    ),
    "a balance below zero": (
        (
            "ALTER TABLE user_flux DROP CONSTRAINT user_flux_balance_not_negative;"
            "ALTER TABLE user_flux DROP CONSTRAINT user_flux_held_covered_unless_frozen;"
            "UPDATE user_flux SET flux = -1 WHERE user_id = 'mio'"
        ),
        {
            "I5 account",
            "schema constraint user_flux_balance_not_negative of user_flux",
            "I1 account",
        },
    ),
    "a hold nobody has": (
        "UPDATE user_flux SET held = 4 WHERE user_id = 'ria'",
        {"I6 account"},
    ),
    "an open request without a hold": (
        "UPDATE user_flux SET held = 0 WHERE user_id = 'mio'",
        {"I6 account"},
    ),
    "other tokens": (
        "UPDATE llm_request_log SET prompt_tokens = prompt_tokens + 1 WHERE id = %(settled)s",
        {"I7 request"},
    ),
    "no tokens": (
        "UPDATE llm_request_log SET prompt_tokens = NULL WHERE id = %(settled)s",
        {"I7 request"},
    ),
    "another price": (
        "UPDATE llm_request_log SET price_version = 0 WHERE id = %(settled)s",
        {"I7 request"},
    ),
    "a price rewritten": (
        "UPDATE price_version SET flux_per_1k_input = flux_per_1k_input + 1000",
        {"I7 request"},
    ),
    "a charge forgiven by hand": (
        "UPDATE llm_request_log SET flux_consumed = 0 WHERE id = %(settled)s",
        {"I7 request", "debits llm:"},
    ),
    "a debit taken from the ledger": (
        "DELETE FROM flux_transaction WHERE request_id = %(key)s",
        {"debits llm:", "key-spend key k", "I1 account"},
    ),
    "a debit of another size": (
        (
            "UPDATE flux_transaction SET amount = 4, balance_after = balance_before - 4"
            " WHERE request_id = %(key)s"
        ),
        {"debits llm:", "key-spend key k", "I1 account"},
    ),
    "a request taken from the log": (
        "DELETE FROM llm_request_log WHERE id = %(settled)s",
        {"debits llm:", "key-spend key k"},
    ),
    "a request opened again": (
        (
            "ALTER TABLE llm_request_log DROP CONSTRAINT llm_request_log_only_settled_rows_charge;"
            "UPDATE llm_request_log SET state = 'open', settled_at = NULL, outcome = NULL,"
            " usage_source = 'none' WHERE id = %(settled)s"
        ),
        {"debits llm:", "I6 account", "I7 request"},
    ),
    "a voided request with a checkpoint": (VOID.format("checkpoint = 3"), {"I9 request"}),
    "a voided request with tokens": (VOID.format("prompt_tokens = 0"), {"I9 request"}),
    "a voided request that sent a byte": (
        "ALTER TABLE llm_request_log DROP CONSTRAINT llm_request_log_first_byte_of_streams;"
        + VOID.format("first_byte_at = now()"),
        {"I9 request"},
    ),
    "a voided request with usage": (
        "ALTER TABLE llm_request_log DROP CONSTRAINT llm_request_log_only_settled_rows_have_usage;"
        + VOID.format("usage_source = 'reported'"),
        {"I9 request"},
    ),
    "a grant nobody audited": (
        "UPDATE flux_transaction SET type = 'promo' WHERE request_id = 'c'",
        {"I17 entry 3"},
    ),
    "an adjustment nobody audited": (
        "UPDATE flux_transaction SET type = 'admin_set' WHERE request_id = 'c'",
        {"I17 entry 3"},
    ),
    "a grant audited with another sum": (
        "UPDATE flux_transaction SET type = 'promo' WHERE request_id = 'c';" + AUDITED.format("id"),
        {"I17 entry 3"},
    ),
    "a grant audited of another entry": (
        "UPDATE flux_transaction SET type = 'promo' WHERE request_id = 'c';"
        + AUDITED.format("id + 1"),
        {"I17 entry 3", "I17 audit entry"},
    ),
    "a grant that no grant's row names": (GRANTED, {"I17 entry 3"}),
    "a grant that names another sum": (GRANTED + ";" + PERSON.format("mio", 8), {"I17 entry 3"}),
    "a grant that names somebody else": (
        GRANTED + ";" + PERSON.format("ria", 9),
        {"I17 entry 3"},
    ),
    "a person who was granted what is no grant": (PERSON.format("mio", 9), {"I17 person"}),
    "an audit entry without its grant": (AUDITED.format("-1"), {"I17 audit entry"}),
    "a part of a covered charge left unbilled": (
        "UPDATE llm_request_log SET flux_consumed = 5, unbilled = 2 WHERE id = %(settled)s",
        {"unbilled request", "debits llm:"},
    ),
    "a covered charge left unbilled": (
        (
            "UPDATE llm_request_log SET flux_consumed = 0, unbilled = 7 WHERE id = %(settled)s;"
            "DELETE FROM flux_transaction WHERE request_id = %(key)s"
        ),
        {"unbilled request"},
    ),
    "spending forgotten": ("DELETE FROM api_key_spend", {"key-spend key k"}),
    "spending invented": (
        "UPDATE api_key_spend SET flux = flux + 1",
        {"key-spend key k"},
    ),
}


@pytest.mark.django_db
class TestBrokenRows:
    @pytest.mark.parametrize("what", CORRUPTIONS)
    def test_names_what_breaks(self, books, what):
        statements, named = CORRUPTIONS[what]

        corrupt(statements, books)

        found = make.broken_here()
        for expected in named:
            assert any(line.startswith(expected) for line in found), (expected, found)
        assert all(": " in line for line in found)

    def test_every_check_is_proven_by_a_corruption(self):
        proven = {name.split()[0] for _, names in CORRUPTIONS.values() for name in names}
        checks = {invariant for invariant, _ in reconciliation.CHECKS}

        assert proven == checks | {reconciliation.SCHEMA}

    def test_every_statement_that_checks_is_asked(self):
        files = (resources.files("billing") / "sql").iterdir()
        names = [file.name[6:-4] for file in files if file.name.startswith("check_")]

        there = {reconciliation._check(name) for name in names}

        assert there == {sql for _, sql in reconciliation.CHECKS}

    def test_names_only_the_user_it_is_asked_about(self, books):
        corrupt("UPDATE user_flux SET flux = flux + 1", books)

        assert {line.user_id for line in reconciliation.broken_rows()} == {"mio", "ria"}
        scope = reconciliation.CheckScope(user_id="ria")
        assert {line.user_id for line in reconciliation.broken_rows(scope)} == {"ria"}

    def test_skips_what_was_before(self, books):
        corrupt(CORRUPTIONS["other tokens"][0], books)
        corrupt(CORRUPTIONS["a reversal of something else"][0], books)
        now = make.run("SELECT clock_timestamp()", {})[0][0]

        since = [reconciliation.CheckScope(since=at) for at in (make.NOW, now)]

        found = [{line.invariant for line in reconciliation.broken_rows(scope)} for scope in since]
        assert found == [{"I3", "I7"}, set()]


@pytest.mark.django_db
class TestHonestBooks:
    def test_what_operators_did_is_audited(self, books):
        by = audit.Actor("op@example.com", user_id="op")
        users.create(email="mio@example.com", password=None, verified=True, at=make.NOW)
        order = grants.GrantOrder.of(["mio@example.com"], 5, "welcome", key="w")
        told: dict[str, Any] = {"by": by, "at": make.NOW}

        grants.apply(order, **told)
        grants.apply(order, **told)
        for _ in range(2):
            ledger.grant(user_id="mio", amount=5, request_id="g", description="a gift", **told)
        adjustments.adjust(
            user_id="mio", change=-3, expected_seq=5, reason="a mistake", key="a", **told
        )

        assert make.broken_here() == []

    @pytest.mark.parametrize(("balance", "unbilled"), [(3, 4), (0, 7)])
    def test_a_frozen_account_without_its_hold_leaves_some_unbilled(self, balance, unbilled):
        make.make_account(10, "mio")
        one = make.ticket("mio", make.price())
        make.open_one(one, 10)
        taken: dict[str, Any] = {"user_id": "mio", "description": "", "at": make.NOW}
        FluxAccount.objects.update(frozen=True, held=0)
        ledger.adjust(change=balance - 10, request_id="chargeback", **taken)
        FluxAccount.objects.update(held=10)

        charged = make.settle_one(make.settlement(one, 7))

        assert (charged.charged, charged.unbilled) == (balance, unbilled)
        assert [line.split()[0] for line in make.broken_here()] == ["I17"]  # nobody audited it


@pytest.mark.django_db
class TestLimit:
    def test_is_for_all_checks_together(self, monkeypatch):
        slow = "SELECT 'mio', 'account', 'slow' FROM pg_sleep(0.4)"
        monkeypatch.setattr(reconciliation, "CHECKS", (("I1", slow), ("I2", slow)))

        found = reconciliation.broken_rows(limit_s=0.6)

        assert next(found).invariant == "I1"
        with pytest.raises(OperationalError, match="statement timeout"):
            next(found)

    def test_that_is_over_still_asks_and_is_refused(self, monkeypatch):
        slow = "SELECT 'mio', 'account', 'slow' FROM pg_sleep(5)"
        monkeypatch.setattr(reconciliation, "CHECKS", (("I1", slow),))

        with pytest.raises(OperationalError, match="statement timeout"):
            next(reconciliation.broken_rows(limit_s=0))


RATES = st.integers(0, 10**12).map(lambda micro: Decimal(micro).scaleb(-6))
TOKENS = st.integers(0, pricing.MAX_TOKENS)


@pytest.mark.django_db
class TestCharges:
    @given(
        rates=st.tuples(RATES, RATES, RATES),
        usage=st.tuples(TOKENS, TOKENS, TOKENS).filter(lambda usage: usage[2] <= usage[0]),
        whole=st.tuples(st.integers(0, 50), st.integers(0, 3)),
        source=st.sampled_from(
            [source for source in TokenSource if source is not TokenSource.NONE]
        ),
        completed=st.booleans(),
    )
    @settings(
        max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    def test_are_computed_in_sql_as_in_python(self, rates, usage, whole, source, completed):
        columns = ("flux_per_1k_input", "flux_per_1k_output", "flux_per_1k_cached")
        price = make.price(
            **dict(zip(columns, rates, strict=True)),
            flux_per_request=whole[0],
            minimum_flux=whole[1],
        )
        user_id = make.make_account(0)
        one = make.ticket(user_id, price)
        make.settle_one(
            make.settlement(
                one,
                0,
                usage=Usage(usage[0], usage[1], usage[2], source),
                completed=completed,
                outcome="completed" if completed else "client_gone",
            )
        )

        assert make.broken_here(user_id) == []
        corrupt(
            "UPDATE llm_request_log SET unbilled = unbilled + 1 WHERE user_id = %(user_id)s",
            {"user_id": user_id},
        )
        assert [line.split()[0] for line in make.broken_here(user_id)] == ["I7"]
