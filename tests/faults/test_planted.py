"""Bugs planted one by one, to see the test that is there for each go red.

Every edit of a text asserts that it changed it (`Mutant.sql`), and `monkeypatch` that what it
replaces is there, so that a plant cannot outlive the code it breaks.
"""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import psycopg
import pytest
from django.db import DatabaseError, transaction

from airi_server.kernel import database, group_commit
from billing import balances, requests
from llmrouter.completions import operation as llm_gateway
from llmrouter.completions.streaming import StreamedCompletion
from llmrouter.gateway.paid import PaidRequest
from tests.billing import mutants, test_mutants, test_open_requests_sql
from tests.billing.mutants import Mutant
from tests.factories import billing as make
from tests.llmrouter import test_completions, test_failover, test_idempotency, test_slots

RED = (AssertionError, DatabaseError, psycopg.DatabaseError)
MONTH = Mutant(
    "open_requests",
    "s.day >= date_trunc('month', v_today)::date",
    "s.day > date_trunc('month', v_today)::date",
)


@pytest.mark.django_db
class TestInStatements:
    def test_no_compare_and_set(self):
        price = make.price()
        test_mutants.install(mutants.SEQUENTIAL["settled without compare-and-set"].sql)

        with pytest.raises(RED), transaction.atomic():
            test_mutants.core_property(price)

    def test_the_first_day_of_a_month_left_out_of_it(self):
        """`<` for `<=` where a period begins; the only periods there are so far."""
        price = make.price()
        test_mutants.install(MONTH.sql)

        with pytest.raises(AssertionError):
            test_open_requests_sql.TestSpendingLimits().test_a_month_begins_with_its_first_day(
                lambda **facts: make.ticket("mio", price, **facts)
            )

    def test_a_hold_not_released(self):
        """I6 names the account."""
        make.make_account(100, "mio")
        one = make.ticket("mio", make.price())
        test_mutants.install(mutants.SEQUENTIAL["hold not released"].sql)
        make.open_one(one, 30)

        make.settle_one(make.settlement(one, None))

        assert [line.split()[0] for line in make.broken_here()] == ["I6"]


@pytest.mark.django_db(transaction=True)
def test_no_row_lock():
    test_mutants.in_schema(mutants.RACING["admission without the account's lock"].sql)
    try:
        with pytest.raises(RED):
            test_mutants.Races(make.price()).check()
    finally:
        test_mutants.install("DROP SCHEMA mutant CASCADE")


@pytest.mark.asyncio
class TestInCode:
    async def test_a_cache_read_for_admission(self, served, upstream, monkeypatch):
        """Whoever had enough a moment ago is let in."""
        remembered: dict[str, int] = {}
        honest = requests.open

        async def trusting(ticket, *, hold, **more):
            if ticket.user_id not in remembered:
                remembered[ticket.user_id] = await balances.of(ticket.user_id)
            if remembered[ticket.user_id] >= hold.floor:
                hold = hold._replace(floor=0)
            return await honest(ticket, hold=hold, **more)

        monkeypatch.setattr(requests, "open", trusting)

        with pytest.raises(AssertionError):
            await test_completions.TestChat().test_twenty_on_a_balance_for_one_charge_one(
                served, upstream
            )

    async def test_no_shield(self, hot, upstream, monkeypatch):
        """The client's cancellation reaches the task that pays; a stream's only its beginning."""
        bare = {**vars(asyncio), "shield": lambda awaited: awaited}
        monkeypatch.setattr(llm_gateway, "asyncio", SimpleNamespace(**bare))

        with pytest.raises((AssertionError, asyncio.CancelledError, TimeoutError)):
            await test_slots.TestOwner().test_is_not_reached_by_the_cancellation_of_who_waits(
                hot, upstream, False
            )

    async def test_a_hold_not_released_on_a_failed_attempt(self, served, upstream, monkeypatch):
        async def forgetful(paid, _outcome, _refusal):
            paid._closing = True  # or the last resort of every paid request would close it

        monkeypatch.setattr(PaidRequest, "void", forgetful)

        with pytest.raises((AssertionError, pytest.fail.Exception)):
            await test_idempotency.TestRepeated().test_after_a_failure_tries_again(served, upstream)

    async def test_failover_after_the_first_byte(self, served, upstream, monkeypatch):
        honest = StreamedCompletion._forward

        async def stubborn(paid, response, head):
            outcome = await honest(paid, response, head)
            if outcome == "upstream_broken":
                outcome = await honest(paid, *await paid.find_answer())
            return outcome

        monkeypatch.setattr(StreamedCompletion, "_forward", stubborn)

        with pytest.raises(AssertionError):
            await test_failover.TestMovesOn().test_never_after_the_first_byte(served, upstream)

    async def test_a_batch_answered_before_its_commit(self, served, upstream, monkeypatch):
        honest = group_commit._Lane._run_next

        async def hasty(lane, lent: database.Connection):
            is_early = lane._run is requests._settle_batch
            if is_early:
                await lent.execute("BEGIN")
            await honest(lane, lent)
            if is_early:
                await asyncio.sleep(0.3)
                await lent.execute("COMMIT")

        monkeypatch.setattr(group_commit._Lane, "_run_next", hasty)
        tests = test_completions.TestChat()

        with pytest.raises(AssertionError):
            await tests.test_answers_with_the_bytes_of_the_upstream_and_charges_them(
                served, upstream
            )
