"""The people of a run: who is in which chat, and what they do while things go wrong."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import aiohttp
from django.db import Error as DatabaseError

from airi_server.kernel.errors import DomainError
from airi_server.kernel.threads import in_thread
from chats import deletion
from tests.chaos.chat.client import GONE, Client, Person, Tally
from tests.chaos.chat.verdict import Absence

_REST_S: Final = 6.0
_TRIES: Final = 40
_AGAIN_S: Final = 0.5
_WORDS: Final = ("salt", "sea", "tide", "moon", "harbor", "gull", "rope", "fog")


@dataclass(slots=True)
class Room:
    """A chat. The first person owns it and stays; `outside` are those who were taken out."""

    id: str
    people: list[Person]
    outside: list[Person] = field(default_factory=list)
    departures: dict[str, int] = field(default_factory=dict)
    is_changing: bool = False


class Crowd:
    """Chooses, with dice of its own, who does what next."""

    def __init__(
        self, clients: Sequence[Client], rooms: Sequence[Room], url: str, tally: Tally, seed: int
    ) -> None:
        self.clients = clients
        self.rooms = rooms
        self.absences: list[Absence] = []
        self._url = url
        self._tally = tally
        self._rng = random.Random(seed)
        self._count = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def act(self, session: aiohttp.ClientSession, *, per_second: float) -> None:
        """Act for ever, so many times a second."""
        self._session = session
        deeds: list[tuple[int, Callable[[], Awaitable[None]]]] = [
            (70, self._say), (4, self._say_much), (14, self._edit),
            (4, self._delete), (3, self._change_members), (2, self._hang_up),
        ]  # fmt: skip
        weights, verbs = zip(*deeds, strict=True)
        while True:
            (verb,) = self._rng.choices(verbs, weights)
            task = asyncio.get_running_loop().create_task(self._ensured(verb()))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            await asyncio.sleep(self._rng.expovariate(per_second))

    async def finish(self) -> None:
        """Wait until everything that was begun has been done or given up."""
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _ensured(self, deed: Awaitable[None]) -> None:
        try:
            await deed
        except Exception as error:  # the run goes on and fails at its end
            self._tally.faults.append(f"the run itself: {error!r}")

    async def _say(self) -> None:
        self._utter(1)

    async def _say_much(self) -> None:
        self._utter(self._rng.randint(2, 12))

    def _utter(self, count: int) -> None:
        room, client = self._somebody()
        new = []
        for _ in range(count):
            self._count += 1
            new.append(self._message(f"{client.name}-{self._count}", room))
        self._tally.counts["messages sent"] += count
        client.say(room.id, new)

    async def _edit(self) -> None:
        room, client = self._somebody()
        mine = [
            id_ for id_, row in self._rows(client, room).items()
            if id_.startswith(f"{client.name}-") and row.told and id_ not in client.outbox
        ]  # fmt: skip
        if mine:
            self._tally.counts["edits"] += 1
            client.say(room.id, [self._message(self._rng.choice(mine[-20:]), room)])

    async def _delete(self) -> None:
        """Delete a message as its author or as the owner, past the sockets."""
        room, client = self._somebody()
        live = [id_ for id_, row in self._rows(client, room).items() if row.told]
        if not live:
            return
        message_id = self._rng.choice(live[-20:])
        self._tally.said[message_id].may_be_deleted = True
        with contextlib.suppress(DatabaseError, DomainError):
            await in_thread(deletion.delete_message)(
                caller=room.people[0].user_id,
                chat_id=room.id,
                message_id=message_id,
                at=datetime.now(UTC),
            )
            self._tally.counts["deletions"] += 1

    async def _hang_up(self) -> None:
        self._tally.counts["hang-ups"] += 1
        self._rng.choice(self.clients).hang_up()

    async def _change_members(self) -> None:
        room = self._rng.choice(self.rooms)
        if room.is_changing:
            return
        room.is_changing = True
        try:
            if room.outside and (len(room.people) < 3 or self._rng.random() < 0.5):
                await self._let_in(room)
            elif len(room.people) > 2:
                await self._take_out(room)
        finally:
            room.is_changing = False

    async def _take_out(self, room: Room) -> None:
        person = self._rng.choice(room.people[1:])
        found = await self._rest(room, "GET", "")
        member = next((m["id"] for m in found["members"] if m["userId"] == person.user_id), None)
        if member is None:
            return
        await self._rest(room, "DELETE", f"/members/{member}")
        room.people.remove(person)
        room.outside.append(person)
        room.departures[person.user_id] = room.departures.get(person.user_id, 0) + 1
        self._tally.counts["members taken out"] += 1

    async def _let_in(self, room: Room) -> None:
        person = self._rng.choice(room.outside)
        self.note_absence(room, person)
        await self._rest(room, "POST", "/members", {"type": "user", "userId": person.user_id})
        room.outside.remove(person)
        room.people.append(person)
        self._tally.counts["members let in"] += 1
        for client in self._clients_of(person):
            client.know(room.id)

    def note_absence(self, room: Room, person: Person) -> None:
        """Remember how much somebody's clients know who is still out."""
        for client in self._clients_of(person):
            if room.id in client.replicas:
                highest = client.replicas[room.id].highest
                departures = room.departures[person.user_id]
                self.absences.append(
                    Absence(client.name, room.id, person.user_id, highest, departures)
                )

    async def _rest(self, room: Room, method: str, path: str, body: Any = None) -> Any:
        """Ask until it is answered; what is gone already was done by an earlier try.

        Raises:
            RuntimeError: It is not answered, or refused.
        """
        headers = {"Authorization": f"Bearer {room.people[0].key}"}
        url, said = f"{self._url}/api/v1/chats/{room.id}{path}", "nothing"
        for _ in range(_TRIES):
            with contextlib.suppress(*GONE):
                async with (
                    asyncio.timeout(_REST_S),
                    self._session.request(method, url, json=body, headers=headers) as response,
                ):
                    said = f"{response.status} {(await response.text())[:200]}"
                    if response.status < 300:
                        return await response.json()
                    if response.status == 404 and method == "DELETE":
                        return None
                    if response.status < 500:
                        break
            self._tally.counts["REST calls again"] += 1
            await asyncio.sleep(_AGAIN_S)
        raise RuntimeError(f"{method} {path}: {said}")

    def _somebody(self) -> tuple[Room, Client]:
        room = self._rng.choice(self.rooms)
        return room, self._rng.choice(self._clients_of(self._rng.choice(room.people)))

    def _clients_of(self, person: Person) -> list[Client]:
        return [client for client in self.clients if client.person is person]

    def _rows(self, client: Client, room: Room) -> dict[str, Any]:
        replica = client.replicas.get(room.id)
        return replica.rows if replica else {}

    def _message(self, id_: str, room: Room) -> dict[str, str]:
        content = f"{' '.join(self._rng.choices(_WORDS, k=5))} {self._rng.random()}"
        return {
            "id": id_,
            "role": self._rng.choice(("user", "user", "assistant")),
            "content": content,
        }
