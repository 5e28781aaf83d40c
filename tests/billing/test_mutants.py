"""Break each critical line of the hot path's SQL and see the core property go red."""

from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor

import orjson
import psycopg
import pytest
from django.db import DatabaseError, connection, transaction

from airi_server.kernel import resources
from billing.models import FluxAccount
from billing.requests import OPEN_SQL, SETTLE_SQL, SpendingLimits
from billing.settlements import RequestRecord
from tests.billing import mutants
from tests.billing.twins import Account
from tests.factories import billing as make

LIMITS = (
    SpendingLimits(),
    SpendingLimits(day=9),
    SpendingLimits(month=12),
    SpendingLimits(total=15),
)


def core_property(price):
    """Any sequence of batches over two users does what the twin does, and the books agree."""
    for seed in range(20):
        _play(random.Random(seed), price)


def _play(dice, price):
    flux = dice.choice([15, 40, 80])
    users = {make.make_account(flux): Account(flux) for _ in range(2)}
    tickets: list[RequestRecord] = []
    for _ in range(14):
        step = dice.choice([_open, _open, _settle, _settle, _mark, _status])
        step(dice, price, users, tickets)
    for user_id, twin in users.items():
        assert make.state_of(user_id) == (twin.flux, twin.held)
        moves = [e.balance_after - e.balance_before for e in make.entries_of(user_id)]
        assert moves[2:] == twin.entries
        assert make.broken_here(user_id) == []


def _open(dice, price, users, tickets):
    rows = []
    for _ in range(dice.randint(1, 4)):
        user_id = dice.choice(list(users))
        keys = {"client_key": dice.choice([None, "c"])}
        one = make.ticket(user_id, price, api_key_id=dice.choice([None, "k", "k"]), **keys)
        if tickets and dice.random() < 0.2:
            one = dice.choice(tickets)
        floor = dice.randint(0, 8)
        limits = dice.choice(LIMITS) if one.api_key_id else LIMITS[0]
        rows.append(make.opening(one, floor + dice.randint(0, 12), floor, limits=limits))
        tickets.append(one)
    expected = [users[row["user_id"]].open(row) for row in rows]
    assert [found[:2] for found in make.open_batch(*rows)] == expected


def _settle(dice, price, users, tickets):
    if not tickets:
        return
    batch = [dice.choice(tickets) for _ in range(dice.randint(1, 4))]
    ends = [
        (one, users[one.user_id].end_of(one.id, dice.choice([None, 0, 3, 9, 25]))) for one in batch
    ]
    found = make.settle_batch(*(make.settlement(one, tokens) for one, tokens in ends))
    for charged, (one, tokens) in zip(found, ends, strict=True):
        twin = users[one.user_id]
        if one.id not in twin.requests:
            taken = one.client_key in [
                r.client_key for r in twin.requests.values() if r.state != "voided"
            ]
            twin.requests[one.id] = twin.forgotten(
                one.api_key_id, None if taken else one.client_key
            )
        expected = twin.settle(one.id, tokens)
        got = (charged.state, charged.charged, charged.unbilled, charged.balance)
        assert (*got, charged.replayed) == expected
        assert make.request_of(one).unbilled == expected[2]


def _mark(dice, price, users, tickets):
    for one in dice.sample(tickets, min(2, len(tickets))):
        first = users[one.user_id].requests.get(one.id)
        known = first and make.request_of(one).first_byte_at
        tokens = dice.randint(0, 9)
        make.mark_batch((one, tokens))
        users[one.user_id].mark(one.id, tokens)
        if first:
            row = make.request_of(one)
            assert (row.state, row.checkpoint) == (first.state, first.checkpoint or 0)
            assert known in (None, row.first_byte_at)


def _status(dice, price, users, tickets):
    user_id = dice.choice(list(users))
    frozen, deleted = dice.random() < 0.3, dice.random() < 0.2
    users[user_id].frozen, users[user_id].deleted = frozen, deleted
    FluxAccount.objects.filter(user_id=user_id).update(
        frozen=frozen, deleted_at=make.NOW if deleted else None
    )


def install(sql):
    with connection.cursor() as cursor:
        cursor.execute(sql)


@pytest.mark.django_db
class TestSequentialMutants:
    def test_the_healthy_statements_pass(self):
        core_property(make.price())

    @pytest.mark.parametrize("name", mutants.SEQUENTIAL)
    def test_is_noticed(self, name):
        price = make.price()
        install(mutants.SEQUENTIAL[name].sql)  # rolled back with the test

        with pytest.raises((AssertionError, DatabaseError, ValueError)), transaction.atomic():
            core_property(price)


class Races:
    """Two sessions whose statements come from the schema `mutant`, and what they race for."""

    def __init__(self, price):
        self.price = price
        self.params = {
            **connection.get_connection_params(),
            "options": "-c search_path=mutant,public -c lock_timeout=4s",
            "cursor_factory": psycopg.Cursor,
        }

    def check(self):
        self.two_opens_share_one_balance()
        self.two_settlements_of_one_request()
        self.two_settlements_of_one_account()
        self.a_reconciler_that_was_first()
        with transaction.atomic():
            assert make.broken_here() == []

    def two_opens_share_one_balance(self):
        make.make_account(100, "a")
        rows = [make.opening(make.ticket("a", self.price), 60) for _ in range(2)]
        first, second = self._overlap(OPEN_SQL, rows[0], OPEN_SQL, rows[1])
        assert (first[1], second[1]) == ("opened", "insufficient")
        assert make.state_of("a") == (100, 60)

    def two_settlements_of_one_request(self):
        one = self._opened("b")
        rows = [make.settlement(one, tokens).row() for tokens in (10, 20)]
        first, second = self._overlap(SETTLE_SQL, rows[0], SETTLE_SQL, rows[1])
        assert (first[1:], second[1:]) == (
            ("settled", 10, 0, 90, False),
            ("settled", 10, 0, 90, True),
        )

    def two_settlements_of_one_account(self):
        tickets = [self._opened("c"), make.ticket("c", self.price)]
        make.open_one(tickets[1], 30)
        rows = [make.settlement(one, 10).row() for one in tickets]
        self._overlap(SETTLE_SQL, rows[0], SETTLE_SQL, rows[1])
        assert make.state_of("c") == (80, 0)

    def a_reconciler_that_was_first(self):
        """It holds the request, then wants the account: the live path must not hold that."""
        one = self._opened("d")
        row = make.settlement(one, 10).row()
        lock = f"SELECT FROM llm_request_log WHERE id = '{one.id}' FOR UPDATE"
        first, second = self._overlap(SETTLE_SQL, row, SETTLE_SQL, row, before=lock)
        assert sorted((first[-1], second[-1])) == [False, True]

    def _opened(self, user_id):
        make.make_account(100, user_id)
        one = make.ticket(user_id, self.price)
        make.open_one(one, 30)
        return one

    def _overlap(self, first_sql, first, second_sql, second, before=None):
        """Run the first statement, and let the second begin before the first has committed."""
        with psycopg.connect(**self.params) as slow, psycopg.connect(**self.params) as fast:
            if before:
                slow.execute(before)
            result = None if before else self._run(slow, first_sql, first)
            begun = threading.Event()
            with ThreadPoolExecutor(1) as pool:
                racing = pool.submit(self._run, fast, second_sql, second, begun)
                begun.wait()
                self._wait_until_blocked(fast, racing)
                result = result or self._run(slow, first_sql, first)
                slow.commit()
                other = racing.result(10)
            fast.commit()
            return result, other

    @staticmethod
    def _wait_until_blocked(session, racing):
        """Look from outside, so as not to decide by a pause whether they overlapped."""
        pid = session.info.backend_pid
        while not racing.done():
            if make.run("SELECT pg_blocking_pids(%(pid)s)", {"pid": pid})[0][0]:
                return

    @staticmethod
    def _run(session, sql, row, begun=None):
        rows = orjson.dumps([row]).decode()
        params = {"ids": [row["id"]], "users": [row["user_id"]], "rows": rows}
        if begun:
            begun.set()
        return session.execute(sql, params).fetchone()


def in_schema(*statements):
    """Install functions beside the real ones, where only the racing sessions look."""
    install("DROP SCHEMA IF EXISTS mutant CASCADE; CREATE SCHEMA mutant")
    with transaction.atomic():
        install("SET LOCAL search_path = mutant, public")
        for sql in statements:
            install(sql)


@pytest.mark.django_db(transaction=True)
class TestRacingMutants:
    @pytest.fixture(autouse=True)
    def _schema(self):
        yield
        install("DROP SCHEMA IF EXISTS mutant CASCADE")

    def test_the_healthy_statements_pass(self):
        in_schema(*(resources.read_text("billing", f"sql/{n}.sql") for n in mutants.HEALTHY))

        Races(make.price()).check()

    @pytest.mark.parametrize("name", mutants.RACING)
    def test_is_noticed(self, name):
        in_schema(mutants.RACING[name].sql)

        with pytest.raises((AssertionError, psycopg.DatabaseError)):
            Races(make.price()).check()
