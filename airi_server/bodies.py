"""Bodies of requests: how long they may be, how long they may take, and who never sent one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

from django.conf import settings
from django.core.exceptions import RequestAborted

from airi_server.kernel.errors import DomainError

Scope = dict[str, Any]
Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]

GATEWAY: Final = ("/v1/", "/api/v1/openai/")
TIMEOUT_S: Final = 30.0


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
        return settings.MAX_GATEWAY_BODY_BYTES
    return settings.MAX_BODY_BYTES


def refuse_declared_length(scope: Scope, most: int) -> None:
    """Refuse a body that says it is too long, before any of it is read.

    Raises:
        BodyTooLarge: Its `Content-Length` is above `most`.
    """
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit() and int(value[:20]) > most:
            raise BodyTooLarge(f"The body may have at most {most} bytes.")


async def read(receive: Receive) -> bytes:
    """Read the whole body; the edge's `receive` bounds its size.

    Raises:
        BodyTooLarge, BodyTooSlow: It is not for us to read to the end.
        ClientLeft: It never came.
    """
    parts = []
    try:
        async with asyncio.timeout(TIMEOUT_S):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientLeft
                parts.append(message.get("body", b""))
                if not message.get("more_body", False):
                    return parts[0] if len(parts) == 1 else b"".join(parts)
    except TimeoutError as late:
        raise BodyTooSlow("The body did not arrive in time.") from late
