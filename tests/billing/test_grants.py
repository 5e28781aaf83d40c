"""Grants: who is paid and who is not, once for each person and key, whatever happens between."""

from __future__ import annotations

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from airi_server.runtime import audit
from billing import account_state, grants, ledger
from billing.grants import GrantOrder, GrantRefusal
from billing.models import FluxAccount, FluxTransaction
from tests.billing.test_ledger import at_once
from tests.factories import accounts
from tests.factories import billing as make

NOW = make.NOW
LATER = NOW.replace(hour=13)
RIA = audit.Actor("ria@example.com", user_id="ria")
NEARLY_FULL = 2**63 - 10
"""A balance that the database cannot add a grant to."""


def order(*emails, amount=100, key="k", description="welcome"):
    return GrantOrder.of(emails, amount, description, key)


def apply(*emails, by=RIA, at=NOW, **facts):
    return grants.apply(order(*emails, **facts), by=by, at=at)


def balance_of(user):
    return make.state_of(user.pk)[0]


def audited():
    return list(audit.AuditEntry.objects.order_by("id"))


@pytest.fixture
def people():
    """Ann has 50 Flux, Bob no account, Cyd's is deleted."""
    found = {name: accounts.user(email=f"{name}@x.io") for name in ("ann", "bob", "cyd")}
    make.make_account(50, found["ann"].pk)
    make.make_account(5, found["cyd"].pk, deleted_at=NOW)
    return found


@pytest.mark.django_db
class TestPreview:
    def test_sorts_everybody_in_the_order_of_the_input(self, people):
        plan = grants.preview(order("bob@x.io", "no@x.io", "ann@x.io", "BOB@x.io", "cyd@x.io"))

        assert [(each.email, each.refusal) for each in plan.recipients] == [
            ("bob@x.io", None),
            ("no@x.io", GrantRefusal.NOT_FOUND),
            ("ann@x.io", None),
            ("BOB@x.io", GrantRefusal.DUPLICATE),
            ("cyd@x.io", GrantRefusal.DELETED),
        ]
        assert [each.user_id for each in plan.refused(GrantRefusal.DELETED)] == [people["cyd"].pk]
        assert (plan.total_flux, plan.flux_to_move) == (200, 200)
        assert not FluxAccount.objects.filter(user_id=people["bob"].pk).exists()
        assert audited() == []

    def test_finds_people_whatever_the_case_on_either_side(self):
        dee = accounts.user(email="Dee.Mixed@X.io")

        plan = grants.preview(order("dEE.mixed@x.IO"))

        assert [each.user_id for each in plan.will_grant] == [dee.pk]

    def test_an_unknown_address_named_twice_is_a_duplicate_too(self):
        plan = grants.preview(order("no@x.io", "NO@x.io"))

        assert [each.refusal for each in plan.recipients] == [
            GrantRefusal.NOT_FOUND,
            GrantRefusal.DUPLICATE,
        ]

    def test_names_who_has_the_key_already(self, people):
        apply("ann@x.io", amount=30)

        plan = grants.preview(order("ann@x.io", "bob@x.io"))

        (earlier,) = [each.earlier for each in plan.recipients if each.earlier]
        assert (earlier.amount, earlier.posted_at, earlier.replayed) == (30, NOW, True)
        assert (plan.total_flux, plan.flux_to_move) == (200, 100)
        assert grants.preview(order("ann@x.io", key="other")).paid_before == []
        assert grants.preview(order("ann@x.io", key=None)).paid_before == []

    def test_takes_three_statements_for_200(self, django_assert_num_queries, people):
        emails = [f"nobody{number}@x.io" for number in range(198)]

        # users; closed accounts; what the key gave before
        with django_assert_num_queries(3):
            plan = grants.preview(order("ann@x.io", *emails, "bob@x.io"))

        assert len(plan.will_grant) == 2


@pytest.mark.django_db
class TestApply:
    def test_pays_and_records_who_and_why(self, people):
        result = apply("ann@x.io", "bob@x.io", "cyd@x.io", "no@x.io")

        assert [(who.email, posting.balance_after) for who, posting in result.granted] == [
            ("ann@x.io", 150),
            ("bob@x.io", 100),
        ]
        assert (result.failed, result.flux_moved) == ([], 200)
        ann = people["ann"].pk
        entry = make.entries_of(ann)[-1]
        assert (entry.kind, entry.amount, entry.description) == ("promo", 100, "welcome")
        assert entry.request_id == f"flux-grant:k:{ann}"
        assert entry.metadata == {
            "description": "welcome",
            "issuedByUserId": "ria",
            "idempotencyKey": "k",
        }
        row = audited()[0]
        assert (row.actor, row.actor_id, row.action) == (RIA, "ria", "billing.grant_flux")
        assert (row.subject_kind, row.subject_id) == ("billing.fluxaccount", ann)
        assert row.sentence == "Granted 100 Flux: welcome"
        assert row.facts == {
            "amount": 100,
            "balanceAfter": 150,
            "entry": entry.pk,
            "key": "k",
            "source": "admin_promo",
        }
        assert len(audited()) == 2
        assert make.state_of(people["cyd"].pk) == (5, 0)
        assert make.broken_here() == []

    def test_again_with_the_key_reports_the_same_and_moves_nothing(self, people):
        first = apply("ann@x.io", "bob@x.io")
        ledger.credit(user_id=people["ann"].pk, amount=7, request_id=None, description="", at=NOW)

        again = apply("ann@x.io", "bob@x.io", at=LATER)

        assert [posting.balance_after for _, posting in again.granted] == [150, 100]
        assert [posting.entry_id for _, posting in again.granted] == [
            posting.entry_id for _, posting in first.granted
        ]
        assert {posting.posted_at for _, posting in again.granted} == {NOW}
        assert (again.flux_moved, len(audited())) == (0, 2)
        assert balance_of(people["ann"]) == 157
        assert make.broken_here() == []

    def test_another_amount_or_reason_under_the_key_changes_nothing(self, people):
        apply("ann@x.io", amount=100)

        again = apply("ann@x.io", amount=999, description="more")

        ((_, posting),) = again.granted
        assert (posting.amount, posting.balance_after, posting.replayed) == (100, 150, True)
        assert (again.flux_moved, again.failed, len(audited())) == (0, [], 1)
        assert balance_of(people["ann"]) == 150

    def test_an_entry_under_the_key_that_is_no_grant_still_comes_back(self, people):
        ann = people["ann"].pk
        ledger.credit(
            user_id=ann, amount=9, request_id=f"flux-grant:k:{ann}", description="", at=NOW
        )

        ((_, posting),) = apply("ann@x.io").granted

        assert (posting.amount, balance_of(people["ann"])) == (9, 59)

    def test_without_a_key_each_call_pays(self, people):
        apply("ann@x.io", key=None)
        apply("ann@x.io", key=None)

        assert balance_of(people["ann"]) == 250
        entry = make.entries_of(people["ann"].pk)[-1]
        assert entry.request_id is None
        assert entry.metadata == {"description": "welcome", "issuedByUserId": "ria"}

    def test_an_empty_key_is_a_key(self, people):
        apply("ann@x.io", key="")
        apply("ann@x.io", key="")

        assert balance_of(people["ann"]) == 150
        entry = make.entries_of(people["ann"].pk)[-1]
        assert (entry.metadata or {})["idempotencyKey"] == ""

    def test_a_credit_that_fails_stops_nobody_else(self, people, caplog):
        make.make_account(NEARLY_FULL, people["bob"].pk)

        result = apply("bob@x.io", "ann@x.io")

        assert [who.email for who, _ in result.granted] == ["ann@x.io"]
        (failed,) = result.failed
        assert (failed.recipient.email, failed.recipient.user_id) == ("bob@x.io", people["bob"].pk)
        assert failed.error == grants.FAILED
        assert "out of range" in caplog.text
        assert make.state_of(people["bob"].pk) == (NEARLY_FULL, 0)
        assert [row.subject_id for row in audited()] == [people["ann"].pk]
        assert make.broken_here() == []

    def test_what_cannot_be_audited_is_not_paid(self, people):
        nameless = audit.Actor("x" * 300, user_id="ria")

        (failed,) = apply("ann@x.io", by=nameless).failed

        assert failed.error == grants.FAILED
        assert balance_of(people["ann"]) == 50

    def test_out_of_time_the_rest_is_not_tried(self, people, monkeypatch):
        monkeypatch.setattr(grants, "BUDGET_S", -1.0)

        result = apply("ann@x.io", "no@x.io")

        assert [(each.recipient.email, each.error) for each in result.outcomes] == [
            ("ann@x.io", grants.NOT_TRIED),
            ("no@x.io", ""),
        ]
        assert balance_of(people["ann"]) == 50

    def test_an_account_that_closes_after_it_was_looked_up_is_not_paid(self, people, monkeypatch):
        plan = grants.preview(order("ann@x.io", "bob@x.io"))
        account_state.close(user_id=people["ann"].pk, at=LATER)
        monkeypatch.setattr(grants, "preview", lambda _: plan)

        result = apply("ann@x.io", "bob@x.io")

        assert [(each.recipient.email, each.error) for each in result.failed] == [
            ("ann@x.io", "The account was deleted."),
        ]
        assert [who.email for who, _ in result.granted] == ["bob@x.io"]
        assert balance_of(people["ann"]) == 50
        assert [row.subject_id for row in audited()] == [people["bob"].pk]

    def test_pays_100_people_in_one_go(self):
        emails = [accounts.user().email for _ in range(100)]

        with CaptureQueriesContext(
            connection,
        ) as captured:
            result = apply(*emails)

        assert len(result.granted) == len({who.user_id for who, _ in result.granted}) == 100
        # each: open the account, lock it, look for the key, entry, balance, audit; savepoints
        assert len(captured) <= 3 + 100 * 14
        assert FluxTransaction.objects.filter(kind="promo").count() == 100
        assert len(audited()) == 100
        assert make.broken_here() == []


@pytest.mark.django_db(transaction=True)
class TestRaces:
    def test_the_same_order_at_the_same_instant_pays_everybody_once(self):
        emails = [accounts.user().email for _ in range(10)]

        results = at_once(4, lambda _: apply(*emails))

        assert [len(result.granted) for result in results] == [10] * 4
        assert sum(result.flux_moved for result in results) == 1000
        assert set(FluxAccount.objects.values_list("balance", flat=True)) == {100}
        assert len(audited()) == 10
        with transaction.atomic():
            assert make.broken_here() == []

    def test_orders_that_differ_under_one_key_pay_everybody_once(self):
        emails = [accounts.user().email for _ in range(5)]

        results = at_once(4, lambda n: apply(*emails[:: 1 if n % 2 else -1], amount=10 + n))

        assert all(result.failed == [] for result in results)
        assert FluxTransaction.objects.filter(kind="promo").count() == 5
        assert len(audited()) == 5
        with transaction.atomic():
            assert make.broken_here() == []
