"""One client's way out: a bounded queue with a single writer, and who it belongs to."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Collection
from datetime import UTC, datetime
from typing import Any, Final

from accounts.revalidation import Caller
from airi_server.kernel import ids
from chats.sockets import envelopes
from chats.sockets.knowledge import Knowledge
from chats.sockets.protocol import CloseCode

MAX_PUSHED_FRAMES: Final = 512
MAX_PUSHED_LENGTH: Final = 4 * 1024 * 1024
"""What may wait for a client that reads slowly; the text is shared between sockets."""
ROOM: Final = 32
"""With more frames waiting, nothing more is read from the client."""
ROOM_LENGTH: Final = 4 * 1024 * 1024
"""Nor with more characters: a page of long messages is a frame of megabytes."""
LAST_WORDS_S: Final = 10.0
"""How long a socket that is being closed may take to write what is left."""

Send = Callable[[dict[str, Any]], Awaitable[None]]


class Outbox:
    """The outgoing half of one connection.

    Args:
        send: ASGI's; it waits while the client does not read.
        cut: Ends the connection at once; called when the last frames cannot be written.
    """

    __slots__ = (
        "_closing", "_cut", "_cutting", "_is_gone", "_length", "_pushed", "_pushed_length",
        "_queue", "_room", "_send", "_wake", "caller", "frames_out", "id", "joined_ms",
        "knowledge",
    )  # fmt: skip

    def __init__(self, send: Send, cut: Callable[[], None]) -> None:
        self.id = ids.nanoid()
        self.caller: Caller | None = None
        self.joined_ms = 0
        self.frames_out = 0
        self.knowledge = Knowledge()
        self._send = send
        self._cut = cut
        self._queue: deque[tuple[str, int]] = deque()
        self._length = 0
        self._pushed = 0
        self._pushed_length = 0
        self._wake: asyncio.Future[None] | None = None
        self._room: asyncio.Future[None] | None = None
        self._closing: tuple[CloseCode, str] | None = None
        self._cutting: asyncio.TimerHandle | None = None
        self._is_gone = False

    @property
    def is_closing(self) -> bool:
        return self._is_gone or self._closing is not None

    @property
    def close_code(self) -> int | None:
        return self._closing and int(self._closing[0])

    @property
    def _is_full(self) -> bool:
        return len(self._queue) > ROOM or self._length > ROOM_LENGTH

    def reply(self, text: str) -> None:
        """Queue an answer. Not bounded here: who awaits `room` before each call asks for few."""
        if not self.is_closing:
            self._queue.append((text, 0))
            self._length += len(text)
            self._call_writer()

    def push(self, text: str) -> bool:
        """Queue what nobody asked for; a client that is too far behind is told and closed."""
        if self._is_gone or self._closing is not None:
            return False
        if self._pushed >= MAX_PUSHED_FRAMES or self._pushed_length > MAX_PUSHED_LENGTH:
            self._queue.clear()
            self._length = 0
            self.reply(envelopes.resync())
            self.close(CloseCode.TRY_AGAIN, "too slow")
            return False
        self._pushed += 1
        self._pushed_length += len(text)
        self._length += len(text)
        self._queue.append((text, len(text)))
        self._call_writer()
        return True

    def close(self, code: CloseCode, reason: str) -> None:
        """Write what is queued, then close; the first reason counts."""
        if self.is_closing:
            return
        self._closing = (code, reason)
        self._cutting = asyncio.get_running_loop().call_later(LAST_WORDS_S, self._cut)
        self._call_writer()
        self._make_room()

    async def room(self) -> None:
        """Wait until the client has taken most of what it was sent."""
        while self._is_full and not self.is_closing:
            self._room = asyncio.get_running_loop().create_future()
            await self._room

    async def write(self) -> None:
        """Write until the socket is closed; the one task that sends frames."""
        try:
            await self._write()
        except (OSError, RuntimeError):
            # The client is gone, or the server has ended the connection: reading says so too.
            self.forget()

    async def _write(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            while self._queue:
                text, pushed = self._queue.popleft()
                self._length -= len(text)
                if pushed:
                    self._pushed -= 1
                    self._pushed_length -= pushed
                await self._send({"type": "websocket.send", "text": text})
                self.frames_out += 1
                if self._room is not None and not self._is_full:
                    self._make_room()
            if self._closing is not None:
                break
            self._wake = loop.create_future()
            await self._wake
        code, reason = self._closing
        await self._send({"type": "websocket.close", "code": int(code), "reason": reason})

    def forget(self) -> None:
        """Drop what is queued: nobody is there to read it."""
        if self._cutting is not None:
            self._cutting.cancel()
        self._is_gone = True
        self._queue.clear()
        self._make_room()

    def _call_writer(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    def _make_room(self) -> None:
        if self._room is not None and not self._room.done():
            self._room.set_result(None)


class Registry:
    """The sockets of one event loop by user."""

    def __init__(self) -> None:
        self._by_user: dict[str, set[Outbox]] = {}
        self.count = 0

    def add(self, socket: Outbox, caller: Caller) -> None:
        socket.caller = caller
        socket.joined_ms = round(datetime.now(UTC).timestamp() * 1000)
        self._by_user.setdefault(caller.user_id, set()).add(socket)
        self.count += 1

    def discard(self, socket: Outbox) -> None:
        if socket.caller is None:
            return
        mine = self._by_user.get(socket.caller.user_id, set())
        if socket in mine:
            mine.discard(socket)
            self.count -= 1
            if not mine:
                del self._by_user[socket.caller.user_id]

    @property
    def users(self) -> Collection[str]:
        return self._by_user.keys()

    def all(self) -> list[Outbox]:
        return [socket for sockets in self._by_user.values() for socket in sockets]

    def of(self, user_ids: Collection[str]) -> list[Outbox]:
        """Return the sockets of these users, looking at whichever are fewer."""
        by_user = self._by_user
        if len(user_ids) > len(by_user):
            user_ids = by_user.keys() & set(user_ids)
        return [socket for user_id in user_ids for socket in by_user.get(user_id, ())]
