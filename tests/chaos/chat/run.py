"""One run over chat sync: set up, let things go wrong, settle, and judge."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp

from airi_server.launch.postgres import SERVING
from tests.chaos import faults, stage
from tests.chaos.chat import verdict, witness
from tests.chaos.chat.client import Client, Person, Tally
from tests.chaos.faults import Fault, Kind
from tests.chaos.stage import Stage
from tests.lab.balancer import Balancer

PEOPLE: Final = 12
ROOMS: Final = 5
_TOLD_WITHIN_S: Final = 45.0
"""A look at the heads comes every 25 s; the machine may be busy."""
_QUIET_WITHIN_S: Final = 30.0
_LOOK_S: Final = 0.5
_LAST_WORDS_S: Final = 1.5
_SHOWN: Final = 20
_CRASH: Final = ('"level":"error"', '"level":"critical"', "Traceback")


@dataclass(slots=True)
class Report:
    """What a run has come to."""

    faults: list[Fault]
    counts: Counter[str]
    violations: list[str]
    told_after_s: float | None
    errors: list[str]


async def run(*, seed: int, seconds: float, per_second: float) -> Report:
    directory = stage.data_directory()
    try:
        async with stage.running(directory) as running:
            people, rooms = await asyncio.to_thread(_prepared)
            await running.start_instances()
            async with Balancer([each.port for each in running.instances]) as balancer:
                play = Play(running, balancer, people, rooms, seed)
                return await play.run(seconds, per_second)
    finally:
        stage.clear(directory)


def _prepared() -> tuple[list[Person], list[tuple[str, list[int]]]]:
    """Migrate, install the witness, and make people and chats; a chat is an id and places."""
    import django
    from django.core.management import call_command

    django.setup()
    # Our own pool finds the database gone as often as the instances do.
    logging.getLogger("psycopg.pool").setLevel(logging.ERROR)
    call_command("migrate", verbosity=0)
    witness.install(os.environ["DATABASE_URL"])
    from airi_server import roles
    from tests.chaos.chat import seed

    roles.grant(SERVING)
    return seed.people_and_rooms(PEOPLE, ROOMS)


class Play:
    """Everything that goes on during a run."""

    def __init__(
        self,
        running: Stage,
        balancer: Balancer,
        people: list[Person],
        rooms: list[tuple[str, list[int]]],
        seed: int,
    ) -> None:
        from tests.chaos.chat.crowd import Crowd, Room

        url = balancer.base_url
        self.tally = Tally()
        self._untold: list[str] = []
        self._seed = seed
        self._stage, self._balancer = running, balancer
        rng = random.Random(seed)
        self.clients = [
            Client(f"u{number}{device}", person, url, path, self.tally, random.Random(rng.random()))
            for number, person in enumerate(people)
            for device, path in zip("ab", ("/ws/chat", "/ws/v2/chat"), strict=True)
        ]
        self.rooms = [Room(id_, [people[place] for place in places]) for id_, places in rooms]
        self.crowd = Crowd(self.clients, self.rooms, url, self.tally, seed)
        for room in self.rooms:
            for client in self.clients:
                if client.person in room.people:
                    client.know(room.id)

    async def run(self, seconds: float, per_second: float) -> Report:
        plan = faults.schedule(self._seed, seconds)
        async with self.talking(per_second) as acting:
            await self._suffer(plan, seconds)
            await self._spread()
            await self._end_unheard(acting)
            told_after_s, violations = await self.agree()
        return Report(plan, self.tally.counts, violations, told_after_s, self._errors())

    @contextlib.asynccontextmanager
    async def talking(self, per_second: float) -> AsyncIterator[asyncio.Task[None]]:
        """Have everybody connected and writing; the writing may be cancelled before the end."""
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector) as session:
            self._lives = [asyncio.create_task(client.live(session)) for client in self.clients]
            acting = asyncio.create_task(self.crowd.act(session, per_second=per_second))
            try:
                yield acting
            finally:
                for task in (acting, *self._lives):
                    task.cancel()
                await asyncio.gather(acting, *self._lives, return_exceptions=True)

    async def agree(self) -> tuple[float | None, list[str]]:
        """When nobody writes any more, wait for everybody to know everything, and judge.

        Returns:
            After how many seconds nobody missed anything, None if somebody did to the end; and
            what is not as it must be.
        """
        await self.crowd.finish()
        told_after_s = await self._settle()
        # First what explains the rest: a client that has died misses everything.
        ended = [life for life in self._lives if life.done()]
        violations = [f"the run itself: {life.exception()!r}" for life in ended]
        violations += [*self._judged(self._truth()), *self.tally.faults]
        if told_after_s is None:
            first = "; ".join(self._untold[:_SHOWN])
            violations.append(f"not told within {_TOLD_WITHIN_S:.0f} s, or still busy: {first}")
        return told_after_s, violations

    async def _suffer(self, plan: list[Fault], seconds: float) -> None:
        """Let everything happen when it is due, and wait until it is mended."""
        began = time.monotonic()
        async with asyncio.TaskGroup() as tasks:
            for fault in plan:
                await asyncio.sleep(max(0.0, fault.at_s - (time.monotonic() - began)))
                if fault.kind is Kind.SOCKETS_CUT:
                    rng = random.Random(fault.at_s)
                    self.tally.counts["sockets cut"] += self._balancer.cut(fault.share, rng)
                else:
                    tasks.create_task(self._inflict(fault))
            await asyncio.sleep(max(0.0, seconds - (time.monotonic() - began)))

    async def _inflict(self, fault: Fault) -> None:
        if not await self._stage.inflict(fault):
            self.tally.counts["faults left out"] += 1

    async def _spread(self) -> None:
        """Have everybody connect again while both instances are there, so that both have some."""
        for client in self.clients:
            client.hang_up()
        began = time.monotonic()
        await asyncio.sleep(_LOOK_S)
        while time.monotonic() - began < _QUIET_WITHIN_S:
            if all(client.is_open for client in self.clients):
                break
            await asyncio.sleep(_LOOK_S)

    async def _end_unheard(self, acting: asyncio.Task[None]) -> None:
        """Say the last words without Redis: only the head watch brings them to the other one."""
        away = Fault(at_s=0, kind=Kind.REDIS_KILLED, lasts_s=_LAST_WORDS_S, instance=0, share=0)
        without = asyncio.create_task(self._stage.inflict(away))
        await asyncio.sleep(_LAST_WORDS_S / 2)
        acting.cancel()
        await without

    async def _settle(self) -> float | None:
        """Wait for everybody to hear of everything by themselves; then have them pull.

        Returns:
            After how many seconds nobody missed anything; None if somebody did to the end.
        """
        self._list_chats()
        began, told_after_s = time.monotonic(), None
        while time.monotonic() - began < _TOLD_WITHIN_S:
            if all(client.is_quiet for client in self.clients) and not any(
                self._differences(await asyncio.to_thread(self._truth))
            ):
                told_after_s = time.monotonic() - began
                break
            await asyncio.sleep(_LOOK_S)
        if told_after_s is None:
            self._untold = [client.name for client in self.clients if not client.is_quiet]
            self._untold += self._differences(await asyncio.to_thread(self._truth))
        for client in self.clients:
            for chat_id in client.replicas:
                client.want(chat_id)
        began = time.monotonic()
        while time.monotonic() - began < _QUIET_WITHIN_S:
            if all(client.is_quiet for client in self.clients):
                break
            await asyncio.sleep(_LOOK_S)
        return told_after_s

    def _list_chats(self) -> None:
        """Let everybody look which chats they are in, and learn of those that are new to them."""
        truth = self._truth()
        for client in self.clients:
            for chat_id, members in truth.members.items():
                known = client.replicas.get(chat_id)
                if client.person.user_id in members and (known is None or not known.cursor):
                    client.know(chat_id)

    def _judged(self, truth: witness.Truth) -> Iterator[str]:
        yield from verdict.of_numbers(truth)
        yield from verdict.of_messages(truth, self.tally.said)
        yield from self._differences(truth)
        for room in self.rooms:
            for person in room.outside:
                self.crowd.note_absence(room, person)
        for absence in self.crowd.absences:
            yield from verdict.of_absence(absence, truth)
        for client in self.clients:
            if client.outbox:
                yield f"{client.name}: {len(client.outbox)} messages were never answered"

    def _differences(self, truth: witness.Truth) -> Iterator[str]:
        for client in self.clients:
            for chat_id, members in truth.members.items():
                if client.person.user_id in members:
                    replica = client.replicas[chat_id]
                    yield from verdict.of_replica(client.name, chat_id, replica, truth)

    def _truth(self) -> witness.Truth:
        return witness.read(os.environ["DATABASE_URL"])

    def _errors(self) -> list[str]:
        """Return what the instances have logged of crashes."""
        logs = [log for instance in self._stage.instances for log in instance.logs]
        return [line for log in logs for line in _crashes(log)]


def _crashes(log: Path) -> Iterator[str]:
    for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
        if any(sign in line for sign in _CRASH):
            yield f"{log.name}: {line[:1500]}"


def told(report: Report, *, seed: int) -> str:
    """Return the report as text."""
    kinds = Counter(fault.kind.value for fault in report.faults)
    facts: dict[str, Any] = dict(sorted(report.counts.items()))
    after = "never" if report.told_after_s is None else f"after {report.told_after_s:.1f} s"
    lines = [
        f"seed {seed}: {len(report.faults)} faults: "
        + ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items())),
        ", ".join(f"{count} {what}" for what, count in facts.items()),
        f"everybody had been told of everything {after}",
        *(f"logged: {line}" for line in report.errors[:_SHOWN]),
        *(f"VIOLATION {line}" for line in report.violations[:_SHOWN]),
        f"{len(report.violations)} violations, {len(report.errors)} errors logged",
    ]
    return "\n".join(lines)
