"""Adjustments: posted only on the ledger the operator saw, and once for each form."""

from __future__ import annotations

import pytest
from django.db import transaction

from airi_server.kernel.errors import Conflict, NotFound
from airi_server.runtime import audit
from billing import adjustments, ledger
from billing.models import FluxAccount, FluxTransaction
from tests.billing.test_ledger import at_once, credit
from tests.factories import billing as make

NOW = make.NOW
RIA = audit.Actor("ria@example.com", user_id="ria")


def adjust(change=-30, *, seq=2, key="k", user_id="mio", reason="double charge"):
    return adjustments.adjust(
        user_id=user_id,
        change=change,
        expected_seq=seq,
        reason=reason,
        key=key,
        by=RIA,
        at=NOW,
    )


def post(change):
    return ledger.adjust(user_id="mio", change=change, request_id="k", description="", at=NOW)


@pytest.fixture
def mio(db):
    """Two entries: the opening grant and a credit of 100."""
    return make.make_account(100, "mio")


@pytest.mark.usefixtures("mio")
class TestAdjust:
    @pytest.mark.parametrize(("change", "after"), [(-30, 70), (25, 125), (-100, 0)])
    def test_posts_one_entry_with_its_audit_row(self, change, after):
        posting = adjust(change)

        assert (posting.balance_before, posting.balance_after) == (100, after)
        entry = make.entries_of("mio")[-1]
        assert (entry.kind, entry.amount, entry.description) == (
            "admin_set",
            abs(change),
            "double charge",
        )
        assert entry.metadata == {"description": "double charge", "issuedByUserId": "ria"}
        row = audit.AuditEntry.objects.get()
        assert (row.action, row.actor, row.subject_id) == ("billing.adjust_flux", RIA, "mio")
        assert row.sentence == f"Adjusted the balance by {change:+d} to {after}: double charge"
        assert row.facts == {
            "change": change,
            "balanceBefore": 100,
            "balanceAfter": after,
            "entry": posting.entry_id,
        }
        assert make.broken_here() == []

    def test_twice_with_one_key_is_once_though_the_ledger_moved_by_it(self):
        first, again = adjust(), adjust()

        assert (again.entry_id, again.replayed) == (first.entry_id, True)
        assert make.state_of("mio") == (70, 0)
        assert audit.AuditEntry.objects.count() == 1

    @pytest.mark.parametrize("other", [30, -31])
    def test_one_key_with_another_change_is_refused(self, other):
        adjust(-30)

        with pytest.raises(adjustments.FormUsed):
            adjust(other, seq=3)
        assert make.state_of("mio") == (70, 0)

    def test_a_ledger_that_moved_is_refused_and_the_new_balance_named(self):
        credit("mio", 50, "stripe:evt_1")

        with pytest.raises(adjustments.LedgerMoved, match="150 Flux now") as refused:
            adjust()

        assert refused.value.details == {"balance": 150, "ledgerSeq": 3}
        assert (refused.value.account.balance, refused.value.account.ledger_seq) == (150, 3)
        assert make.state_of("mio") == (150, 0)
        assert not audit.AuditEntry.objects.exists()

    def test_what_is_held_or_not_there_is_not_taken(self):
        make.open_one(make.ticket("mio", make.price()), 40)

        with pytest.raises(ledger.BalanceTooLow):
            adjust(-61)
        assert adjust(-60).balance_after == 40
        assert make.broken_here() == []

    def test_a_deleted_or_unknown_account_is_left_alone(self):
        make.make_account(5, "ria", deleted_at=NOW)

        with pytest.raises(ledger.AccountClosed):
            adjust(1, user_id="ria")
        with pytest.raises(NotFound):
            adjust(1, user_id="nobody")

    def test_nothing_is_no_adjustment(self):
        with pytest.raises(ValueError, match="move something"):
            adjust(0)


@pytest.mark.django_db
class TestPosting:
    """`ledger.adjust`, as whoever has locked nothing may call it."""

    def test_again_is_a_replay_and_the_other_sign_a_conflict(self):
        make.make_account(100, "mio")
        post(-5)

        assert post(-5).replayed
        with pytest.raises(Conflict):
            post(5)
        assert make.state_of("mio") == (95, 0)

    def test_opens_no_account(self):
        with pytest.raises(NotFound):
            post(5)

        assert not FluxAccount.objects.exists()


@pytest.mark.django_db(transaction=True)
class TestRaces:
    def test_a_double_click_posts_once_and_two_operators_do_not_both_win(self):
        make.make_account(100, "mio")

        clicks = at_once(8, lambda _: adjust(-30))

        assert sorted(click.replayed for click in clicks) == [False] + [True] * 7
        assert make.state_of("mio") == (70, 0)

        outcomes = at_once(8, lambda number: adjust_or_refuse(f"form{number}"))

        assert sorted(outcomes) == ["posted"] + ["refused"] * 7
        assert make.state_of("mio") == (60, 0)
        assert FluxTransaction.objects.filter(kind="admin_set").count() == 2
        assert audit.AuditEntry.objects.count() == 2
        with transaction.atomic():
            assert make.broken_here() == []


def adjust_or_refuse(key):
    try:
        adjust(-10, seq=3, key=key)
    except adjustments.LedgerMoved:
        return "refused"
    return "posted"
