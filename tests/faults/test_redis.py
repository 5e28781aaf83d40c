"""Redis killed, slow, emptied in a loop and lying: freshness suffers, no Flux moves wrongly."""

from __future__ import annotations

import asyncio
import random
import signal
import tempfile
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
from redis import asyncio as redis_py

from airi_server.kernel import redis
from airi_server.launch.valkey import Valkey
from tests.factories import gateway
from tests.fakes.proxy import FaultyProxy
from tests.fakes.upstream import answer, frames, refuse, stream
from tests.faults.crowd import BODY, PATH, STREAM
from tests.lab import books

pytestmark = pytest.mark.asyncio
LIES = (
    b"+OK\r\n", b"-ERR nonsense\r\n", b":-1\r\n", b":9223372036854775807\r\n", b"$-1\r\n",
    b"$3\r\nyes\r\n", b"*0\r\n", b"*2\r\n$1\r\na\r\n:7\r\n", b"*-1\r\n",
    b"*3\r\n$7\r\nmessage\r\n$1\r\nx\r\n$1\r\ny\r\n", b"\x00\xff\r\n",
)  # fmt: skip


class OwnValkey:
    """Start it in the main thread: it ends with the thread that has started it."""

    def __init__(self, directory: Path) -> None:
        self.server = Valkey(directory)
        self.url = self.server.url
        self.start()

    def start(self) -> None:
        self.server.start()
        self.server.wait()

    def kill(self) -> None:
        self.server._process.send_signal(signal.SIGKILL)
        self.server._process.wait()


@pytest.fixture
def valkey():
    with tempfile.TemporaryDirectory(prefix="airi-faults-") as directory:
        made = OwnValkey(Path(directory))
        yield made
        made.server.stop()


@pytest_asyncio.fixture
async def limited(served, upstream):
    """Someone whose every request asks Redis: for two windows and a slot."""
    caller = await gateway.caller(
        flux=1000, requests_per_minute=1000, tokens_per_minute=10**6, parallel_requests=100
    )
    await gateway.places((upstream.base_url, 2))
    return caller


async def use(url, settings):
    await redis.close()
    settings.REDIS_URL = url
    async with asyncio.timeout(10):
        while not redis.link().is_up:
            await asyncio.sleep(0.005)


async def storm(served, upstream, caller, count=40):
    """Ask for plain and streamed answers, some twice with one key; return the statuses."""
    told = stream(frames("a", "b"), pause_s=0.02)

    async def step(request):
        streamed = (await request.json()).get("stream")
        return await (told if streamed else answer(after_s=0.02))(request)

    upstream.script(step)
    asking = [
        served.post(
            PATH, (BODY, STREAM)[n % 2], caller.key, **{"Idempotency-Key": f"{caller.key_id}{n}"}
        )
        for n in range(count)
    ]
    statuses = [response.status for response in await asyncio.gather(*asking)]
    again = [
        await served.post(PATH, BODY, caller.key, **{"Idempotency-Key": f"{caller.key_id}{n}"})
        for n in range(0, 10, 2)
    ]
    assert {response.status for response in again} == {200}
    return statuses


async def paid(caller, count):
    assert await books.charges_of(caller.user_id) == [1] * count
    await books.are_in_order()


async def test_killed_and_started_again_under_load(served, upstream, limited, valkey, settings):
    await use(valkey.url, settings)
    upstream.script(answer(after_s=0.4), answer())
    under_way = [asyncio.create_task(served.post(PATH, BODY, limited.key)) for _ in range(20)]
    await asyncio.sleep(0.1)

    valkey.kill()
    without = await storm(served, upstream, limited)
    valkey.start()
    async with asyncio.timeout(10):
        while not redis.link().is_up:
            await asyncio.sleep(0.01)
    after = await storm_again(served, upstream, limited)

    assert {response.status for response in await asyncio.gather(*under_way)} == {200}
    assert {*without, *after} == {200}
    await paid(limited, 20 + len(without) + len(after))


async def storm_again(served, upstream, limited):
    upstream.script(answer())
    asking = (served.post(PATH, BODY, limited.key) for _ in range(20))
    return [response.status for response in await asyncio.gather(*asking)]


async def test_two_seconds_an_operation_holds_nobody_up_for_that_long(
    served, upstream, limited, valkey, settings
):
    parts = urlsplit(valkey.url)
    async with FaultyProxy("127.0.0.1", parts.port or 0) as proxy:
        await use(f"redis://:{parts.password}@127.0.0.1:{proxy.port}/0", settings)
        proxy.latency_s = 2.0

        async with asyncio.timeout(20):
            statuses = [await one(served, limited) for _ in range(20)]
        sent = redis.commands_sent
        async with asyncio.timeout(20):
            statuses += await storm(served, upstream, limited, 20)
        await redis.close()

    assert set(statuses) == {200}
    assert sent > 0
    await paid(limited, 40)


async def one(served, caller):
    return (await served.post(PATH, BODY, caller.key)).status


async def test_emptied_in_a_loop(served, upstream, limited, valkey, settings):
    await use(valkey.url, settings)
    enough = asyncio.Event()

    async def empty():
        emptied = 0
        async with redis_py.Redis.from_url(valkey.url) as client:
            while not enough.is_set():
                await client.flushall()
                emptied += 1
                await asyncio.sleep(0.001)
        return emptied

    emptying = asyncio.create_task(empty())
    try:
        statuses = await storm(served, upstream, limited)
    finally:
        enough.set()

    assert await emptying > 5
    assert set(statuses) == {200}
    await paid(limited, len(statuses))


@asynccontextmanager
async def liar(seed):
    """Answer whatever is asked with something; yield the port."""
    dice = random.Random(seed)

    async def lie(reader, writer):
        try:
            while await reader.read(65_536):
                writer.write(dice.choice(LIES))
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(lie, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_lying_about_everything(served, upstream, limited, settings, seed):
    """It may refuse by a limit it has made up; it never makes anything cost more, or nothing."""
    async with liar(seed) as port:
        await use(f"redis://127.0.0.1:{port}/0", settings)
        upstream.script(refuse(429), answer())
        statuses = [await one(served, limited) for _ in range(40)]
        await redis.close()

    assert set(statuses) <= {200, 429}
    assert 200 in statuses
    await paid(limited, statuses.count(200))
