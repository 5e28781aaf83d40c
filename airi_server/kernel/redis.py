"""Redis for the hot path: one connection per loop and purpose, commands that need no waiting.

Commands issued in one loop iteration leave in one write. A connection that is away fails
commands at once, reconnects by itself with a growing pause, and is never waited for longer
than `COMMAND_TIMEOUT_S`: Redis may be lost at any time, and nothing here decides money. Why it is
not `redis.asyncio`, in figures: ADR 0048.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections import deque
from collections.abc import Callable
from typing import Any, Final, cast
from urllib.parse import unquote, urlsplit

import hiredis
from django.conf import settings

from airi_server.kernel.loops import PerLoop

COMMAND_TIMEOUT_S: Final = 0.1
SILENT_S: Final = 1.0
MAX_PENDING: Final = 10_000
PAUSES_S: Final = (0.05, 0.1, 0.25, 0.5, 1.0)

Push = Callable[[bytes, bytes], None]
commands_sent = 0
"""Commands sent by this process, for the tests that count them."""


def key(*parts: str) -> str:
    """Return the one spelling of a key: the project's prefix, then the parts.

    A part in braces is the hash tag that keeps one user's keys on one cluster node.
    """
    return ":".join((settings.REDIS_PREFIX, *parts))


FAILURES: Final = (OSError, hiredis.HiredisError)
"""What `ask` and the futures of `send` raise: away, late, or refused by Redis."""


class RedisAway(ConnectionError):
    """Redis did not answer in time, or is not connected."""


class RedisLink(asyncio.Protocol):
    """One pipelined connection. Replies arrive in order; pushes go to `on_push`."""

    def __init__(self, url: str, *, on_up: Callable[[], None] | None = None) -> None:
        self._url = urlsplit(url)
        self._on_up = on_up
        self._on_push: Push | None = None
        self._reader = hiredis.Reader()
        self._waiting: deque[asyncio.Future[Any]] = deque()
        self._outgoing: list[bytes] = []
        self._transport: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()
        self._attempt = 0
        self._progress_at = 0.0
        self._dialing: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def is_up(self) -> bool:
        return self._transport is not None

    def dial(self) -> None:
        """Start connecting, unless that is already under way or the link was closed."""
        if self._transport is None and self._dialing is None and not self._closed:
            self._dialing = self._loop.create_task(self._dial())

    async def _dial(self) -> None:
        context = ssl.create_default_context() if self._url.scheme == "rediss" else None
        try:
            async with asyncio.timeout(2):
                await self._loop.create_connection(
                    lambda: self,
                    self._url.hostname or "127.0.0.1",
                    self._url.port or 6379,
                    ssl=context,
                )
        except (OSError, TimeoutError):
            self._retry_later()
        finally:
            self._dialing = None

    def _retry_later(self) -> None:
        pause = PAUSES_S[min(self._attempt, len(PAUSES_S) - 1)]
        self._attempt += 1
        if not self._closed:
            self._loop.call_later(pause, self.dial)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._reader = hiredis.Reader()
        if self._url.password:
            user = unquote(self._url.username or "default")
            self.tell("AUTH", user, unquote(self._url.password))
        if database := self._url.path.lstrip("/"):
            self.tell("SELECT", database)
        if self._on_up:
            self._on_up()

    def data_received(self, data: bytes) -> None:
        self._attempt = 0
        self._progress_at = self._loop.time()
        self._reader.feed(data)
        while (reply := self._reader.gets()) is not False:
            if self._on_push and isinstance(reply, list) and reply[0] == b"message":
                self._on_push(reply[1], reply[2])
            elif self._waiting:
                self._answer(self._waiting.popleft(), reply)

    @staticmethod
    def _answer(future: asyncio.Future[Any], reply: Any) -> None:
        if future.done():
            return
        if isinstance(reply, Exception):
            future.set_exception(reply)
        else:
            future.set_result(reply)

    def connection_lost(self, _exc: Exception | None) -> None:
        self._transport = None
        self._outgoing.clear()
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                future.set_exception(RedisAway("the connection was lost"))
        self._retry_later()

    def send(self, *command: str | bytes | int | float) -> asyncio.Future[Any]:
        """Queue a command and return the future of its reply; nobody has to await it."""
        global commands_sent  # noqa: PLW0603  a process-wide count is what the tests assert
        future: asyncio.Future[Any] = self._loop.create_future()
        future.add_done_callback(_mark_retrieved)
        if self._transport is None or len(self._waiting) >= MAX_PENDING:
            future.set_exception(RedisAway("not connected"))
            return future
        commands_sent += 1
        self._drop_if_silent()
        if not self._outgoing:
            self._loop.call_soon(self._flush)
        self._waiting.append(future)
        self._outgoing.append(hiredis.pack_command(cast("Any", command)))
        return future

    def tell(self, *command: str | bytes | int | float) -> None:
        """Send a command whose reply nobody needs."""
        self.send(*command).cancel()

    def _drop_if_silent(self) -> None:
        """Cut a connection that has answered nothing for a while: waiting is over for everybody."""
        now = self._loop.time()
        if not self._waiting:
            self._progress_at = now
        elif now - self._progress_at > SILENT_S and self._transport is not None:
            self._transport.abort()

    async def ask(self, *command: str | bytes | int | float) -> Any:
        """Send a command and wait for its reply, briefly.

        Raises:
            RedisAway: No connection, or no reply within `COMMAND_TIMEOUT_S`.
        """
        try:
            async with asyncio.timeout(COMMAND_TIMEOUT_S):
                return await self.send(*command)
        except TimeoutError as late:
            raise RedisAway("no reply in time") from late

    def subscribe(self, channel: str, on_push: Push) -> None:
        """Turn this link into a subscriber; call it from `on_up`, so it survives a restart."""
        self._on_push = on_push
        self.tell("SUBSCRIBE", channel)

    def _flush(self) -> None:
        if self._transport is not None and self._outgoing:
            self._transport.write(b"".join(self._outgoing))
        self._outgoing.clear()

    async def close(self) -> None:
        self._closed = True
        if self._dialing:
            self._dialing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._dialing
        if self._transport is not None:
            self._transport.close()


def _mark_retrieved(future: asyncio.Future[Any]) -> None:
    """Read the outcome, so that a reply nobody awaited is not reported as lost."""
    if not future.cancelled():
        future.exception()


def _dialed() -> RedisLink:
    made = RedisLink(settings.REDIS_URL)
    made.dial()
    return made


_links = PerLoop(_dialed)


def link() -> RedisLink:
    """Return this loop's command connection, dialing it on first use."""
    return _links.get()


async def close() -> None:
    """Close this loop's command connection; called once, at shutdown."""
    if found := _links.pop():
        await found.close()
