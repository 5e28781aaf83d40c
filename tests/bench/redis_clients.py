"""What `RedisLink` saves: its commands and those of `redis.asyncio` on one Valkey, in turns.

Each side does what the hot path does for a request with both limits on, the place in parallel
waited for and the rest told, and what an announcement does; then a paid request without limits
says how much that is. The CPU is this process's own: the server's share is the client's.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Awaitable, Callable
from statistics import median
from typing import Any, Final, Protocol

from django.conf import settings
from redis import asyncio as redis_asyncio

from airi_server.kernel import redis, resources
from tests.bench import cases, pairs
from tests.bench.goals import Change, Findings, Goal
from tests.bench.pairs import Side
from tests.bench.rig import Rig

ACQUIRE_SLOT_LUA: Final = resources.read_text("llmrouter", "lua/acquire_slot.lua")
LEASE_S: Final = 60
KEPT_S: Final = 120
COMMANDS: Final = 4
"""Of a request with limits: EVAL, INCRBY, EXPIRE, ZREM."""
_AT_ONCE: Final = 16
_PATIENCE_S: Final = 5.0
"""Longer than the hot path waits, so that the slower one is measured and not cut short."""
_COUNT: Final = 10_000
_ROUNDS: Final = 7
_REQUEST_S: Final = 3.0
_WORTH: Final = 10.0
"""Percent of a request's CPU that a client of our own has to save."""

Work = Callable[[int], Awaitable[object]]


class Client(Protocol):
    """One way to Redis, and what this process used for 1,000 of each kind of work."""

    requests: list[float]
    announcements: list[float]

    async def request(self, number: int) -> object: ...
    async def announcement(self, number: int) -> object: ...
    async def settled(self) -> None:
        """Wait until everything that was told has been answered."""


class Link:
    """The commands as `llmrouter.gateway.limits` and `kernel.pubsub` send them."""

    def __init__(self) -> None:
        self.requests: list[float] = []
        self.announcements: list[float] = []

    async def request(self, number: int) -> None:
        link, user = redis.link(), f"bench:link:{number % _AT_ONCE}"
        counted = link.send("INCRBY", f"{user}:minute", 1)
        link.tell("EXPIRE", f"{user}:minute", KEPT_S)
        counted.add_done_callback(_heard)
        now = time.time()
        assert await link.ask("EVAL", ACQUIRE_SLOT_LUA, 1, user, now, now + LEASE_S, 100, number)
        link.tell("ZREM", user, number)

    async def announcement(self, _number: int) -> None:
        redis.link().tell("PUBLISH", "bench:link", b"x" * 200)
        await asyncio.sleep(0)

    async def settled(self) -> None:
        await redis.link().send("PING")


class Library:
    """The same with `redis.asyncio`, at its cheapest.

    One pipeline for what a request begins with, which it waits for as a whole; what is not waited
    for is a task, since every command is a coroutine.
    """

    def __init__(self) -> None:
        self.requests: list[float] = []
        self.announcements: list[float] = []
        self.redis: Any = None
        self._told: set[asyncio.Task[Any]] = set()

    def connect(self) -> None:
        pool = redis_asyncio.BlockingConnectionPool.from_url(
            settings.REDIS_URL, max_connections=4 * _AT_ONCE
        )
        self.redis = redis_asyncio.Redis(connection_pool=pool)

    async def request(self, number: int) -> None:
        user = f"bench:library:{number % _AT_ONCE}"
        now = time.time()
        line = self.redis.pipeline(transaction=False)
        line.incrby(f"{user}:minute", 1).expire(f"{user}:minute", KEPT_S)
        line.eval(ACQUIRE_SLOT_LUA, 1, user, now, now + LEASE_S, 100, number)
        async with asyncio.timeout(_PATIENCE_S):
            assert all(await line.execute())
        self._tell(self.redis.zrem(user, number))

    async def announcement(self, _number: int) -> None:
        self._tell(self.redis.publish("bench:library", b"x" * 200))
        await asyncio.sleep(0)

    async def settled(self) -> None:
        await asyncio.gather(*self._told)

    def _tell(self, command: Any) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(command)
        self._told.add(task)
        task.add_done_callback(self._told.discard)
        return task


def run(rig: Rig, options: argparse.Namespace) -> Findings:
    link, library = Link(), Library()
    rounds = options.rounds or _ROUNDS
    asyncio.run(_alternate(link, library, rounds))
    for name, client in (("RedisLink", link), ("redis.asyncio", library)):
        print(
            f"{name}: CPU s/1k: requests with limits {median(client.requests):.3f}, "
            f"announcements {median(client.announcements):.3f}",
            flush=True,
        )
    plain = Side("a request", cases.MANY, cases.own(rig, cases.MODEL), rig.books)
    faults = pairs.alternate(rig, [plain], seconds=min(options.seconds, _REQUEST_S), rounds=rounds)
    return Findings([_goal(link, library, plain.cpu_s["server"])], faults)


async def _alternate(link: Link, library: Library, rounds: int) -> None:
    library.connect()
    redis.link()
    while not redis.link().is_up:
        await asyncio.sleep(0.01)
    sides: list[Client] = [link, library]
    for side in sides:
        await _cost(side, side.request)
    for number in range(rounds):
        for side in sides if number % 2 == 0 else reversed(sides):
            side.requests.append(await _cost(side, side.request))
            side.announcements.append(await _cost(side, side.announcement))
    await redis.close()
    await library.redis.aclose()
    await library.redis.connection_pool.aclose()


async def _cost(side: Client, work: Work) -> float:
    """Return the CPU seconds that this process used for 1,000 of some work, so many at once."""
    began = time.process_time()

    async def one(first: int) -> None:
        for number in range(first, _COUNT, _AT_ONCE):
            await work(number)

    await asyncio.gather(*(one(first) for first in range(_AT_ONCE)))
    await side.settled()
    return 1000 * (time.process_time() - began) / _COUNT


def _heard(reply: asyncio.Future[Any]) -> None:
    assert reply.result()


def _goal(link: Link, library: Library, request: float) -> Goal:
    saved = median(library.requests) - median(link.requests)
    percent = 100 * saved / (request + median(link.requests))
    times = Change.between(link.requests, library.requests)
    return Goal(
        f"RedisLink saves at least {_WORTH:.0f} % of the CPU of a request with limits",
        f"{saved:.3f} CPU s/1k for {COMMANDS} commands, {percent:.0f} % of a request "
        f"({request:.3f} without limits); redis.asyncio costs {times}",
        percent >= _WORTH,
    )
