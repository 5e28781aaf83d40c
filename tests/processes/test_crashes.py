"""A server process killed, or told to stop, in the middle of paid work."""

from __future__ import annotations

import asyncio
import signal
import threading
import time

import aiohttp
import httpx
import pytest
from django.db import connection

from billing.models import FluxAccount, FluxTransaction, LLMRequestLog
from tests.factories import gateway
from tests.fakes.upstream import answer, chunk, stream
from tests.lab.server import ServerProcess

BODY = {"model": "auto", "messages": [{"role": "user", "content": "hi"}]}
STREAM = {**BODY, "stream": True}


async def hold_streams(base_url: str, key: str, count: int, ready: threading.Event) -> list[str]:
    """Open streams, tell when each has delivered something, read on until they end or die."""
    arrived = 0

    async def one(session: aiohttp.ClientSession) -> str:
        nonlocal arrived
        text = b""
        try:
            async with session.post(
                f"{base_url}/v1/chat/completions",
                json=STREAM,
                headers={"Authorization": f"Bearer {key}"},
            ) as response:
                async for part in response.content.iter_any():
                    if not text:
                        arrived += 1
                        if arrived == count:
                            ready.set()
                    text += part
        except aiohttp.ClientError:
            return f"cut:{text.decode()}"
        return f"end:{text.decode()}"

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        return await asyncio.gather(*(one(session) for _ in range(count)))


class Streams(threading.Thread):
    """Fifty clients in a thread, so that the test can kill their server."""

    def __init__(self, base_url: str, key: str, count: int) -> None:
        super().__init__(daemon=True)
        self.ready = threading.Event()
        self.results: list[str] = []
        self._arguments = (base_url, key, count, self.ready)

    def run(self) -> None:
        self.results = asyncio.run(hold_streams(*self._arguments))


@pytest.fixture
def caller(transactional_db, provider):
    gateway.make_route(provider.base_url)
    return gateway.make_caller(flux=100_000)


def open_rows() -> int:
    return LLMRequestLog.objects.filter(settled_at__isnull=True).count()


def test_killed_during_fifty_streams_everything_is_settled_by_one_command(
    fleet, caller, provider, server_log
):
    provider.script(stream([chunk() for _ in range(5)], then="hang"))
    with ServerProcess(server_log) as server:
        streams = Streams(server.base_url, caller.key, 50)
        streams.start()
        assert streams.ready.wait(30)
        server.end(signal.SIGKILL)
        streams.join(30)
        assert all(result.startswith("cut:") for result in streams.results)
        assert open_rows() == 50

        server.start()
        assert fleet.reconcile().count("orphan\t") == 50
        settled = fleet.reconcile("--settle")
        assert open_rows() == 0, settled
        fleet.reconcile("--settle")

    rows = LLMRequestLog.objects.filter(user_id=caller.user_id)
    assert {(row.state, row.outcome, row.usage_source) for row in rows} == {
        ("settled", "orphaned", "estimated")
    }
    account = FluxAccount.objects.get(user_id=caller.user_id)
    debits = FluxTransaction.objects.filter(user_id=caller.user_id, kind="debit")
    assert account.held == 0
    assert debits.count() == 50
    assert 100_000 - account.balance == sum(debit.amount for debit in debits)


def test_killed_between_the_upstream_and_the_answer_nothing_is_charged(fleet, caller, provider):
    provider.script(answer(after_s=20))
    server = fleet.start()
    waiting = threading.Thread(target=post_in_vain, args=(server.base_url, caller.key))
    waiting.start()
    until = time.monotonic() + 10
    while not provider.seen and time.monotonic() < until:
        time.sleep(0.02)
    assert provider.seen
    server.end(signal.SIGKILL)
    waiting.join(10)

    fleet.reconcile("--settle")
    (row,) = LLMRequestLog.objects.all()
    assert (row.state, row.flux_charged) == ("voided", 0)
    assert FluxAccount.objects.get(user_id=caller.user_id).held == 0
    fleet.reconcile()


def post(base_url: str, key: str) -> httpx.Response:
    return httpx.post(
        f"{base_url}/v1/chat/completions",
        json=BODY,
        headers={"Authorization": f"Bearer {key}"},
        timeout=30,
    )


def test_postgresql_sessions_name_the_instance(server, caller):
    post(server.base_url, caller.key)

    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT application_name FROM pg_stat_activity WHERE datname = current_database()"
        )
        names = {name for (name,) in cursor.fetchall()}

    (row,) = LLMRequestLog.objects.all()
    assert f"airi {row.instance_id}"[:63] in names


def post_in_vain(base_url: str, key: str) -> None:
    with pytest.raises(httpx.HTTPError):
        post(base_url, key)
