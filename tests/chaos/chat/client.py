"""One client: a connection that comes back, an outbox, and a replica of each chat it knows.

It does what `docs/websocket.md` says under "Staying in step", and nothing cleverer; only its
pauses are shorter, because a run is.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp
import orjson

from tests.chaos.chat.replica import Replica
from tests.chaos.chat.verdict import Said

_OPEN_S: Final = 5.0
_ANSWER_S: Final = 8.0
_PAUSES_S: Final = (0.1, 2.0)
_AGAIN_S: Final = 0.3
_TOGETHER_S: Final = 0.05
_FRAME: Final = 16 * 1024 * 1024
_IN_ONE_CALL: Final = 20
_FORGET: Final = (403, 404)
_LATER: Final = (500, 503)
GONE: Final = (aiohttp.ClientError, OSError, TimeoutError)


class Rejected(Exception):
    """A call was answered with an error, which is the first argument."""


@dataclass(slots=True)
class Person:
    """Somebody with a key; they have several clients."""

    user_id: str
    key: str


@dataclass(slots=True)
class Entry:
    """A message in the outbox; after its first try, one that comes late can still undo a later."""

    chat_id: str
    message: dict[str, str]
    is_under_way: bool = False
    tries: int = 0


@dataclass(slots=True)
class Tally:
    """What all clients together have done and been told."""

    counts: Counter[str] = field(default_factory=Counter)
    said: dict[str, Said] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)


class Client:
    """One device of a person.

    Args:
        url: Of the balancer.
        path: `/ws/chat` or `/ws/v2/chat`.
    """

    def __init__(
        self, name: str, person: Person, url: str, path: str, tally: Tally, rng: random.Random
    ) -> None:
        self.name = name
        self.person = person
        self.replicas: dict[str, Replica] = {}
        self.outbox: dict[str, Entry] = {}
        self.is_open = False
        self._url, self._path = url, path
        self._tally, self._rng = tally, rng
        self._numbers = itertools.count(1)
        self._calls: dict[str, asyncio.Future[Any]] = {}
        self._wanted: dict[str, None] = {}
        self._want = asyncio.Event()
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def live(self, session: aiohttp.ClientSession) -> None:
        """Stay connected for ever."""
        pause = _PAUSES_S[0]
        while True:
            pulls = self._tally.counts["pulls"]
            with contextlib.suppress(*GONE):
                await self._connect(session)
            self._lose()
            if self._tally.counts["pulls"] > pulls:
                pause = _PAUSES_S[0]
            await asyncio.sleep(pause * self._rng.uniform(0.5, 1))
            pause = min(2 * pause, _PAUSES_S[1])

    def know(self, chat_id: str) -> None:
        """Learn of a chat, as from a list of them."""
        self.replicas.setdefault(chat_id, Replica())
        self.want(chat_id)

    def want(self, chat_id: str) -> None:
        """Pull a chat soon."""
        self._wanted[chat_id] = None
        self._want.set()

    def say(self, chat_id: str, messages: Sequence[dict[str, str]]) -> None:
        """Put messages into the outbox; they leave it when they are answered."""
        entries = [Entry(chat_id, message) for message in messages]
        for entry in entries:
            told = self._tally.said.setdefault(entry.message["id"], Said(chat_id))
            told.contents.append(entry.message["content"])
            self.outbox[entry.message["id"]] = entry
        if self.is_open:
            self._own(self._deliver(entries))

    def hang_up(self) -> None:
        """Lose the connection, as a phone in a tunnel does."""
        if self._socket is not None and not self._socket.closed:
            self._socket._writer.transport.abort()

    @property
    def is_quiet(self) -> bool:
        return self.is_open and not self.outbox and not self._wanted

    async def _connect(self, session: aiohttp.ClientSession) -> None:
        is_first = self._path == "/ws/chat"
        url = f"{self._url}{self._path}" + (f"?token={self.person.key}" if is_first else "")
        async with asyncio.timeout(_OPEN_S):
            self._socket = await session.ws_connect(
                url, max_msg_size=_FRAME, timeout=aiohttp.ClientWSTimeout(ws_close=1)
            )
        self._tally.counts["connections"] += 1
        try:
            async with asyncio.TaskGroup() as tasks:
                reading = tasks.create_task(self._read(self._socket))
                work = tasks.create_task(self._serve(is_authenticated=is_first))
                reading.add_done_callback(lambda _: work.cancel())
        finally:
            await self._socket.close()

    async def _serve(self, *, is_authenticated: bool) -> None:
        try:
            if not is_authenticated:
                await self._call("chat:authenticate", {"token": self.person.key})
            self.is_open = True
            await self._send_outbox()
            for chat_id in self.replicas:
                self.want(chat_id)
            while True:
                await self._want.wait()
                await asyncio.sleep(_TOGETHER_S)
                self._want.clear()
                for chat_id in list(self._wanted):
                    await self._pull(chat_id)
        except GONE:
            if self._socket is not None:
                await self._socket.close()

    async def _send_outbox(self) -> None:
        by_chat: dict[str, list[Entry]] = {}
        for entry in self.outbox.values():
            if not entry.is_under_way:
                by_chat.setdefault(entry.chat_id, []).append(entry)
        for entries in by_chat.values():
            for place in range(0, len(entries), _IN_ONE_CALL):
                self._own(self._deliver(entries[place : place + _IN_ONE_CALL]))

    async def _deliver(self, entries: Sequence[Entry]) -> None:
        """Send until answered, or until the connection ends: then the next one does."""
        chat_id = entries[0].chat_id
        for entry in entries:
            entry.is_under_way = True
        content = {"chatId": chat_id, "messages": [entry.message for entry in entries]}
        try:
            answer = await self._persist("chat:send-messages", content, entries)
        except GONE:
            return
        except Rejected as refused:
            self._refused(chat_id, refused.args[0], entries)
            return
        finally:
            for entry in entries:
                entry.is_under_way = False
        self._tally.counts["messages acknowledged"] += len(entries)
        for entry in entries:
            self._tally.said[entry.message["id"]].is_acknowledged = True
            self.outbox.pop(entry.message["id"], None)
        if chat_id in self.replicas and answer["seq"] > self.replicas[chat_id].cursor:
            self.want(chat_id)

    async def _persist(self, tag: str, content: Any, entries: Sequence[Entry]) -> Any:
        while True:
            for entry in entries:
                entry.tries += 1
                self._tally.said[entry.message["id"]].is_unsure |= entry.tries > 1
            try:
                return await self._call(tag, content)
            except Rejected as refused:
                if refused.args[0]["statusCode"] not in _LATER:
                    raise
                self._tally.counts[f"answers {refused.args[0]['statusCode']}"] += 1
            await asyncio.sleep(_AGAIN_S)

    async def _pull(self, chat_id: str) -> None:
        replica = self.replicas.setdefault(chat_id, Replica())
        while True:
            self._wanted.pop(chat_id, None)
            after, limit = replica.cursor, self._rng.choice((7, 100, 500))
            content = {"chatId": chat_id, "afterSeq": after, "limit": limit}
            try:
                page = await self._persist("chat:pull-messages", content, ())
            except GONE:
                self._wanted[chat_id] = None
                raise
            except Rejected as refused:
                self._refused(chat_id, refused.args[0], ())
                return
            self._tally.counts["pulls"] += 1
            if not replica.take_page(page, after=after):
                return

    def _refused(self, chat_id: str, error: dict[str, Any], entries: Sequence[Entry]) -> None:
        self._tally.counts[f"answers {error['statusCode']}"] += 1
        if error["statusCode"] not in _FORGET or error.get("details"):
            self._tally.faults.append(f"{self.name} in {chat_id}: refused with {error}")
        for entry in entries:
            self.outbox.pop(entry.message["id"], None)
            if entry.tries == 1:  # else an earlier try may have been taken
                self._tally.said[entry.message["id"]].contents.pop()
        if chat_id in self.replicas:
            self.replicas[chat_id].forget()

    async def _call(self, tag: str, content: Any) -> Any:
        """Call and return the answer.

        Raises:
            Rejected: With the error of the server.
            ClientError, OSError, TimeoutError: The connection is of no use any more.
        """
        if self._socket is None or self._socket.closed:
            raise ConnectionResetError
        invoke_id = f"{self.name}-{next(self._numbers)}"
        answer = self._calls[invoke_id] = asyncio.get_running_loop().create_future()
        body = {"invokeId": invoke_id, "content": content}
        frame = {"type": f"{tag}-send", "payload": {"body": body}}
        try:
            await self._socket.send_str(orjson.dumps(frame).decode())
            async with asyncio.timeout(_ANSWER_S):
                return await answer
        except TimeoutError:
            self._tally.counts["calls given up"] += 1
            self.hang_up()
            raise
        finally:
            self._calls.pop(invoke_id, None)

    async def _read(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        async for message in socket:
            if message.type is aiohttp.WSMsgType.TEXT:
                frame = orjson.loads(message.data)
                self._take(frame["type"], frame["payload"].get("body") or {})
        self._tally.counts[f"closed with {socket.close_code}"] += 1

    def _take(self, event_id: str, body: dict[str, Any]) -> None:
        if event_id == "chat:new-messages":
            self._tally.counts["pushes"] += 1
            replica = self.replicas.setdefault(body["chatId"], Replica())
            if body["toSeq"] <= replica.cursor:
                self._tally.counts["pushes of old news"] += 1
            if replica.take_push(body):
                self._tally.counts["gaps"] += 1
                self.want(body["chatId"])
        elif (answer := self._calls.get(body.get("invokeId", ""))) and not answer.done():
            if "-receive-error-" in event_id:
                answer.set_exception(Rejected(body["content"]["error"]))
            else:
                answer.set_result(body["content"])

    def _lose(self) -> None:
        self.is_open, self._socket = False, None
        for answer in self._calls.values():
            if not answer.done():
                answer.set_exception(ConnectionResetError())

    def _own(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
