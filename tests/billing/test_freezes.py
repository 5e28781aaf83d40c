"""Freezes: a frozen account opens nothing, what is open ends, and who did it stays known."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import transaction

from airi_server.kernel.errors import NotFound
from airi_server.runtime import audit
from billing import account_state, ledger
from billing.models import FluxAccount
from tests.billing.test_ledger import at_once
from tests.factories import billing as make

NOW = make.NOW
LATER = NOW + timedelta(hours=1)
RIA = audit.Actor("ria@example.com", user_id="ria")


def freeze(user_id="mio"):
    return account_state.freeze(user_id=user_id, reason="stolen card", by=RIA, at=LATER)


def thaw(user_id="mio"):
    return account_state.thaw(user_id=user_id, reason="card is theirs", by=RIA, at=NOW)


def audited():
    rows = audit.AuditEntry.objects.filter(action="billing.freeze_account").order_by("id")
    return [row.sentence for row in rows]


@pytest.fixture
def waiting(db):
    """Mio has 100 Flux, and a request open that holds 40."""
    make.make_account(100, "mio")
    ticket = make.ticket("mio", make.price())
    make.open_one(ticket, 40)
    return ticket


class TestFreeze:
    def test_refuses_new_requests_and_lets_open_ones_end(self, waiting):
        assert freeze()

        assert FluxAccount.objects.get(pk="mio").updated_at == LATER
        row = audit.AuditEntry.objects.get(action="billing.freeze_account")
        assert (row.actor, row.at, row.facts) == (RIA, LATER, {"balance": 100, "held": 40})
        assert make.open_one(make.ticket("mio", make.price()), 1)[0] == "frozen"
        assert make.settle_one(make.settlement(waiting, 7)).charged == 7
        assert make.state_of("mio") == (93, 0)
        assert audited() == ["Froze the account: stolen card"]
        assert make.broken_here() == []

    def test_twice_is_once(self, waiting):
        assert freeze()
        assert not freeze()

        assert len(audited()) == 1

    def test_thawed_it_opens_requests_again(self, waiting):
        freeze()

        assert thaw()
        assert not thaw()

        assert make.open_one(make.ticket("mio", make.price()), 1)[0] == "opened"
        assert audited()[1] == "Thawed the account: card is theirs"
        assert len(audited()) == 2
        assert make.broken_here() == []

    def test_what_owes_to_its_open_requests_stays_frozen(self, waiting):
        freeze()
        FluxAccount.objects.filter(pk="mio").update(balance=39)

        with pytest.raises(
            account_state.HoldsNotCovered, match="hold 40 Flux and the balance is 39"
        ):
            thaw()
        assert FluxAccount.objects.get(pk="mio").frozen
        FluxAccount.objects.filter(pk="mio").update(balance=40)
        assert thaw()

    @pytest.mark.parametrize("act", [freeze, thaw])
    def test_a_deleted_or_unknown_account_is_left_alone(self, waiting, act):
        make.make_account(5, "ria", deleted_at=NOW)

        with pytest.raises(ledger.AccountClosed):
            act("ria")
        with pytest.raises(NotFound):
            act("nobody")
        assert audited() == []


@pytest.mark.django_db(transaction=True)
def test_of_many_at_once_one_freezes():
    make.make_account(100, "mio")

    froze = at_once(8, lambda _: freeze())

    assert sorted(froze) == [False] * 7 + [True]
    assert len(audited()) == 1
    with transaction.atomic():
        assert make.broken_here() == []
