"""PostgreSQL without a place on its disk, behind somebody's lock, or with hardly a connection."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager

import psycopg
import pytest
from django.db import connection

from airi_server.kernel import database
from airi_server.kernel.threads import in_thread
from tests.factories import gateway
from tests.fakes.upstream import answer
from tests.faults.crowd import BODY, PATH, STREAM
from tests.lab import books
from tests.lab.server import database_url

pytestmark = pytest.mark.asyncio
FULL = """
CREATE FUNCTION disk_is_full() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = '53100';
END $$;
CREATE TRIGGER disk_is_full BEFORE INSERT ON {table}
    FOR EACH ROW EXECUTE FUNCTION disk_is_full()
"""


def execute(sql):
    with connection.cursor() as cursor:
        cursor.execute(sql)


@contextmanager
def full_disk(table):
    """Answer every insert as PostgreSQL does when a file of this table cannot grow."""
    execute(FULL.format(table=table))
    try:
        yield
    finally:
        execute("DROP FUNCTION disk_is_full() CASCADE")


async def seen(upstream, count):
    async with asyncio.timeout(20):
        while len(upstream.seen) < count:
            await asyncio.sleep(0.01)


class TestFullDisk:
    async def test_for_the_open_row_means_no_upstream_call(self, served, upstream):
        caller = await gateway.caller(flux=100)
        await gateway.route(upstream.base_url)
        full = full_disk("llm_request_log")

        await in_thread(full.__enter__)()
        try:
            refused = [await served.post(PATH, body, caller.key) for body in (BODY, STREAM)]
        finally:
            await in_thread(full.__exit__)(None, None, None)
        after = await served.post(PATH, BODY, caller.key)

        for response in refused:
            assert (response.status, response.headers["Retry-After"]) == (503, "1")
            assert response.json()["error"]["code"] == "SERVICE_UNAVAILABLE"
        assert (after.status, len(upstream.seen)) == (200, 1)
        await books.are_in_order()

    async def test_for_the_entry_is_waited_out_before_the_answer(self, served, upstream):
        caller = await gateway.caller(flux=100)
        await gateway.route(upstream.base_url)
        full = full_disk("flux_transaction")

        await in_thread(full.__enter__)()
        try:
            asking = asyncio.create_task(served.post(PATH, BODY, caller.key))
            await seen(upstream, 1)
            await asyncio.sleep(0.3)
            assert not asking.done()
        finally:
            await in_thread(full.__exit__)(None, None, None)

        assert (await asking).status == 200
        assert await books.charges_of(caller.user_id) == [1]
        await books.are_in_order()


async def test_a_lock_somebody_holds_is_503_in_time_and_a_settlement_outlasts_it(served, upstream):
    caller, other = await gateway.caller(flux=100), await gateway.caller(flux=100)
    await gateway.route(upstream.base_url)
    upstream.script(answer(after_s=0.3), answer())
    under_way = asyncio.create_task(served.post(PATH, BODY, caller.key))
    await seen(upstream, 1)

    with psycopg.connect(database_url()) as session:
        session.execute("SELECT FROM user_flux WHERE user_id = %s FOR UPDATE", [caller.user_id])
        refused = await served.post(PATH, BODY, caller.key)
        unrelated = await served.post(PATH, BODY, other.key)
        assert not under_way.done()

    assert (refused.status, refused.headers["Retry-After"]) == (503, "1")
    assert unrelated.status == 200
    assert (await under_way).status == 200
    assert len(upstream.seen) == 2
    assert await books.charges_of(caller.user_id) == [1]
    await books.are_in_order()


async def test_fifty_stalled_upstreams_and_two_connections_leave_reads_alone(
    served, upstream, settings
):
    """I24: nothing holds a connection while it waits for an upstream."""
    await database.close()
    settings.HOT_POOL_MAX = 2
    caller = await gateway.caller(flux=1000)
    await gateway.route(upstream.base_url)
    go_on = asyncio.Event()

    async def stalled(request):
        await go_on.wait()
        return await answer()(request)

    upstream.script(stalled)
    asking = [asyncio.create_task(served.post(PATH, BODY, caller.key)) for _ in range(50)]
    await seen(upstream, 50)

    balances = await asyncio.gather(*(served.get("/api/v1/flux", caller.key) for _ in range(5)))
    assert not any(each.done() for each in asking)
    go_on.set()
    answers = await asyncio.gather(*asking)

    assert {(each.status, each.json()["flux"]) for each in balances} == {(200, 1000)}
    assert {each.status for each in answers} == {200}
    assert database._pools.get().get_stats()["pool_max"] == 2
    assert await books.charges_of(caller.user_id) == [1] * 50
    await books.are_in_order()
