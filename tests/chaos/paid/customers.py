"""Those who pay: they ask, ask again with the same key, and sometimes leave in the middle."""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

import aiohttp
import orjson

from tests.chaos.paid.record import MODEL, Call, Person, Record, Told

PATHS: Final = ("/v1/chat/completions", "/api/v1/openai/chat/completions")
GONE: Final = (aiohttp.ClientError, OSError, TimeoutError)
UPGRADES: Final = ("foo", "h2c", "websocket, foo", "websocket")
"""What clients ask for that are served as if they had not."""
_ASKS_FOR_MORE: Final = 0.1
_GIVE_UP_S: Final = 25.0
_SHORTEST: Final = 100
"""The smallest prompt's estimate; there has to be room for the fields and the call's id."""
_TOOLS: Final = 40
_NUMBER: Final = re.compile(rb'"id":"chatcmpl-(\d+)"')
_FRAME: Final = re.compile(rb'data: \{[^\n]*"content":"[^\n]*\n\n')
_DONE: Final = b"data: [DONE]\n\n"


class Leaves(Exception):
    """This client has seen enough."""


class Customers:
    """Chooses, with dice of its own, who asks for what.

    Args:
        people: Those who pay.
        sessions: One that keeps its connections and one that does not.
    """

    def __init__(
        self,
        people: Sequence[Person],
        url: str,
        sessions: Sequence[aiohttp.ClientSession],
        record: Record,
        seed: int,
    ) -> None:
        self._people, self._url, self._sessions = people, url, sessions
        self._record = record
        self._rng = random.Random(f"customers {seed}")
        self._asked: Counter[str] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()

    async def act(self, *, per_second: float) -> None:
        """Ask for ever, so many times a second; repeats come on top."""
        while True:
            dice = random.Random(self._rng.random())
            call = self.call(dice.choice(self._people), dice)
            repeats = 0
            if dice.random() < 0.4:
                call.client_key = f"key-{call.id}"
                repeats = dice.choice((0, 1, 1, 2, 4))
            self._own(self._keep_asking(call, dice, repeats))
            await asyncio.sleep(self._rng.expovariate(per_second))

    async def finish(self) -> None:
        """Wait until everything that was begun has been answered or given up."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    def call(self, person: Person, dice: random.Random, *, prefix: str = "call") -> Call:
        """Think of something new to ask."""
        number = self._asked[person.user_id]
        self._asked[person.user_id] += 1
        call = Call(
            id=f"{prefix}-{len(self._record.calls):06}",
            person=person,
            estimate=_SHORTEST + number,
            is_stream=dice.random() < 0.5,
            client_key=None,
        )
        self._record.calls[call.id] = call
        return call

    async def ask(self, call: Call, dice: random.Random, *, url: str = "") -> Told:
        """Ask once and note what comes back; some leave after a while or after some text."""
        told = Told(time.time())
        call.told.append(told)
        session = dice.choice(self._sessions)
        leaves_after_s, leaves_at = None, None
        if dice.random() < 0.15 and not url:
            leaves_after_s = dice.uniform(0.05, 1.0) if dice.random() < 0.5 else None
            leaves_at = None if leaves_after_s else dice.randint(1, 6)
        headers = {"Authorization": f"Bearer {call.person.key}", "Content-Type": "application/json"}
        if call.client_key:
            headers["Idempotency-Key"] = call.client_key
        data: bytes | AsyncIterator[bytes] = body_of(call)
        if dice.random() < _ASKS_FOR_MORE:
            self._record.counts["calls that asked for an upgrade"] += 1
            headers |= {"Connection": "Upgrade", "Upgrade": dice.choice(UPGRADES)}
            data = _in_pieces(body_of(call), dice.uniform(0, 0.05))
        try:
            async with (
                asyncio.timeout(leaves_after_s or _GIVE_UP_S),
                session.post(
                    (url or self._url) + dice.choice(PATHS), data=data, headers=headers
                ) as got,
            ):
                await _read(got, told, leaves_at)
        except Leaves:
            pass
        except TimeoutError:
            if leaves_after_s is None:
                self._record.counts["calls given up"] += 1
        except GONE:
            pass
        told.ended = time.time()
        _note(call, told)
        self._count(call, told, has_left=(leaves_after_s or leaves_at) is not None)
        return told

    async def _keep_asking(self, call: Call, dice: random.Random, repeats: int) -> None:
        """Ask, and ask again: after an answer, after none, or while the first is under way."""
        asking = asyncio.create_task(self.ask(call, dice))
        for turn in range(repeats):
            if dice.random() < 0.3:
                await asyncio.sleep(dice.uniform(0, 0.3))
            else:
                await asyncio.wait({asking})
                await asyncio.sleep(dice.choice((0, 0.2, 1.0)))
            again = asyncio.create_task(self.ask(call, random.Random(f"{call.id} {turn}")))
            await asyncio.wait({asking, again})
        await asking

    def _count(self, call: Call, told: Told, *, has_left: bool) -> None:
        kind = "streams" if call.is_stream else "answers"
        if told.is_whole and told.status == 200:
            what = f"{kind} whole"
        elif told.status == 200:
            what = f"{kind} left" if has_left else f"{kind} broken"
        elif told.status == 0:
            what = "calls left" if has_left else "calls cut"
        else:
            what = f"calls {told.status}"
        self._record.counts[what] += 1
        if len(call.told) > 1:
            self._record.counts["calls repeated"] += 1

    def _own(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            self._record.faults.append(f"the run itself: {error!r}")


def body_of(call: Call) -> bytes:
    """Return what is sent: so long that its prompt is estimated as the call says."""
    # With so many tools the prompt that an attempt reports is a plausible one, whatever its number.
    body: dict[str, Any] = {"model": MODEL, "stream": call.is_stream, "tools": [{}] * _TOOLS}
    missing = 4 * call.estimate - len(_written(body, call.id))
    return _written(body, call.id + " " * missing)


async def _in_pieces(body: bytes, pause_s: float) -> AsyncIterator[bytes]:
    """Send the body after its head, and in two segments."""
    half = len(body) // 2
    for piece in (body[:half], body[half:]):
        await asyncio.sleep(pause_s)
        yield piece


def _written(body: dict[str, Any], content: str) -> bytes:
    return orjson.dumps({**body, "messages": [{"role": "user", "content": content}]})


async def _read(got: aiohttp.ClientResponse, told: Told, leaves_at: int | None) -> None:
    told.status = got.status
    told.request_id = got.headers.get("x-request-id")
    charged = got.headers.get("x-airi-flux-charged")
    told.charged = None if charged is None else int(charged)
    async for part in got.content.iter_any():
        told.body += part
        if leaves_at is not None and len(_FRAME.findall(told.body)) >= leaves_at:
            got.close()
            raise Leaves
    told.is_whole = True


def _note(call: Call, told: Told) -> None:
    """Take apart what came."""
    if told.status == 200:
        found = _NUMBER.search(told.body)
        told.number = int(found[1]) if found else None
        if call.is_stream:
            told.frames = len(_FRAME.findall(told.body))
            told.is_whole = told.is_whole and told.body.endswith(_DONE)
        else:
            told.frames = int(told.is_whole)
    elif told.is_whole:
        try:
            error = orjson.loads(told.body)
            told.code, told.details = error["error"]["code"], error.get("details") or {}
        except (ValueError, KeyError, TypeError):
            told.code = f"unreadable: {told.body[:80]!r}"
