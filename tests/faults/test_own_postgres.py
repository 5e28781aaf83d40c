"""PostgreSQL restarted, killed, read-only and dumped under load."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from django.db import connection

from billing import reconciliation
from billing.models import LLMRequestLog
from tests import serving_role
from tests.factories import billing as make
from tests.factories import gateway
from tests.fakes.upstream import DONE, answer
from tests.faults import crowd
from tests.faults.crowd import Call, Crowd
from tests.faults.gates import Gate
from tests.faults.own_servers import working_on
from tests.lab import books

FOUND = LLMRequestLog.objects
NEW_KEY = ("/api/v1/keys", {"name": "laptop"})


def calls_to(server, caller, *, plain, streamed):
    bodies = [crowd.BODY] * plain + [crowd.STREAM] * streamed
    return [Call(server.base_url, caller.key, body) for body in bodies]


def wait_until(is_so):
    until = time.monotonic() + 40
    while not is_so():
        assert time.monotonic() < until
        time.sleep(0.01)


class TestRestart:
    @pytest.mark.parametrize("how", ["stop", "kill"])
    def test_under_200_requests_refuses_new_ones_and_loses_none(
        self, fleet, postgres, provider, how
    ):
        gateway.make_route(provider.base_url)
        caller = gateway.make_caller(flux=100_000)
        gate = Gate()
        provider.script(gate.step)
        server = fleet.start()
        with Crowd(calls_to(server, caller, plain=150, streamed=50)) as clients:
            wait_until(lambda: len(provider.seen) == 200)
            wait_until(lambda: FOUND.filter(state="streaming").count() == 50)

            getattr(postgres, how)()
            gate.open()
            refused = httpx.post(
                server.base_url + crowd.PATH,
                json=crowd.BODY,
                headers={"Authorization": f"Bearer {caller.key}"},
                timeout=30,
            )
            postgres.start()
        connection.close()
        server.ready()

        assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")
        assert refused.json()["error"]["code"] == "SERVICE_UNAVAILABLE"
        assert {(told.status, told.cut) for told in clients.answers} == {(200, False)}
        assert all(told.text.endswith(DONE) for told in clients.answers[150:])
        wait_until(lambda: books.open_rows() == 0)
        assert len(provider.seen) == 200
        assert books.charges(caller.user_id) == [1] * 200
        fleet.reconcile()
        books.in_order()


def test_after_a_restart_one_caller_at_most_meets_a_connection_that_died(fleet, postgres):
    """Keys, grants and the console have a pool of their own; the paid path tries again."""
    caller = gateway.make_caller()
    server = fleet.start()

    def ask(_number=0):
        headers = {"Authorization": f"Bearer {caller.key}"}
        return httpx.get(server.base_url + NEW_KEY[0], headers=headers, timeout=30).status_code

    with ThreadPoolExecutor(8) as at_once:
        before = list(at_once.map(ask, range(8)))
    postgres.stop()
    postgres.start()
    connection.close()

    assert before == [200] * 8
    assert sorted(ask() for _ in range(8))[:7] == [200] * 7


@pytest.mark.asyncio
async def test_read_only_means_no_upstream_call_and_is_over_by_itself(postgres, served, upstream):
    """As on a standby that was not promoted yet, or when the disk is about to be full."""
    caller = await gateway.caller(flux=100)
    await gateway.route(upstream.base_url)
    upstream.script(answer(after_s=0.5), answer())
    under_way = asyncio.create_task(served.post(crowd.PATH, crowd.BODY, caller.key))
    async with asyncio.timeout(10):
        while not upstream.seen:
            await asyncio.sleep(0.01)

    postgres.make_read_only(True)
    refused = [
        await served.post(path, body, caller.key)
        for path, body in ((crowd.PATH, crowd.BODY), (crowd.PATH, crowd.STREAM), NEW_KEY)
    ]
    await asyncio.sleep(0.7)
    assert not under_way.done()
    postgres.make_read_only(False)
    settled = await under_way
    after = await served.post(crowd.PATH, crowd.BODY, caller.key)
    made = await served.post(*NEW_KEY, caller.key)

    assert [each.status for each in refused] == [503, 503, 503]
    assert {each.headers["Retry-After"] for each in refused} == {"1"}
    assert (settled.status, after.status, made.status) == (200, 200, 201)
    assert len(upstream.seen) == 2
    assert await books.charges_of(caller.user_id) == [1, 1]
    await books.are_in_order()


def test_a_dump_taken_under_load_and_restored_passes_every_invariant(
    fleet, postgres, provider, tmp_path
):
    gateway.make_route(provider.base_url)
    caller = gateway.make_caller(flux=100_000)
    gate = Gate(holds_plain=False)
    provider.script(gate.step)
    server = fleet.start()
    dump, copy = tmp_path / "dump", {**postgres.settings, "NAME": "copy"}
    with Crowd(calls_to(server, caller, plain=40, streamed=20)):
        wait_until(lambda: FOUND.filter(state="streaming").count() == 20)
        postgres.execute("DROP DATABASE IF EXISTS copy")
        postgres.execute("CREATE DATABASE copy")
        postgres.run("pg_dump", "--format=custom", f"--file={dump}", postgres.server.url)
        gate.open()
    postgres.run("pg_restore", "--exit-on-error", f"--dbname={postgres.url_of('copy')}", dump)
    left = FOUND.count()

    with copied(copy), reconciliation.snapshot():
        restored, caught = FOUND.count(), books.open_rows()
        assert make.broken_here() == []
    fleet.database = copy | serving_role.settings()
    settled = fleet.reconcile("--settle")
    with copied(copy):
        books.in_order()

    assert left == 60
    assert 20 <= caught <= restored <= 60
    assert f"{caught} ended" in settled
    books.in_order()


def copied(settings):
    """Look at a copy as it is."""
    return working_on(settings, emptied=False)
