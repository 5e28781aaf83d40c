"""Those who run the place: grants over HTTP, bans, disabled keys and routes that move.

They are patient: what has to be done is tried until it is. Import this after Django's set-up.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import aiohttp
from django.db import Error as DatabaseError

from accounts import keys, users
from airi_server.kernel.threads import in_thread
from tests.chaos.faults import Fault, Kind
from tests.chaos.paid import seed
from tests.chaos.paid.provider import PLACES
from tests.chaos.paid.record import Order, Person, Record, Shut

_PATH: Final = "/api/admin/flux-grants"
_GONE: Final = (aiohttp.ClientError, OSError, TimeoutError)
_ANSWER_S: Final = 20.0
_AGAIN_S: Final = 0.3
_TRIES: Final = 60
_PAUSES_S: Final = (0.2, 1.2)


class Operators:
    """Everything is done by one of them at a time, except that bans last."""

    def __init__(
        self,
        people: Sequence[Person],
        key: str,
        url: str,
        places: Mapping[str, str],
        record: Record,
        seed_: int,
    ) -> None:
        self._people, self._key, self._url, self._places = people, key, url, places
        self._record = record
        self._rng = random.Random(f"operators {seed_}")
        self._tasks: set[asyncio.Task[None]] = set()
        self.first_place = PLACES[0]

    async def grant_for_ever(self, session: aiohttp.ClientSession) -> None:
        while True:
            chosen = self._rng.sample(self._people, self._rng.randint(1, 3))
            chosen += [person for person in self._people if person.is_poor][:2]
            order = Order(
                key=f"grant-{len(self._record.orders)}",
                amount=self._rng.randint(1, 2_000),
                user_ids=tuple(dict.fromkeys(person.user_id for person in chosen)),
            )
            self._record.orders.append(order)
            task = asyncio.create_task(self._grant(session, order, tries=self._rng.randint(1, 8)))
            self._tasks.add(task)
            task.add_done_callback(self._ended)
            await asyncio.sleep(self._rng.uniform(*_PAUSES_S))

    async def finish(self) -> None:
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def move_routes(self) -> None:
        """Prefer the other place from now on."""
        self.first_place = next(place for place in PLACES if place != self.first_place)
        order = sorted(PLACES, key=lambda place: place != self.first_place)
        await self._persist(lambda: seed.route(self._places, order))
        self._record.counts["routes published"] += 1

    async def shut_out(self, fault: Fault) -> None:
        """Ban somebody, or disable their key, for a while."""
        person = random.Random(fault.at_s).choice(self._people)
        ban = fault.kind is Kind.PERSON_BANNED
        shut = Shut(person.user_id, time.time(), ended=float("inf"), lifting=float("inf"))
        self._record.shut.append(shut)
        await self._persist(lambda: _ban(person) if ban else _disable(person, is_disabled=True))
        shut.sure = time.time()
        await asyncio.sleep(fault.lasts_s)
        shut.lifting = time.time()
        await self._persist(lambda: _unban(person) if ban else _disable(person, is_disabled=False))
        shut.ended = time.time()

    async def _grant(self, session: aiohttp.ClientSession, order: Order, tries: int) -> None:
        """Send until everybody is paid or patience ends; sometimes again although they are."""
        by_id = {person.user_id: person.email for person in self._people}
        body = {
            "description": "chaos", "amount": order.amount, "idempotencyKey": order.key,
            "emails": [by_id[user_id] for user_id in order.user_ids],
        }  # fmt: skip
        done_twice = self._rng.random() < 0.3
        for _ in range(tries):
            granted = await self._send(session, body)
            for each in granted or ():
                told = (each["fluxTransactionId"], each["balanceAfter"])
                order.acknowledged.setdefault(each["userId"], set()).add(told)
            if granted and len(granted) == len(order.user_ids):
                if not done_twice:
                    return
                done_twice = False
            await asyncio.sleep(_AGAIN_S)
            self._record.counts["grants sent again"] += 1

    async def _send(
        self, session: aiohttp.ClientSession, body: Mapping[str, Any]
    ) -> list[dict[str, Any]] | None:
        headers = {"Authorization": f"Bearer {self._key}"}
        with contextlib.suppress(*_GONE):
            async with (
                asyncio.timeout(_ANSWER_S),
                session.post(self._url + _PATH, json=body, headers=headers) as got,
            ):
                if got.status == 200:
                    granted: list[dict[str, Any]] = (await got.json())["result"]["granted"]
                    return granted
                self._record.counts[f"grants {got.status}"] += 1
                if got.status != 503:
                    said = (await got.text())[:300]
                    self._record.faults.append(f"a grant was answered {got.status}: {said}")
        return None

    async def _persist(self, deed: Callable[[], None]) -> None:
        for _ in range(_TRIES):
            with contextlib.suppress(DatabaseError):
                await in_thread(deed)()
                return
            await asyncio.sleep(_AGAIN_S)
        raise RuntimeError("The database did not come back.")

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            self._record.faults.append(f"the run itself: {error!r}")


def _ban(person: Person) -> None:
    users.ban(user_id=person.user_id, reason="chaos", until=None, at=datetime.now(UTC))


def _unban(person: Person) -> None:
    users.unban(user_id=person.user_id, at=datetime.now(UTC))


def _disable(person: Person, *, is_disabled: bool) -> None:
    keys.change(
        user_id=person.user_id, public_id=person.key_id, at=datetime.now(UTC), disabled=is_disabled
    )
