"""Refusals: all are counted, the first leave rows, a flood costs so many statements a second."""

from __future__ import annotations

import asyncio
import math
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
import pytest_asyncio
from django.db.models import Sum

from airi_server.kernel import database, ids
from airi_server.kernel.threads import in_thread
from billing.models import RefusalHour, RefusedRequest
from billing.usage import refusals
from billing.usage.refusals import RefusalRecord
from tests.lab.server import database_url

NOW = datetime(2026, 3, 1, 12, 34, 56, tzinfo=UTC)
HOUR = timedelta(hours=1)


def refusal(user_id="mio", **fields):
    ordinary = {
        "id": ids.uuid7(), "kind": "chat", "status": 503, "code": "SERVICE_UNAVAILABLE",
        "message": "Every key rests.", "api_key_id": "k1" if user_id else "",
        "model": "chat-default", "is_routed": True,
    }  # fmt: skip
    return RefusalRecord(user_id=user_id, **{**ordinary, **fields})


async def record(*refused, at=NOW):
    await asyncio.gather(*(refusals.record(each, at=at) for each in refused))


@in_thread
def rows(**conditions):
    return list(RefusedRequest.objects.filter(**conditions).order_by("id"))


@in_thread
def counted(**conditions):
    found = RefusalHour.objects.filter(**conditions)
    return found.aggregate(n=Sum("count", default=0))["n"]


@in_thread
def insert(*made):
    RefusedRequest.objects.bulk_create(made)


@in_thread
def hours():
    found = RefusalHour.objects.order_by("user_id", "hour", "model", "code")
    return list(found.values_list("user_id", "model", "code", "count"))


@pytest_asyncio.fixture
async def locked(hot):
    """The table of counts, which nobody can write to until `release` is called."""
    await record(refusal(code="FIRST"))
    with psycopg.connect(database_url()) as session:
        session.execute("LOCK TABLE refusal_hour IN ACCESS EXCLUSIVE MODE")
        yield session


@pytest.mark.asyncio
class TestRecord:
    async def test_leaves_a_row_and_a_count(self, hot):
        made = refusal()

        await record(made)

        (row,) = await rows()
        assert (row.id, row.user_id, row.api_key_id, row.model) == (
            made.id, "mio", "k1", "chat-default",
        )  # fmt: skip
        assert (row.kind, row.status, row.code) == ("chat", 503, "SERVICE_UNAVAILABLE")
        assert (row.message, row.at) == ("Every key rests.", NOW)
        hour = await in_thread(RefusalHour.objects.get)()
        assert (hour.user_id, hour.hour, hour.api_key_id, hour.model, hour.code) == (
            "mio", NOW.replace(minute=0, second=0), "k1", "chat-default", "SERVICE_UNAVAILABLE",
        )  # fmt: skip
        assert (hour.count, hour.status, hour.first_at, hour.last_at) == (1, 503, NOW, NOW)

    async def test_is_one_round_trip(self, hot):
        await record(refusal())
        trips = database.round_trips

        await record(refusal())

        assert database.round_trips - trips == 1

    async def test_a_flood_of_one_key_leaves_a_hundred_rows_an_hour_and_exact_counts(self, hot):
        began, trips = asyncio.get_running_loop().time(), database.round_trips

        for _ in range(10):
            await record(*(refusal() for _ in range(1_000)))
        await record(*(refusal(code="OTHER") for _ in range(3)), refusal(api_key_id="k2"))
        await refusals.close()

        took = asyncio.get_running_loop().time() - began
        assert len(await rows(code="SERVICE_UNAVAILABLE", api_key_id="k1")) == 100
        assert len(await rows()) == 104
        assert await counted() == 10_004
        assert await counted(code="SERVICE_UNAVAILABLE", api_key_id="k1") == 10_000
        assert database.round_trips - trips <= math.ceil(took / refusals.PAUSE_S) + 1

        await record(refusal(), at=NOW + HOUR)

        assert len(await rows(code="SERVICE_UNAVAILABLE", api_key_id="k1")) == 101

    async def test_many_callers_at_once_share_statements_and_the_rest_is_counted(self, hot):
        trips = database.round_trips

        await record(*(refusal(user_id=f"u{number}") for number in range(600)))
        await refusals.close()

        assert len(await rows()) == refusals.MAX_WAITING
        assert await counted() == 600
        assert database.round_trips - trips <= 6

    async def test_a_flood_of_strangers_costs_no_statement(self, hot):
        trips = database.round_trips

        await record(*(refusal(user_id="", code="UNAUTHORIZED") for _ in range(5_000)))

        assert database.round_trips == trips

        await record(refusal())

        assert database.round_trips == trips + 1
        assert await counted(user_id="") == 5_000
        assert [row.user_id for row in await rows()] == ["mio"]

    async def test_strangers_wait_for_others_a_minute_at_most(self, hot, monkeypatch):
        await record(refusal(user_id=""))
        monkeypatch.setattr(refusals, "STRANGERS_WAIT_S", 0)
        trips = database.round_trips

        await record(*(refusal(user_id="") for _ in range(600)))
        await refusals.close()

        assert await counted(user_id="") == 601
        assert 1 <= database.round_trips - trips <= 7

    async def test_more_callers_than_can_wait_are_counted_together(self, hot, monkeypatch):
        monkeypatch.setattr(refusals, "MAX_COUNTS", 2)
        monkeypatch.setattr(refusals, "MAX_WAITING", 1)

        await record(*(refusal(user_id=f"u{number}") for number in range(5)))
        await refusals.close()

        assert await hours() == [
            ("", "chat-default", "SERVICE_UNAVAILABLE", 3),
            ("u0", "chat-default", "SERVICE_UNAVAILABLE", 1),
            ("u1", "chat-default", "SERVICE_UNAVAILABLE", 1),
        ]

    async def test_a_name_of_no_model_is_on_the_row_only(self, hot):
        await record(refusal(model="x" * 100, is_routed=False))

        assert [row.model for row in await rows()] == ["x" * 64]
        assert await hours() == [("mio", "", "SERVICE_UNAVAILABLE", 1)]

    async def test_keeps_of_odd_letters_what_a_database_can_keep(self, hot):
        odd = refusal(model="a\x00b", is_routed=False, message="\ud800" + "é" * 300)

        await record(odd)

        (row,) = await rows()
        assert (row.model, row.message) == ("a\ufffdb", "?" + "é" * 199)

    async def test_waits_a_moment_only(self, locked, monkeypatch):
        monkeypatch.setattr(refusals, "PATIENCE_S", 0.05)
        made = refusal()

        await record(made)
        assert await rows(id=made.id) == []
        locked.rollback()
        await refusals.close()

        assert len(await rows(id=made.id)) == 1


@pytest.mark.asyncio
class TestDatabaseAway:
    async def test_loses_rows_and_keeps_counts(self, database_line, hot, monkeypatch, caplog):
        monkeypatch.setattr(refusals, "PATIENCE_S", 10)
        before, during = refusal(), [refusal() for _ in range(50)]
        await record(before)
        database_line.cut()

        await record(*during)
        await record(*(refusal(user_id="") for _ in range(50)))

        said = [each.message for each in caplog.records if each.name == refusals.logger.name]
        assert said == ["Unable to record refusals"]
        database_line.mend()
        after: list[RefusalRecord] = []
        async with asyncio.timeout(30):
            while not after or not await rows(id=after[-1].id):
                after.append(refusal())
                await record(after[-1])
        written = {row.id for row in await rows()}
        assert written & {each.id for each in (before, *during)} == {before.id}
        assert await counted(user_id="") == 50
        assert await counted(user_id="mio") == 51 + len(after)

    async def test_a_bad_statement_is_dropped_and_the_next_works(self, hot, monkeypatch, caplog):
        with monkeypatch.context() as broken:
            broken.setattr(refusals, "RECORD_SQL", "SELECT 1 / 0")
            await record(refusal())

        await record(refusal())

        assert len(await rows()) == 1
        assert await counted() == 1
        assert [each.message for each in caplog.records] == ["Refusals could not be recorded"]


@pytest.mark.asyncio
class TestClose:
    async def test_waits_for_what_is_not_written(self, locked):
        waiting = asyncio.gather(*(refusals.record(refusal(), at=NOW) for _ in range(300)))
        await asyncio.sleep(0)
        closing = asyncio.create_task(refusals.close())
        done, _ = await asyncio.wait({closing}, timeout=0.1)
        assert not done

        locked.rollback()
        await closing
        await waiting

        assert len(await rows(code="SERVICE_UNAVAILABLE")) == 100
        assert await counted(code="SERVICE_UNAVAILABLE") == 300

    async def test_writes_the_counts_of_strangers(self, hot):
        await record(*(refusal(user_id="") for _ in range(3)))

        await refusals.close()

        assert await counted(user_id="") == 3

    async def test_gives_up_after_a_while(self, locked, monkeypatch, caplog):
        monkeypatch.setattr(refusals, "LAST_S", 0.1)
        monkeypatch.setattr(refusals, "PATIENCE_S", 0.05)
        await record(refusal())

        await refusals.close()

        assert caplog.records[-1].message == "Ended with refusals unwritten"


@pytest.mark.asyncio
class TestPruning:
    async def test_forgets_twice_as_many_old_ones_as_come(self, hot):
        now = datetime.now(UTC)
        old = [stored(now - refusals.KEPT - timedelta(minutes=number)) for number in range(1, 31)]
        young = stored(now - refusals.KEPT + timedelta(minutes=1))
        await insert(*old, young)

        await record(*(refusal(user_id=f"u{number}") for number in range(10)))

        left = {row.id for row in await rows()}
        assert len(left) == 1 + 10 + 10
        assert young.id in left
        assert {row.id for row in old[:10]} <= left, "the oldest go first"

    async def test_forgets_counts_after_25_months(self, hot):
        now = datetime.now(UTC)
        await record(refusal(code="OLD"), at=now - refusals.COUNTS_KEPT - HOUR)
        await record(refusal(code="YOUNG"), at=now - refusals.COUNTS_KEPT + HOUR)
        await record(refusal(), at=now)

        assert [code for _, _, code, _ in await hours()] == ["YOUNG", "SERVICE_UNAVAILABLE"]


def stored(at, user_id="mio"):
    return RefusedRequest(
        id=ids.first_uuid7_at(at), user_id=user_id, api_key_id="", model="", kind="chat",
        status=429, code="TOO_MANY_REQUESTS", message="", at=at,
    )  # fmt: skip


def hour(at, count, **fields):
    ordinary = {"user_id": "mio", "api_key_id": "k1", "model": "m", "code": "X", "status": 503}
    return RefusalHour.objects.create(
        **{**ordinary, **fields}, hour=at.replace(minute=0, second=0), count=count,
        first_at=at, last_at=at,
    )  # fmt: skip


@pytest.mark.django_db
class TestReading:
    @pytest.fixture(autouse=True)
    def some_hours(self):
        hour(NOW - 3 * HOUR, 1000)
        hour(NOW - HOUR, 5)
        hour(NOW, 2)
        hour(NOW, 4, user_id="ria", api_key_id="k2")
        hour(NOW, 3, model="", code="unknown_model", status=400)
        hour(NOW, 7, user_id="", api_key_id="", model="", code="UNAUTHORIZED", status=401)

    def test_by_model_sums_callers_and_hours(self):
        found = refusals.by_model(since=NOW - 2 * HOUR)

        assert [(each.model, each.code, each.count, each.status) for each in found] == [
            ("m", "X", 11, 503),
            ("", "UNAUTHORIZED", 7, 401),
            ("", "unknown_model", 3, 400),
        ]
        assert (found[0].first_at, found[0].last_at) == (NOW - HOUR, NOW)

    def test_does_not_count_an_hour_that_ended_before(self):
        assert refusals.by_model(since=NOW + timedelta(seconds=1)) == []

    def test_forgets_a_user(self):
        stored(NOW).save()
        stored(NOW + HOUR, user_id="ria").save()

        refusals.forget(user_id="mio", at=NOW)
        refusals.forget(user_id="mio", at=NOW)

        assert [row.user_id for row in RefusedRequest.objects.all()] == ["ria"]
        assert not RefusalHour.objects.filter(user_id="mio").exists()
        assert RefusalHour.objects.filter(user_id="ria").exists()
