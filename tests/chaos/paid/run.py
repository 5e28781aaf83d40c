"""One run over paid requests: set up, let things go wrong, heal, settle, and judge."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import aiohttp

from airi_server.launch.postgres import SERVING
from tests.chaos import faults, stage
from tests.chaos.chat import run as chat
from tests.chaos.chat import witness as chat_witness
from tests.chaos.chat.client import Person as Talker
from tests.chaos.faults import OF_MACHINES, Fault, Kind
from tests.chaos.paid import books, provider, served, witness
from tests.chaos.paid.customers import Customers
from tests.chaos.paid.record import OPERATOR, Happened, Person, Record
from tests.chaos.paid.report import Report
from tests.chaos.stage import Stage
from tests.lab.balancer import Balancer

KINDS: Final = (
    *OF_MACHINES,
    Kind.DATABASE_KILLED,
    Kind.PERSON_BANNED,
    Kind.KEY_DISABLED,
    *[Kind.ROUTES_MOVED] * 3,
)
_RICH: Final = 20
_POOR: Final = 4
_TALKERS: Final = 4
_ROOMS: Final = 2
_DEEDS_PER_SECOND: Final = 8.0
_LOOK_S: Final = 0.5
_PROBES: Final = 4
_PROBE_TRIES: Final = 20


async def run(*, seed: int, seconds: float, per_second: float) -> Report:
    directory = stage.data_directory()
    record = Record()
    try:
        async with (
            stage.running(directory) as running,
            provider.serving(seed, record) as places,
        ):
            prepared = await asyncio.to_thread(_prepared, places)
            await running.start_instances()
            async with Balancer(running.ports) as balancer:
                play = Play(running, balancer, prepared, places, record, seed)
                return await play.run(seconds, per_second)
    finally:
        stage.clear(directory)


@dataclass(frozen=True, slots=True)
class Cast:
    """Who takes part. `rooms` are ids and the places in `talkers` of those who are in them."""

    people: list[Person]
    operator_key: str
    talkers: list[Talker]
    rooms: list[tuple[str, list[int]]]


def _prepared(places: dict[str, str]) -> Cast:
    """Migrate, set prices and the first route, and make everybody."""
    os.environ["ADMIN_EMAILS"] = OPERATOR
    import django
    from django.core.management import call_command

    django.setup()
    # Our own pool finds the database gone as often as the instances do.
    logging.getLogger("psycopg.pool").setLevel(logging.ERROR)
    # The provider notices that nobody waits for it any more, as it should.
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)
    call_command("migrate", verbosity=0)
    chat_witness.install(os.environ["DATABASE_URL"])
    from airi_server import roles
    from tests.chaos.chat import seed as chat_seed
    from tests.chaos.paid import seed

    roles.grant(SERVING)
    seed.price()
    seed.route(places, provider.PLACES)
    talkers, rooms = chat_seed.people_and_rooms(_TALKERS, _ROOMS)
    return Cast(seed.people(_RICH, _POOR), seed.operator_key(), talkers, rooms)


class Play:
    """Everything that goes on during a run."""

    def __init__(
        self,
        running: Stage,
        balancer: Balancer,
        cast: Cast,
        places: dict[str, str],
        record: Record,
        seed: int,
    ) -> None:
        from tests.chaos.paid.operators import Operators

        self._stage, self._balancer = running, balancer
        self._record, self._cast, self._seed = record, cast, seed
        url = balancer.base_url
        self._operators = Operators(cast.people, cast.operator_key, url, places, record, seed)
        self._talk = chat.Play(running, balancer, cast.talkers, cast.rooms, seed)

    async def run(self, seconds: float, per_second: float) -> Report:
        plan = faults.schedule(self._seed, seconds, KINDS)
        async with contextlib.AsyncExitStack() as opened:
            sessions = [
                await opened.enter_async_context(_session(keeps)) for keeps in (True, False)
            ]
            talking = await opened.enter_async_context(self._talk.talking(_DEEDS_PER_SECOND))
            url, people = self._balancer.base_url, self._cast.people
            self._record.noisy = people[1].user_id
            customers = Customers(people, url, sessions, self._record, self._seed)
            acting = [
                asyncio.create_task(customers.act(per_second=per_second)),
                asyncio.create_task(self._operators.grant_for_ever(sessions[1])),
                talking,
            ]
            try:
                await self._suffer(plan, seconds)
            finally:
                await self._end(acting)
            await customers.finish()
            await self._operators.finish()
            await self._probe(customers)
            told_after_s, violations = await self._talk.agree()
        violations += await asyncio.to_thread(_closed)
        truth = await asyncio.to_thread(witness.read, os.environ["DATABASE_URL"])
        violations += [*self._judged(truth), *self._record.faults]
        return Report(self._record, truth, violations, told_after_s, self._talk.tally.counts)

    async def _end(self, acting: list[asyncio.Task[None]]) -> None:
        """Let nobody begin anything any more; who has stopped by themselves has failed."""
        for task in acting:
            task.cancel()
        for ended in await asyncio.gather(*acting, return_exceptions=True):
            if not isinstance(ended, asyncio.CancelledError):
                self._record.faults.append(f"the run itself: {ended!r}")
        for what in ("answers whole", "streams whole", "calls that asked for an upgrade"):
            if not self._record.counts[what]:
                self._record.faults.append(f"the run itself: there were no {what}")

    async def _suffer(self, plan: list[Fault], seconds: float) -> None:
        """Let everything happen when it is due, and wait until it is mended."""
        began, self._record.began = time.monotonic(), time.time()
        async with asyncio.TaskGroup() as tasks:
            for fault in plan:
                await asyncio.sleep(max(0.0, fault.at_s - (time.monotonic() - began)))
                tasks.create_task(self._inflict(fault))
            await asyncio.sleep(max(0.0, seconds - (time.monotonic() - began)))

    async def _inflict(self, fault: Fault) -> None:
        began, has_happened = time.time(), True
        match fault.kind:
            case Kind.SOCKETS_CUT:
                rng = random.Random(fault.at_s)
                self._record.counts["sockets cut"] += self._balancer.cut(fault.share, rng)
            case Kind.ROUTES_MOVED:
                await self._operators.move_routes()
            case Kind.PERSON_BANNED | Kind.KEY_DISABLED:
                await self._operators.shut_out(fault)
            case _:
                has_happened = await self._stage.inflict(fault)
        if has_happened:
            self._record.happened.append(Happened(fault.kind, began, time.time()))
        else:
            self._record.counts["faults left out"] += 1

    async def _probe(self, customers: Customers) -> None:
        """Now that all is well, both instances serve, and at the place that was published last."""
        await self._operators.move_routes()
        place, dice = self._operators.first_place, random.Random(self._seed)
        for instance in self._stage.instances:
            url = f"http://127.0.0.1:{instance.port}"
            for _ in range(_PROBES):
                if not await self._is_served(customers, url, place, dice):
                    self._record.faults.append(f"{url} does not serve any more, or not at {place}")

    async def _is_served(
        self, customers: Customers, url: str, place: str, dice: random.Random
    ) -> bool:
        """Ask until the answer is whole and comes from this place."""
        for _ in range(_PROBE_TRIES):
            call = customers.call(self._cast.people[0], dice, prefix="probe")
            told = await customers.ask(call, dice, url=url)
            attempts = [each for each in self._record.attempts if each.call == call.id]
            if (told.status, told.is_whole) == (200, True) and attempts[-1].place == place:
                return True
            await asyncio.sleep(_LOOK_S)
        return False

    def _judged(self, truth: witness.Truth) -> Iterator[str]:
        yield from books.of_accounts(truth)
        yield from books.of_requests(truth)
        yield from books.of_grants(truth, self._record)
        yield from books.of_credits(truth, self._cast.people)
        yield from served.of_calls(truth, self._record)
        yield from served.of_attempts(truth)


def _closed() -> list[str]:
    from tests.chaos.paid import closing

    return list(closing.close(os.environ["DATABASE_URL"]))


def _session(keeps_connections: bool) -> aiohttp.ClientSession:
    connector = aiohttp.TCPConnector(limit=0, force_close=not keeps_connections)
    return aiohttp.ClientSession(connector=connector)
