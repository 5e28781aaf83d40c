"""The one HTTP call of the hot path: a POST to an upstream, its answer still unread.

No proxies from the environment, no redirects, no cookies, nothing of the client's headers.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from contextvars import ContextVar
from typing import Any, Final

import aiohttp
from aiohttp import ClientResponse, ClientSession, ClientTimeout, TCPConnector
from aiohttp.connector import Connection
from yarl import URL

from airi_server.kernel.loops import PerLoop
from llmrouter.routing.failures import BAD_ANSWER, CONNECT, TIMEOUT, AttemptFailed

CONNECT_TIMEOUT_S: Final = 5.0
MAX_ANSWER_BYTES: Final = 33_554_432
MAX_ERROR_BYTES: Final = 65_536
LARGE_BODY_BYTES: Final = 1_048_576
"""From here on a body is written piece by piece, so that others get their turn."""
_urls: dict[str, URL] = {}
_is_reused: ContextVar[bool] = ContextVar("is_reused", default=False)


class _Connector(TCPConnector):
    """Notes whether the connection it lends has served a request before."""

    async def connect(self, *args: Any, **kwargs: Any) -> Connection:
        lent = await super().connect(*args, **kwargs)
        protocol: Any = lent.protocol
        _is_reused.set(getattr(protocol, "has_served", False))
        protocol.has_served = True
        return lent


def _new_session() -> ClientSession:
    return ClientSession(
        connector=_Connector(limit=0, keepalive_timeout=30, ttl_dns_cache=60),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        trust_env=False,
        skip_auto_headers=("User-Agent", "Accept"),
    )


_sessions = PerLoop(_new_session)


async def post(
    url: str,
    *,
    authorization: str,
    body: bytes,
    first_byte_s: float,
    idle_s: float,
    is_stream: bool,
) -> ClientResponse:
    """Send the request and return as soon as the headers are there.

    Raises:
        AttemptFailed: No connection, no headers within `first_byte_s`, or a broken answer.
    """
    try:
        async with asyncio.timeout(first_byte_s):
            return await _send_afresh(url, authorization, body, idle_s)
    except TimeoutError as late:
        # A plain answer has its first byte when it is finished: a long one says nothing about
        # the upstream, or a caller could make it rest for everybody.
        raise AttemptFailed(TIMEOUT, counts=is_stream) from late
    except aiohttp.ClientConnectionError as away:
        raise AttemptFailed(CONNECT) from away
    except aiohttp.ClientError as broken:
        raise AttemptFailed(BAD_ANSWER) from broken


async def _send_afresh(url: str, authorization: str, body: bytes, idle_s: float) -> ClientResponse:
    """Send; once more when the upstream closed a kept connection just as we used it.

    A new connection that breaks is another matter: the upstream may be at work on the request.
    """
    while True:
        _is_reused.set(False)
        try:
            return await _send(url, authorization, body, idle_s)
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
            if not _is_reused.get():
                raise


async def _send(url: str, authorization: str, body: bytes, idle_s: float) -> ClientResponse:
    target = _urls.get(url)
    if target is None:
        target = _urls[url] = URL(url)
    return await _sessions.get().post(
        target,
        data=body if len(body) < LARGE_BODY_BYTES else io.BytesIO(body),
        headers={
            "authorization": authorization,
            "content-type": "application/json",
            "accept-encoding": "identity",
        },
        allow_redirects=False,
        timeout=ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S, sock_read=idle_s),
    )


async def read(response: ClientResponse, *, at_most: int = MAX_ANSWER_BYTES) -> bytes:
    """Read a whole body.

    Raises:
        AttemptFailed: It broke off, stalled, or is longer than `at_most`.
    """
    parts: list[bytes] = []
    size = 0
    async for part in chunks(response):
        size += len(part)
        if size > at_most:
            response.close()
            raise AttemptFailed(BAD_ANSWER, status=response.status)
        parts.append(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


async def read_start(response: ClientResponse, *, at_most: int = MAX_ERROR_BYTES) -> bytes:
    """Read the beginning of an error's body and let go of the rest."""
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(2):
            async for part in chunks(response):
                parts.append(part)
                size += len(part)
                if size >= at_most:
                    break
    except (AttemptFailed, TimeoutError):
        pass
    response.close()
    return b"".join(parts)[:at_most]


async def chunks(response: ClientResponse) -> AsyncIterator[bytes]:
    """Yield the body as it arrives.

    Raises:
        AttemptFailed: It broke off or stalled.
    """
    try:
        while chunk := await response.content.readany():
            yield chunk
    except TimeoutError as stalled:
        raise AttemptFailed(TIMEOUT, status=response.status) from stalled
    except (aiohttp.ClientError, ConnectionError) as broken:
        raise AttemptFailed(BAD_ANSWER, status=response.status) from broken


async def close() -> None:
    """Close this loop's connections; called once, at shutdown."""
    if session := _sessions.pop():
        await session.close()
