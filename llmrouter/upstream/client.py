"""Upstream client: the one HTTP call of the hot path, a POST whose answer is still unread.

No proxies from the environment, no redirects, no cookies, nothing of the client's headers.
"""

from __future__ import annotations

import asyncio
import functools
from typing import Final, NamedTuple

from yarl import URL

from airi_server.kernel import hops
from airi_server.kernel.loops import PerLoop
from llmrouter.routing.failures import BAD_ANSWER, CONNECT, TIMEOUT, AttemptFailed, Blame
from llmrouter.upstream.connections import Connection
from llmrouter.upstream.pool import Origin, Pool
from llmrouter.upstream.responses import Disconnected, MalformedResponse, Response

CONNECT_TIMEOUT_S: Final = 5.0
RACE_S: Final = 1.0
"""A kept connection that ends within this was closed before the request arrived."""
MAX_ANSWER_BYTES: Final = 33_554_432
MAX_ERROR_BYTES: Final = 65_536
_pools = PerLoop(Pool)


class Waits(NamedTuple):
    """How long an upstream may take until its head is there, and how long it may be silent then.

    `is_stream`: a head that is late says something about the upstream. A plain answer has its head
    when it is finished: a caller could otherwise make it rest for everybody.
    """

    head_s: float
    idle_s: float
    is_stream: bool


async def post(
    url: str, *, authorization: str, body: bytes, waits: Waits, passed: str = ""
) -> Response:
    """Send the request and return as soon as the headers are there.

    `passed` names the installations of this software that the request has come through.

    Raises:
        AttemptFailed: No connection, no headers in time, or a broken answer.
        ValueError: The authorization is no header.
    """
    if not (authorization.isascii() and authorization.isprintable()):
        raise ValueError("An authorization is one line of printable characters.")
    try:
        return await _ask(url, authorization, body, waits, passed)
    except NotConnected as away:
        raise AttemptFailed(CONNECT, blame=Blame.AWAY) from away.__cause__
    except TimeoutError as late:
        blame = Blame.SICK if waits.is_stream else None
        raise AttemptFailed(TIMEOUT, blame=blame) from late
    except OSError as broken:  # it hung up before its head
        raise AttemptFailed(CONNECT, blame=Blame.SICK) from broken
    except MalformedResponse as broken:
        raise AttemptFailed(BAD_ANSWER, blame=Blame.SICK) from broken


class NotConnected(Exception):
    """Nobody is there, or not whom the name promises; the cause says which."""


async def _ask(url: str, authorization: str, body: bytes, waits: Waits, passed: str) -> Response:
    """Ask; once more when the upstream closed a kept connection just as we used it.

    One that breaks later, or a new one, is another matter: the upstream may be at work on it.
    """
    try:
        origin, start = _target(url)
    except ValueError as odd:
        raise NotConnected from odd
    head = b"%bx-airi-hops: %b\r\nauthorization: %b\r\ncontent-length: %d\r\n\r\n" % (
        start, (passed or hops.own()).encode(), authorization.encode(), len(body),
    )  # fmt: skip
    loop = asyncio.get_running_loop()
    began = loop.time()
    by = began + waits.head_s
    pool = _pools.get()
    kept = pool.idle(origin)
    if kept is not None:
        try:
            return await kept.ask(head, body, first_byte_by=by, idle_s=waits.idle_s)
        except Disconnected as gone:
            if gone.heard or loop.time() > began + RACE_S:
                raise
    connection = await _connected(pool, origin, min(by, loop.time() + CONNECT_TIMEOUT_S))
    return await connection.ask(head, body, first_byte_by=by, idle_s=waits.idle_s)


async def _connected(pool: Pool, origin: Origin, by: float) -> Connection:
    try:
        async with asyncio.timeout_at(by):
            return await pool.connect(origin)
    except OSError as away:  # a TimeoutError is one
        raise NotConnected from away


@functools.lru_cache(maxsize=1024)
def _target(url: str) -> tuple[Origin, bytes]:
    """Return where a URL leads and how a request to it begins."""
    target = URL(url)
    if target.raw_host is None or target.port is None:
        raise ValueError(f"Not a URL to post to: {url}")
    origin = Origin(target.raw_host, target.port, is_tls=target.scheme == "https")
    host = target.host_port_subcomponent
    start = (
        f"POST {target.raw_path_qs} HTTP/1.1\r\nhost: {host}\r\n"
        "content-type: application/json\r\naccept-encoding: identity\r\n"
    )
    return origin, start.encode("ascii")


async def read(response: Response, *, at_most: int = MAX_ANSWER_BYTES) -> bytes:
    """Read a whole body.

    Raises:
        AttemptFailed: It broke off, stalled, or is longer than `at_most`.
    """
    parts: list[bytes] = []
    size = 0
    while part := await take(response):
        size += len(part)
        if size > at_most:
            response.close()
            raise AttemptFailed(BAD_ANSWER, status=response.status, blame=Blame.SICK)
        parts.append(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


async def read_start(response: Response, *, at_most: int = MAX_ERROR_BYTES) -> bytes:
    """Read the beginning of an error's body and let go of the rest."""
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(2):
            while size < at_most and (part := await take(response)):
                parts.append(part)
                size += len(part)
    except (AttemptFailed, TimeoutError):
        pass
    response.close()
    return b"".join(parts)[:at_most]


async def take(response: Response) -> bytes:
    """Return what has come of the body since, waiting until something has; b"" is its end.

    Raises:
        AttemptFailed: It broke off or stalled.
    """
    try:
        return await response.take()
    except TimeoutError as stalled:
        raise AttemptFailed(TIMEOUT, status=response.status, blame=Blame.SICK) from stalled
    except (ConnectionError, MalformedResponse) as broken:
        raise AttemptFailed(BAD_ANSWER, status=response.status, blame=Blame.SICK) from broken


async def close() -> None:
    """Hang up on this loop's upstreams; called once, at shutdown."""
    if pool := _pools.pop():
        pool.close()
        await asyncio.sleep(0)  # sockets are closed by the loop's next turn
