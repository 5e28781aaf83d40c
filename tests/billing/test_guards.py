"""What triggers hold: the chain of a ledger, closed requests, and that no row goes."""

from __future__ import annotations

import asyncio
from typing import Any

import psycopg
import pytest
from django.db import IntegrityError, connection, models, transaction

from airi_server.kernel import ids
from airi_server.kernel.threads import in_thread
from billing import ledger, requests
from billing.models import FluxAccount, FluxTransaction, LLMRequestLog
from tests.billing.corruption import corrupt
from tests.factories import billing as make
from tests.unguarded import GUARDS


def execute(statement, params=None):
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(statement, params)


def entry(seq, before, after, *, user_id="mio"):
    return FluxTransaction(
        user_id=user_id, user_seq=seq, kind="credit" if after > before else "debit",
        amount=abs(after - before), balance_before=before, balance_after=after, description="",
        created_at=make.NOW,
    )  # fmt: skip


def rows_read():
    """Return how many entries this transaction has met in scans, with an index or without."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_xact_user_tables WHERE relname = %s",
            [FluxTransaction._meta.db_table],
        )
        return cursor.fetchone()[0]


@pytest.mark.django_db
class TestChain:
    @pytest.mark.parametrize(
        "entries",
        [
            [entry(1, 5, 8)],
            [entry(2, 0, 3)],
            [entry(1, 0, 3), entry(2, 4, 5)],
            [entry(1, 0, 3), entry(3, 3, 5)],
            [entry(1, 0, 3), entry(2, 3, 5), entry(3, 3, 5)],
            [entry(1, 0, 3), entry(2, 3, 5, user_id="ria")],
        ],
    )
    @pytest.mark.parametrize("at_once", [True, False])
    def test_refuses_an_entry_that_does_not_begin_where_one_ended(self, entries, at_once):
        stray = f"entry {entries[-1].user_seq} of {entries[-1].user_id} does not begin"

        with pytest.raises(IntegrityError, match=stray) as refused, transaction.atomic():
            if at_once:
                FluxTransaction.objects.bulk_create(entries)
            for each in entries:
                each.save(force_insert=True)

        cause = refused.value.__cause__
        assert isinstance(cause, psycopg.Error)
        assert cause.diag.constraint_name == "flux_transaction_follows"

    def test_lets_whole_chains_in(self):
        chain = [entry(1, 0, 3), entry(2, 3, 5), entry(3, 5, 1)]
        other = [entry(1, 0, 9, user_id="ria")]

        FluxTransaction.objects.bulk_create([*reversed(chain), *other])
        entry(4, 1, 2).save(force_insert=True)

    def test_a_plan_made_while_the_ledger_was_empty_reads_no_whole_ledger_later(self):
        execute("ANALYZE flux_transaction")
        entry(1, 0, 1).save(force_insert=True)
        before = rows_read()

        FluxTransaction.objects.bulk_create(entry(n, n - 1, n) for n in range(2, 300))

        assert rows_read() - before < 2 * 300

    def test_a_balance_changed_by_hand_is_not_carried_on(self):
        make.make_account(100, "mio")
        FluxAccount.objects.update(balance=models.F("balance") + 1)

        with pytest.raises(IntegrityError, match="entry 3 of mio does not begin"):
            ledger.credit(user_id="mio", amount=1, request_id="c", description="", at=make.NOW)


@pytest.mark.django_db(transaction=True)
class TestChainOfBatches:
    @pytest.mark.asyncio
    async def test_one_broken_ledger_keeps_no_other_from_being_settled(self, hot):
        price = await make.new_price()
        names = ("mio", "ria", "zoe")
        tickets = [make.ticket(await make.account(100, name), price) for name in names]
        for one in tickets:
            await requests.open(one, hold=make.hold(10), deadline_s=60)
        await in_thread(corrupt)("UPDATE user_flux SET flux = 99 WHERE user_id = 'ria'", {})

        ends = [requests.settle(make.settlement(one, 7)) for one in tickets]
        ended: list[Any] = await asyncio.gather(*ends, return_exceptions=True)
        mio, ria, zoe = ended

        assert [getattr(end, "charged", end) for end in (mio, zoe)] == [7, 7]
        assert "entry 3 of ria does not begin" in str(ria)
        assert (await make.request(tickets[1])).state == "open"


CLOSED = {
    "settled": {"flux_consumed": 6, "unbilled": 1, "prompt_tokens": 8, "upstream": "other"},
    "voided": {"checkpoint": 1, "error_code": "OTHER", "failures": "[]", "reported": "{}"},
}
OPENED_WITH = {
    "id": ids.uuid7(), "user_id": "ria", "api_key_id": "k", "kind": "tts", "client_key": "c",
    "input_hash": b"x", "hold": 1, "model": "n", "stream": True, "prompt_estimate": 7,
    "price_version": 9, "instance_id": "i", "opened_at": make.NOW,
}  # fmt: skip
REOPEN = (
    "UPDATE llm_request_log SET state = 'open', settled_at = NULL, outcome = NULL,"
    " usage_source = 'none', flux_consumed = 0, unbilled = 0"
)


@pytest.fixture
def closed(request):
    """One closed request, in the state that the test asks for."""
    make.make_account(100, "mio")
    one = make.ticket("mio", make.price())
    make.open_one(one, 10)
    make.settle_one(make.settlement(one, 7 if request.param == "settled" else None))
    return make.request_of(one)


@pytest.mark.django_db
class TestClosedRequests:
    @pytest.mark.parametrize(
        ("closed", "column", "value"),
        [(state, *change) for state, columns in CLOSED.items() for change in columns.items()],
        indirect=["closed"],
    )
    def test_stay_as_they_are(self, closed, column, value):
        with pytest.raises(IntegrityError, match=f"request {closed.pk} is closed"):
            execute(f"UPDATE llm_request_log SET {column} = %s", [value])

        assert make.broken_here() == []

    @pytest.mark.parametrize("closed", CLOSED, indirect=True)
    def test_do_not_reopen(self, closed):
        with pytest.raises(IntegrityError, match=f"request {closed.pk} is closed"):
            execute(REOPEN)

        assert LLMRequestLog.objects.get().state == closed.state

    @pytest.mark.parametrize("closed", ["settled"], indirect=True)
    def test_nor_by_the_orm(self, closed):
        closed.unbilled = 3

        for rewrite in (closed.save, lambda: LLMRequestLog.objects.update(unbilled=3)):
            with pytest.raises(IntegrityError, match=r"stay|closed"), transaction.atomic():
                rewrite()

    @pytest.mark.parametrize("closed", ["settled"], indirect=True)
    def test_do_not_keep_open_ones_from_moving_on(self, closed):
        one = make.ticket("mio", make.price())
        make.open_one(one, 10)

        make.mark_batch((one, 2))

        assert make.settle_one(make.settlement(one, 3)).charged == 3


@pytest.mark.django_db
class TestOpenRequests:
    @pytest.mark.parametrize("column", OPENED_WITH)
    def test_keep_what_they_opened_with(self, column):
        make.make_account(100, "mio")
        make.open_one(make.ticket("mio", make.price()), 10)

        with pytest.raises(IntegrityError, match="rows of llm_request_log stay"):
            execute(f"UPDATE llm_request_log SET {column} = %s", [OPENED_WITH[column]])


@pytest.mark.django_db
class TestRows:
    @pytest.mark.parametrize("table", ["llm_request_log", "user_flux"])
    @pytest.mark.parametrize("statement", ["DELETE FROM {}", "TRUNCATE {} CASCADE"])
    @pytest.mark.parametrize("filled", [True, False])
    def test_are_never_deleted(self, table, statement, filled):
        if filled:
            make.make_account(100, "mio")
            make.open_one(make.ticket("mio", make.price()), 10)

        with pytest.raises(IntegrityError, match=f"rows of {table} are never deleted"):
            execute(statement.format(table))

    def test_nor_by_the_orm(self):
        make.make_account(100, "mio")
        make.open_one(make.ticket("mio", make.price()), 10)

        for table in (LLMRequestLog, FluxAccount):
            for rows in (table.objects.all(), table.objects.get()):
                with pytest.raises(IntegrityError, match="never deleted"), transaction.atomic():
                    rows.delete()

    def test_an_account_stays_its_users(self):
        make.make_account(100, "mio")

        with pytest.raises(IntegrityError, match="rows of user_flux stay"):
            execute("UPDATE user_flux SET user_id = 'ria'")


REFUSED = {
    # what a session tries that calls itself a replica: (statement, what it is told)
    "a stray entry": (
        (
            "INSERT INTO flux_transaction (user_id, user_seq, type, amount, balance_before,"
            " balance_after, description, created_at)"
            " VALUES ('mio', 9, 'credit', 1, 0, 1, '', now())"
        ),
        "does not begin",
    ),
    "history": ("UPDATE flux_transaction SET amount = amount", "append-only"),
    "no history": ("TRUNCATE flux_transaction CASCADE", "append-only"),
    "prices": ("DELETE FROM price_version", "append-only"),
    "checks": ("UPDATE reconciliation_run SET broken = 0", "append-only"),
    "revisions": ("DELETE FROM router_revision", "append-only"),
    "what operators did": ("DELETE FROM audit_entry", "append-only"),
    "a closed request": ("UPDATE llm_request_log SET unbilled = 1", "is closed"),
    "a hold": ("UPDATE llm_request_log SET hold = 1", "stay"),
    "a request": ("DELETE FROM llm_request_log", "never deleted"),
    "all requests": ("TRUNCATE llm_request_log", "never deleted"),
    "an account": ("DELETE FROM user_flux", "never deleted"),
}


@pytest.mark.django_db
class TestReplicas:
    """`session_replication_role = replica` passes ordinary triggers, and every foreign key."""

    @pytest.mark.parametrize("closed", ["settled"], indirect=True)
    @pytest.mark.parametrize("what", REFUSED)
    def test_are_refused_as_everybody_is(self, closed, what):
        statement, told = REFUSED[what]

        with pytest.raises(IntegrityError, match=told), transaction.atomic():
            with connection.cursor() as cursor:
                cursor.execute("SET LOCAL session_replication_role = replica")
                cursor.execute(statement)

    def test_pass_no_trigger_but_those_that_count(self):
        every = "SELECT tgname FROM pg_trigger WHERE NOT tgisinternal"

        ordinary = {name for (name,) in make.run(f"{every} AND tgenabled <> 'A'", {})}

        assert ordinary == {"character_like_is_counted", "character_bookmark_is_counted"}
        assert len(make.run(GUARDS, {})) == len(make.run(every, {})) - len(ordinary)
