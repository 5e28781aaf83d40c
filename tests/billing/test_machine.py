"""Any sequence of opens, marks, ends, credits and reversals, beside a model of ten lines.

After each step: I1, I2, I5, I6 (and the rest of `reconcile-usage`), and I12: what is charged
and held never exceeds what was credited.
"""

from __future__ import annotations

from contextlib import contextmanager
from unittest import mock

import pytest
from django.db import connection
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from hypothesis.stateful import run_state_machine_as_test as run_machine

from airi_server.kernel import instance
from airi_server.kernel.errors import DomainError
from billing import ledger, reconciliation
from billing.models import FluxAccount, LLMRequestLog
from billing.pricing import Price
from tests.billing.twins import Account
from tests.factories import billing as make

PICK = st.integers(0, 6)


class Books(RuleBasedStateMachine):
    """One account, its requests, and the twin that says what they should be."""

    price: Price

    def __init__(self):
        super().__init__()
        self.user_id = make.make_account(20)
        self.twin = Account(20)
        self.tickets = []
        self.keys = 0

    @rule(
        floor=st.integers(0, 10),
        more=st.integers(0, 15),
        client_key=st.sampled_from([None, None, "k", "l"]),
        gone=st.booleans(),
        stalled=st.booleans(),
    )
    def open(self, floor, more, client_key, gone, stalled):
        one = make.ticket(
            self.user_id,
            self.price,
            client_key=client_key,
            prompt_estimate=2,
            instance_id="gone" if gone else "here",
        )
        deadline_s = -1 if stalled else 600
        row = make.opening(one, floor + more, floor, deadline_s=deadline_s)
        assert make.open_batch(row)[0][:2] == self.twin.open(row)
        if one.id in self.twin.requests:
            self.tickets.append((one, gone or stalled))

    @precondition(lambda self: self.tickets)
    @rule(which=PICK)
    def open_again(self, which):
        one, _ = self._pick(which)
        assert make.open_one(one, 5)[0] == "replayed"

    @precondition(lambda self: self.tickets)
    @rule(which=PICK, tokens=st.integers(0, 20))
    def mark(self, which, tokens):
        one, _ = self._pick(which)
        make.mark_batch((one, tokens))
        self.twin.mark(one.id, tokens)

    @precondition(lambda self: self.tickets)
    @rule(
        ends=st.lists(
            st.tuples(PICK, st.one_of(st.none(), st.integers(0, 30))), min_size=1, max_size=3
        )
    )
    def settle(self, ends):
        picked = [(self._pick(which)[0], tokens) for which, tokens in ends]
        batch = [(one, self.twin.end_of(one.id, tokens)) for one, tokens in picked]
        found = make.settle_batch(*(make.settlement(one, tokens) for one, tokens in batch))
        for charged, (one, tokens) in zip(found, batch, strict=True):
            expected = self.twin.settle(one.id, tokens)
            got = (charged.state, charged.charged, charged.unbilled, charged.balance)
            assert (*got, charged.replayed) == expected

    @rule(tokens=st.one_of(st.none(), st.integers(0, 30)))
    def settle_forgotten(self, tokens):
        one = make.ticket(self.user_id, self.price)
        self.tickets.append((one, False))
        charged = make.settle_one(make.settlement(one, tokens))
        assert charged.charged == self.twin.settle(one.id, tokens)[1]

    @rule(amount=st.integers(1, 20), twice=st.booleans())
    def credit(self, amount, twice):
        self.keys += 1
        for _ in range(2 if twice else 1):
            ledger.credit(
                user_id=self.user_id,
                amount=amount,
                request_id=f"k{self.keys}",
                description="",
                at=make.NOW,
            )
        self.twin.credit(amount)

    @rule(seq=st.integers(1, 8))
    def reverse(self, seq):
        self.keys += 1
        before = FluxAccount.objects.get(user_id=self.user_id).balance
        try:
            posting = ledger.reverse(
                user_id=self.user_id,
                user_seq=seq,
                request_id=f"k{self.keys}",
                description="",
                at=make.NOW,
            )
        except DomainError:
            return
        self.twin.credit(posting.balance_after - before)

    @rule()
    def reconcile(self):
        for ended in reconciliation.settle_orphans(reconciliation.CheckScope(self.user_id)):
            request = self.twin.requests[ended.id]
            tokens = None if request.checkpoint is None else 2 + request.checkpoint
            assert ended.charged is not None
            assert ended.charged.charged == self.twin.settle(ended.id, tokens)[1]
        left = [orphan for one, orphan in self.tickets if orphan]
        states = LLMRequestLog.objects.filter(id__in=[one.id for one, o in self.tickets if o])
        assert states.filter(settled_at=None).count() == 0, left

    @rule(frozen=st.booleans())
    def freeze(self, frozen):
        FluxAccount.objects.filter(user_id=self.user_id).update(frozen=frozen)
        self.twin.frozen = frozen

    @invariant()
    def the_books_agree(self):
        assert make.state_of(self.user_id) == (self.twin.flux, self.twin.held)
        assert make.broken_here(self.user_id) == []

    @invariant()
    def nothing_is_spent_twice(self):
        charged = sum(request.charged for request in self.twin.requests.values())
        assert self.twin.held <= self.twin.flux
        assert charged + self.twin.held <= self.twin.credited

    def _pick(self, which):
        return self.tickets[which % len(self.tickets)]


@contextmanager
def _no_snapshot():
    """Everything here happens in the one transaction of the test."""
    yield


@pytest.mark.django_db
def test_the_books_agree_after_any_sequence():
    Books.price = make.price()
    with connection.cursor() as cursor:
        cursor.execute("SET application_name = 'airi here'")
    assert instance.APPLICATION_NAME.startswith("airi ")

    with mock.patch.object(reconciliation, "snapshot", _no_snapshot):
        run_machine(
            Books,
            settings=settings(
                max_examples=25,
                stateful_step_count=25,
                deadline=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
