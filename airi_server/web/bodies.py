"""Request bodies: how long they may be and take, and whose budget they count against."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Awaitable, Callable
from typing import Any, Final

from django.conf import settings
from django.core.exceptions import RequestAborted

from airi_server.kernel.errors import DomainError, Unauthorized
from airi_server.kernel.settled import Settled
from airi_server.web.budgets import HELD
from airi_server.web.exchanges import ARRIVED

Scope = dict[str, Any]
Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Owner = str | Callable[[], Awaitable[str]]
"""Whose body it is, or how to find out: only those who send much are asked for."""

GATEWAY: Final = ("/v1/", "/api/v1/openai/")
TIMEOUT_S: Final = 30.0
SHORT: Final = 65_536
"""Anybody may send this much. More is only kept for callers we know, and counted."""


_gateway_limit: Final = Settled(lambda: int(settings.MAX_GATEWAY_BODY_BYTES))


class BodyTooLarge(DomainError):
    """The body is longer than this surface takes. It was not read to its end."""

    code = "PAYLOAD_TOO_LARGE"
    status = 413


class BodyTooSlow(DomainError):
    """The body did not arrive in time."""

    code = "REQUEST_TIMEOUT"
    status = 408


class ClientLeft(RequestAborted):
    """The client hung up before its request was complete."""


def limit(path: str) -> int:
    """Return how many bytes a request to `path` may have."""
    if path.startswith(GATEWAY):
        return _gateway_limit()
    return settings.MAX_BODY_BYTES


def declared_length(scope: Scope) -> int:
    """Return the `Content-Length`; 0 if there is none, or none that could be one."""
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            return int(value[:20])
    return 0


class IncomingBody:
    """`receive` of one request, with its bounds.

    A body without a declared length is cut off too. What is held of a long one counts against its
    owner's budget and the process's until `release`.
    """

    __slots__ = ("_claimed", "_free", "_owner", "_receive", "_size", "_taken", "limit", "scope")

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self.scope = scope
        self.limit = limit(scope["path"])
        self._receive = receive
        self._free = min(SHORT, self.limit)
        self._size = 0
        self._owner: Owner | None = None
        self._claimed = 0
        self._taken = 0

    @property
    def has_news(self) -> bool:
        """Whether what comes next is here: then it is not waited for, and needs no deadline."""
        arrived: asyncio.Event | None = self.scope.get(ARRIVED)
        return arrived is not None and arrived.is_set()

    async def __call__(self) -> Message:
        message = await self._receive()
        self._size += len(message.get("body", b""))
        if self._size > self._free:
            await self.hold(self._size)
            HELD.take(self._size - self._taken)
            self._taken = self._size
        return message

    def announce(self, owner: Owner) -> int:
        """Say whose body it is before it is read; return what is to be reserved for it."""
        self._owner = owner
        declared = declared_length(self.scope)
        return declared if declared > self._free else 0

    def release(self) -> None:
        """The request has ended, however it did."""
        if self._claimed:
            HELD.release(str(self._owner), claimed=self._claimed, taken=self._taken)
            self._claimed = self._taken = 0

    async def hold(self, size: int) -> None:
        """Raise what is claimed for the owner to `size` bytes.

        Raises:
            BodyTooLarge: It is more than a request to this path may have.
            Unauthorized: Nobody we know sends it.
            TooManyRequests: The owner has no room for it now.
        """
        try:
            owner = await self._known_owner()
        except Unauthorized:
            self._refuse_too_long(size)
            raise
        self._refuse_too_long(size)
        if size > self._claimed:
            HELD.claim(owner, size - self._claimed)
            self._claimed = size

    async def _known_owner(self) -> str:
        if self._owner is None:
            raise Unauthorized("Unauthorized")
        if not isinstance(self._owner, str):
            self._owner = await self._owner()
        return self._owner

    def _refuse_too_long(self, size: int) -> None:
        if size > self.limit:
            raise BodyTooLarge(f"The body may have at most {self.limit} bytes.")


async def read(incoming: IncomingBody, owner: Owner) -> bytes:
    """Read the whole body.

    Raises:
        BodyTooLarge, BodyTooSlow: It is not for us to read to the end.
        Unauthorized: It is long, and nobody we know sends it.
        TooManyRequests, Unavailable: It is long, and too much is under way.
        ClientLeft: It never came.
    """
    reserved = incoming.announce(owner)
    if reserved:
        await incoming.hold(reserved)
    message = await incoming() if incoming.has_news else None
    if message is not None and _is_whole(message):
        return message.get("body", b"")  # type: ignore[no-any-return]  # as ASGI has it
    try:
        async with asyncio.timeout(TIMEOUT_S):
            return await _read_on(incoming, message or await incoming())
    except TimeoutError as late:
        raise BodyTooSlow("The body did not arrive in time.") from late


def _is_whole(message: Message) -> bool:
    return message["type"] == "http.request" and not message.get("more_body", False)


async def _read_on(incoming: IncomingBody, message: Message) -> bytes:
    # Its buffer becomes the body: a list of parts would be held twice while it is joined.
    body = io.BytesIO()
    while message["type"] != "http.disconnect":
        body.write(message.get("body", b""))
        if not message.get("more_body", False):
            return body.getvalue()
        message = await incoming()
    raise ClientLeft
