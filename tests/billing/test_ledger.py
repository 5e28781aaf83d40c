"""Credits, grants and reversals: one entry each, however often they are sent."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import psycopg
import pytest
from django.db import connection, connections, transaction

from airi_server.kernel import ids
from airi_server.kernel.errors import Conflict, NotFound
from airi_server.runtime.options import put
from billing import ledger, options
from billing.models import FluxAccount, FluxTransaction
from tests.factories import billing as make

NOW = make.NOW
Kind = FluxTransaction.Kind


def credit(user_id, amount=50, request_id="stripe:evt_1", **more):
    return ledger.credit(
        user_id=user_id, amount=amount, request_id=request_id, description="test", at=NOW, **more
    )


def reverse(user_id, user_seq, request_id="rev:1"):
    return ledger.reverse(
        user_id=user_id, user_seq=user_seq, request_id=request_id, description="oops", at=NOW
    )


@pytest.mark.django_db
class TestOpenAccount:
    def test_posts_the_opening_grant_once(self):
        put(options.INITIAL_USER_FLUX.name, 100, by="tester", at=NOW)

        assert ledger.open_account(user_id="mio")
        assert not ledger.open_account(user_id="mio")

        (entry,) = make.entries_of("mio")
        assert (entry.kind, entry.amount, entry.balance_before, entry.balance_after) == (
            "initial",
            100,
            0,
            100,
        )
        assert (entry.description, entry.request_id, entry.metadata) == (
            "Initial grant",
            None,
            None,
        )
        assert make.broken_here() == []

    def test_a_grant_of_nothing_is_an_entry_too(self):
        make.make_account(0, "mio")

        (entry,) = make.entries_of("mio")
        assert (entry.kind, entry.amount, entry.user_seq) == ("initial", 0, 1)


@pytest.mark.django_db
class TestCredit:
    def test_opens_the_account_and_posts_one_entry(self):
        posting = credit("mio", 50, metadata={"stripeEventId": "evt_1"})

        assert (posting.balance_before, posting.balance_after, posting.replayed) == (0, 50, False)
        assert make.state_of("mio") == (50, 0)
        entry = make.entries_of("mio")[1]
        assert (entry.pk, entry.user_seq, entry.kind) == (posting.entry_id, 2, "credit")
        assert posting.user_seq == 2
        assert entry.metadata == {"stripeEventId": "evt_1"}
        assert make.broken_here() == []

    def test_twice_with_one_key_is_once(self):
        first, again = credit("mio"), credit("mio")

        assert again.replayed
        assert again.entry_id == first.entry_id
        assert make.state_of("mio") == (50, 0)

    def test_a_key_belongs_to_one_user(self):
        credit("mio")

        assert ledger.find(user_id="ria", request_id="stripe:evt_1") is None
        assert not credit("ria").replayed

    def test_without_a_key_each_call_counts(self):
        credit("mio", request_id=None)
        credit("mio", request_id=None)

        assert make.state_of("mio") == (100, 0)

    @pytest.mark.parametrize("other", [{"amount": 51}, {"kind": Kind.PROMO}])
    def test_a_key_with_other_contents_is_a_conflict(self, other):
        credit("mio")

        with pytest.raises(Conflict):
            credit("mio", **other)
        assert make.state_of("mio") == (50, 0)
        assert len(make.entries_of("mio")) == 2

    @pytest.mark.parametrize("amount", [0, -1])
    def test_nothing_is_no_credit(self, amount):
        with pytest.raises(ValueError, match="at least 1"):
            credit("mio", amount)
        assert not FluxAccount.objects.exists()

    def test_a_deleted_account_stays_as_it_is(self):
        make.make_account(5, "mio", deleted_at=NOW)

        with pytest.raises(ledger.AccountClosed):
            credit("mio")
        with pytest.raises(ledger.AccountClosed):
            reverse("mio", 2)
        assert make.state_of("mio") == (5, 0)


@pytest.mark.django_db
class TestGrant:
    def test_records_who_and_why(self):
        ledger.grant(
            user_id="mio",
            amount=7,
            request_id="flux-grant:k:mio",
            description="sorry",
            by="ria",
            at=NOW,
        )

        entry = make.entries_of("mio")[1]
        assert (entry.kind, entry.request_id) == ("promo", "flux-grant:k:mio")
        assert entry.metadata == {"description": "sorry", "issuedByUserId": "ria"}


@pytest.mark.django_db
class TestReverse:
    def test_appends_an_entry_that_names_the_other(self):
        make.make_account(50, "mio")

        posting = reverse("mio", 2)

        assert (posting.amount, posting.balance_after) == (50, 0)
        entry = make.entries_of("mio")[2]
        assert (entry.kind, entry.reverses_seq, entry.metadata) == ("reversal", 2, {"reverses": 2})
        assert entry.description == "oops"
        assert make.broken_here() == []

    def test_the_same_call_again_is_a_replay_and_another_a_conflict(self):
        make.make_account(50, "mio")
        reverse("mio", 2)

        assert reverse("mio", 2).replayed
        with pytest.raises(Conflict):
            reverse("mio", 2, "rev:2")
        assert make.state_of("mio") == (0, 0)

    def test_a_key_used_for_something_else_is_a_conflict(self):
        credit("mio", 50, "k")

        with pytest.raises(Conflict):
            reverse("mio", 2, "k")

    def test_of_one_account_is_none_of_anothers(self):
        make.make_account(50, "mio")
        make.make_account(50, "ria")
        reverse("mio", 2)

        assert reverse("ria", 2).balance_after == 0
        assert [entry.user_seq for entry in make.entries_of("ria")] == [1, 2, 3]

    def test_a_reversal_can_be_reversed(self):
        make.make_account(50, "mio")
        reverse("mio", 2)

        assert reverse("mio", 3, "rev:2").balance_after == 50
        assert make.broken_here() == []

    def test_gives_a_debit_back(self):
        make.make_account(50, "mio")
        ticket = make.ticket("mio", make.price())
        make.open_one(ticket, 30)
        make.settle_one(make.settlement(ticket, 30))

        assert reverse("mio", 3).balance_after == 50
        assert make.broken_here() == []

    def test_what_is_spent_or_held_is_not_taken_back(self):
        make.make_account(50, "mio")
        make.open_one(make.ticket("mio", make.price()), 1)

        with pytest.raises(ledger.BalanceTooLow):
            reverse("mio", 2)
        assert make.state_of("mio") == (50, 1)

    def test_what_moved_nothing_or_is_not_there_is_refused(self):
        make.make_account(0, "mio")

        with pytest.raises(Conflict):
            reverse("mio", 1)
        with pytest.raises(NotFound):
            reverse("mio", 2)
        with pytest.raises(NotFound):
            reverse("ria", 1)
        assert not FluxAccount.objects.filter(user_id="ria").exists()


def at_once(count, call):
    """Run `call(number)` in as many threads, each on its own connection; return the results."""
    barrier = threading.Barrier(count)

    def one(number):
        try:
            connection.ensure_connection()
            barrier.wait(20)
            return call(number)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, range(count)))


@pytest.mark.django_db
def test_every_entry_dates_the_account():
    make.make_account(0, "mio")
    later = NOW + timedelta(days=1)

    ledger.credit(user_id="mio", amount=5, request_id=None, description="", at=later)

    assert FluxAccount.objects.get().updated_at == later
    assert make.entries_of("mio")[-1].created_at == later


@pytest.mark.django_db(transaction=True)
class TestLock:
    def test_keeps_out_who_writes_and_not_who_refers_to_the_account(self):
        make.make_account(50, "mio")
        row = "SELECT FROM user_flux WHERE user_id = 'mio'"

        with transaction.atomic():
            ledger.lock("mio")
            with psycopg.connect(**connection.get_connection_params()) as other:
                other.execute(f"{row} FOR KEY SHARE NOWAIT")
                with pytest.raises(psycopg.errors.LockNotAvailable):
                    other.execute(f"{row} FOR NO KEY UPDATE NOWAIT")


@pytest.mark.django_db(transaction=True)
class TestRaces:
    def test_duplicates_of_a_credit_are_clean_replays(self):
        postings = at_once(60, lambda _: credit("mio", 50, "stripe:evt_1"))

        assert sorted(posting.replayed for posting in postings) == [False] + [True] * 59
        assert len({posting.entry_id for posting in postings}) == 1
        assert make.state_of("mio") == (50, 0)

        mixed = at_once(20, lambda number: credit("ria", 10, f"k{number % 4}"))

        assert sum(not posting.replayed for posting in mixed) == 4
        assert make.state_of("ria") == (40, 0)

        key = ids.nanoid()
        outcomes = at_once(10, lambda _: reverse_or_refuse("ria", 2, key))
        assert sum(outcome == "done" for outcome in outcomes) == 1
        assert make.state_of("ria") == (30, 0)
        with transaction.atomic():
            assert make.broken_here() == []


def reverse_or_refuse(user_id, user_seq, key):
    """Every second caller has a key of its own, and so must be refused or be the one."""
    try:
        posting = reverse(user_id, user_seq, key if threading.get_ident() % 2 else ids.nanoid())
    except Conflict:
        return "refused"
    return "replayed" if posting.replayed else "done"
