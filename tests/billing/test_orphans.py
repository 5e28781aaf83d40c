"""Orphans: what nobody will end any more is ended once, by whoever comes first."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from contextlib import contextmanager
from datetime import timedelta
from unittest import mock

import psycopg
import pytest
from django.core.management import call_command
from django.db import connection, transaction

from airi_server.kernel import database, ids, instance
from airi_server.kernel.threads import in_thread
from billing import reconciliation, requests
from billing.models import LLMRequestLog, LLMRequestResult
from billing.reconciliation import CheckScope
from billing.settlements import Charged
from tests.billing.corruption import corrupt
from tests.factories import billing as make


@pytest.fixture
def price():
    return make.price()


def settle(*arguments):
    out, err = io.StringIO(), io.StringIO()
    arguments = ("--settle", "--format", "json", *arguments)
    call_command("reconcile-usage", *arguments, stdout=out, stderr=err)
    return [json.loads(line) for line in out.getvalue().splitlines()]


def everything():
    """Return every row that money rests on."""
    with transaction.atomic(), connection.cursor() as cursor:
        rows = []
        for table in ("user_flux", "flux_transaction", "llm_request_log", "api_key_spend"):
            cursor.execute(f"SELECT * FROM {table} ORDER BY 1, 2")
            rows.append(cursor.fetchall())
    return rows


@pytest.mark.django_db(transaction=True)
class TestSettle:
    def test_ends_each_by_what_was_delivered_and_nothing_twice(self, price):
        make.make_account(100, "mio")
        facts = {"prompt_estimate": 4, "api_key_id": "k"}
        silent, begun, streaming = (make.ticket("mio", price, **facts) for _ in range(3))
        done = make.ticket("mio", price)
        make.open_batch(*(make.opening(one, 20) for one in (silent, begun, streaming, done)))
        make.mark_batch((begun, 0), (streaming, 9))
        make.settle_one(make.settlement(done, 5))
        old = {"user_id": "mio", "body": b"", "created_at": make.NOW}
        LLMRequestResult.objects.create(request=ids.uuid7(), **old)
        fresh = make.run("SELECT clock_timestamp()", {})[0][0] - timedelta(hours=23)
        LLMRequestResult.objects.create(request=ids.uuid7(), **{**old, "created_at": fresh})

        ended = {line.get("id"): line for line in settle()}

        assert ended[str(silent.id)]["kind"] == "voided"
        assert (ended[str(begun.id)]["charged"], ended[str(streaming.id)]["charged"]) == (4, 13)
        assert ended[None]["kind"] == "summary"
        rows = [make.request_of(one) for one in (silent, begun, streaming)]
        assert [row.state for row in rows] == ["voided", "settled", "settled"]
        assert {row.outcome for row in rows} == {"orphaned"}
        assert [row.usage_source for row in rows] == ["none", "estimated", "estimated"]
        assert (rows[2].prompt_tokens, rows[2].completion_tokens) == (4, 9)
        assert rows[2].duration_ms is not None
        assert rows[2].duration_ms >= (rows[2].ttft_ms or 0) >= 0
        assert make.state_of("mio") == (100 - 5 - 4 - 13, 0)
        assert LLMRequestResult.objects.get().created_at == fresh
        before = everything()
        assert [line["kind"] for line in settle()] == ["pruned", "summary"]
        assert everything() == before

    def test_leaves_alone_what_somebody_will_end(self, price):
        """Alive is who has a session of its name in this database, cut as PostgreSQL cuts it."""
        make.make_account(100, "mio")
        make.make_account(100, "ria")
        long_id = "x" * 80
        alive = make.ticket("mio", price, instance_id=long_id)
        late = make.ticket("mio", price, instance_id=long_id)
        gone = make.ticket("mio", price)
        others = make.ticket("ria", price)
        make.open_batch(
            make.opening(alive, 5),
            make.opening(late, 5, deadline_s=-1),
            make.opening(gone, 5),
            make.opening(others, 5),
        )
        connection.close()
        options = {**connection.get_connection_params(), "application_name": f"airi {long_id}"[:63]}
        with psycopg.connect(**options):
            with reconciliation.snapshot():
                listed = {each.id: each.why for each in reconciliation.orphans(CheckScope("mio"))}
                (waiting,) = reconciliation.unjudged(CheckScope("mio"))
            settle("--user", "mio", "--since", "2026-01-01T00:00:00Z")

        assert (waiting.requests, waiting.hold, waiting.why) == (1, 5, "instance running")
        assert 0 < waiting.within_s <= 1000
        assert listed == {late.id: "deadline passed", gone.id: "instance gone"}
        states = [make.request_of(one).state for one in (alive, late, gone, others)]
        assert states == ["open", "voided", "voided", "open"]
        now = make.run("SELECT clock_timestamp()", {})[0][0]
        assert list(reconciliation.settle_orphans(CheckScope(since=now))) == []
        assert make.request_of(others).state == "open"

    def test_right_after_a_restart_only_deadlines_count(self, price, monkeypatch):
        monkeypatch.setattr(reconciliation, "RESTART_GRACE_S", 10**9)
        make.make_account(100, "mio")
        gone, late = make.ticket("mio", price), make.ticket("mio", price)
        make.open_batch(make.opening(gone, 5), make.opening(late, 5, deadline_s=-1))

        settle()

        assert [make.request_of(one).state for one in (gone, late)] == ["open", "voided"]
        (waiting,) = reconciliation.unjudged()
        assert (waiting.requests, waiting.hold) == (1, 5)
        assert waiting.why == "database just started"
        assert list(reconciliation.unjudged(CheckScope("ria"))) == []

        (ended,) = reconciliation.settle_orphans(grace_s=0)
        assert (ended.id, make.request_of(gone).state) == (gone.id, "voided")
        assert reconciliation.unjudged() == []

    def test_says_whose_each_was_and_what_became_of_it(self, price):
        for user_id in ("mio", "ria"):
            make.make_account(100, user_id)
        silent, begun = make.ticket("mio", price), make.ticket("ria", price, prompt_estimate=4)
        make.open_batch(make.opening(silent, 20), make.opening(begun, 20))
        make.mark_batch((begun, 3))

        ended = {each.id: each for each in reconciliation.settle_orphans()}

        assert (ended[silent.id].user_id, ended[begun.id].user_id) == ("mio", "ria")
        assert ended[silent.id].charged == Charged("voided", 0, 0, 100, replayed=False)
        assert ended[begun.id].charged == Charged("settled", 7, 0, 93, replayed=False)

    def test_forgets_old_answers_page_by_page_and_counts_them(self, monkeypatch):
        monkeypatch.setattr(reconciliation, "PAGE", 2)
        for _ in range(5):
            LLMRequestResult.objects.create(
                request=ids.uuid7(), user_id="mio", body=b"", created_at=make.NOW
            )

        assert reconciliation.prune_results() == 5
        assert reconciliation.prune_results() == 0
        assert not LLMRequestResult.objects.exists()

    def test_leaves_old_answers_to_whoever_forgets_them_already(self):
        rows = [
            LLMRequestResult.objects.create(
                request=ids.uuid7(), user_id="mio", body=b"", created_at=make.NOW
            )
            for _ in range(3)
        ]
        with psycopg.connect(**connection.get_connection_params()) as other:
            other.execute("DELETE FROM llm_request_result WHERE request_id = %s", [rows[1].request])
            pruned = reconciliation.prune_results()
            other.rollback()

        assert pruned == 2
        assert LLMRequestResult.objects.get().request == rows[1].request

    def test_times_are_those_of_the_row(self, price):
        make.make_account(100, "mio")
        silent, begun = make.ticket("mio", price), make.ticket("mio", price)
        make.open_batch(make.opening(silent, 5), make.opening(begun, 5))
        make.mark_batch((begun, 2))
        now = make.run("SELECT clock_timestamp()", {})[0][0]
        opened_at, first_byte_at = now - timedelta(seconds=90), now - timedelta(seconds=87.5)
        corrupt("UPDATE llm_request_log SET opened_at = %(at)s", {"at": opened_at})
        LLMRequestLog.objects.filter(id=begun.id).update(first_byte_at=first_byte_at)

        settle()

        row, other = make.request_of(begun), make.request_of(silent)
        assert (row.ttft_ms, other.ttft_ms) == (2500, None)
        settled_after_ms = (row.settled_at - opened_at) / timedelta(milliseconds=1)
        assert 90_000 <= (row.duration_ms or 0) <= settled_after_ms + 1
        assert (other.duration_ms or 0) >= 90_000

    def test_a_clock_that_was_set_back_makes_no_time_negative(self, price):
        make.make_account(100, "mio")
        one = make.ticket("mio", price)
        make.open_one(one, 5)
        make.mark_batch((one, 2))
        ahead = make.run("SELECT clock_timestamp() + interval '1 hour'", {})[0][0]
        corrupt("UPDATE llm_request_log SET opened_at = %(at)s", {"at": ahead})

        settle()

        row = make.request_of(one)
        assert (row.state, row.duration_ms, row.ttft_ms) == ("settled", 0, 0)

    def test_one_that_cannot_be_ended_does_not_keep_the_others_from_it(self, price, caplog):
        make.make_account(100, "mio")
        unpriced, locked, good = (make.ticket("mio", price) for _ in range(3))
        make.open_batch(*(make.opening(one, 5) for one in (unpriced, locked, good)))
        corrupt(
            "UPDATE llm_request_log SET price_version = -1 WHERE id = %(id)s", {"id": unpriced.id}
        )
        params = connection.get_connection_params()
        with psycopg.connect(**params) as other:
            other.execute("SELECT FROM llm_request_log WHERE id = %s FOR UPDATE", [locked.id])
            ended = {each.id: each.charged for each in reconciliation.settle_orphans()}
            other.rollback()

        assert ended[unpriced.id] is ended[locked.id] is None
        assert make.request_of(good).state == "voided"
        assert make.request_of(locked).state == "open"
        # Nobody waits for whoever is at a row already, and that somebody is is no error.
        errors = [vars(each) for each in caplog.records if each.levelno >= logging.ERROR]
        assert [each["request"] for each in errors] == [str(unpriced.id)]


@contextmanager
def comes_back(ticket):
    """Its instance was away for a moment, and has a session again."""
    name = f"airi {ticket.instance_id}"
    with psycopg.connect(**{**connection.get_connection_params(), "application_name": name}):
        yield


@contextmanager
def ends(ticket):
    """Its instance is slow, but settles it after all."""
    make.settle_one(make.settlement(ticket, 7))
    yield


@contextmanager
def restarts(_ticket):
    """The database itself has just been started: nobody has a session yet."""
    with mock.patch.object(reconciliation, "RESTART_GRACE_S", 10**9):
        yield


@pytest.mark.django_db(transaction=True)
class TestSecondLook:
    """An orphan is looked at again under its lock: much may have happened since it was found."""

    @pytest.mark.parametrize(
        ("happens", "state"), [(comes_back, "open"), (ends, "settled"), (restarts, "open")]
    )
    def test_leaves_alone_what_is_none_any_more(self, price, happens, state):
        make.make_account(100, "mio")
        tickets = [make.ticket("mio", price, instance_id=name) for name in ("a", "b")]
        first, second = sorted(tickets, key=lambda one: one.id)
        make.open_batch(make.opening(first, 5), make.opening(second, 5))
        ending = reconciliation.settle_orphans()
        assert next(ending).id == first.id

        with happens(second):
            (left,) = ending

        assert (left.id, left.charged) == (second.id, None)
        assert make.request_of(second).state == state

    def test_leaves_alone_what_was_none_ever(self, price):
        """The console asks for one by its id."""
        make.make_account(100, "mio")
        done, alive, unknown = (make.ticket("mio", price) for _ in range(3))
        make.open_batch(make.opening(done, 5), make.opening(alive, 5))
        make.settle_one(make.settlement(done, None))

        with comes_back(alive):
            ended = [reconciliation.settle_orphan(one.id) for one in (done, alive, unknown)]

        assert ended == [None] * 3
        assert [make.request_of(one).state for one in (done, alive)] == ["voided", "open"]


def reconcile_once():
    return [ended.charged for ended in reconciliation.settle_orphans()]


@pytest.mark.asyncio
class TestRace:
    async def test_two_reconcilers_and_the_live_path_end_each_request_once(self, hot):
        """Twenty rounds; whoever wins, the books agree and each request has one end.

        Who wins is the machine's to say, but for the first round, where the reconcilers wait for
        the live path, and the last, where it waits for them.
        """
        price = await make.new_price()
        await make.account(10_000, "mio")
        reconcile = in_thread(reconcile_once)
        winners = set()
        for number in range(20):
            tickets = [make.ticket("mio", price, prompt_estimate=2) for _ in range(6)]
            for one in tickets:
                await requests.open(one, hold=make.hold(9), deadline_s=-1)
                await requests.mark(one.id, checkpoint=3)

            settled, reconciled = asyncio.Event(), asyncio.Event()

            async def live(tickets=tickets, number=number, settled=settled, reconciled=reconciled):
                await (reconciled.wait() if number == 19 else asyncio.sleep(number * 0.001))
                ends = await asyncio.gather(
                    *(requests.settle(make.settlement(one, 7)) for one in tickets)
                )
                settled.set()
                return ends

            async def by_reconcilers(number=number, settled=settled, reconciled=reconciled):
                if number == 0:
                    await settled.wait()
                both = await asyncio.gather(reconcile(), reconcile())
                reconciled.set()
                return both

            ends, (first, second) = await asyncio.gather(live(), by_reconcilers())

            by_hand = [each for each in (*first, *second) if each and not each.replayed]
            by_live = [each for each in ends if not each.replayed]
            assert len(by_hand) + len(by_live) == len(tickets)
            assert {each.charged for each in ends} <= {5, 7}
            assert sum(each.charged for each in (*by_hand, *by_live)) == sum(
                each.charged for each in ends
            )
            winners |= {"live"} if by_live else set()
            winners |= {"reconciler"} if by_hand else set()
        assert winners == {"live", "reconciler"}
        assert await make.broken() == []

    async def test_a_live_instance_is_alive_through_its_own_pool(self, hot):
        price = await make.new_price()
        await make.account(100, "mio")
        one = make.ticket("mio", price, instance_id=instance.ID)
        await requests.open(one, hold=make.hold(9), deadline_s=60)

        assert await in_thread(reconcile_once)() == []
        await database.close()
        async with asyncio.timeout(5):
            while not (ended := await in_thread(reconcile_once)()):
                await asyncio.sleep(0.05)

        assert [each and each.state for each in ended] == ["voided"]
