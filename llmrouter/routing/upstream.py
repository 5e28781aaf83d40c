"""The one HTTP call of the hot path: a POST to an upstream, its answer still unread.

No proxies from the environment, no redirects, no cookies, nothing of the client's headers.
"""

from __future__ import annotations

import asyncio
import functools
from typing import Final

from yarl import URL

from airi_server.kernel.loops import PerLoop
from llmrouter.routing.failures import BAD_ANSWER, CONNECT, TIMEOUT, AttemptFailed
from llmrouter.routing.pool import Origin, Pool
from llmrouter.routing.responses import Disconnected, Malformed, Response

CONNECT_TIMEOUT_S: Final = 5.0
RACE_S: Final = 1.0
"""A kept connection that ends within this was closed before the request arrived."""
MAX_ANSWER_BYTES: Final = 33_554_432
MAX_ERROR_BYTES: Final = 65_536
_pools = PerLoop(Pool)


async def post(
    url: str,
    *,
    authorization: str,
    body: bytes,
    first_byte_s: float,
    idle_s: float,
    is_stream: bool,
) -> Response:
    """Send the request and return as soon as the headers are there.

    Raises:
        AttemptFailed: No connection, no headers within `first_byte_s`, or a broken answer.
        ValueError: The authorization is no header.
    """
    if not (authorization.isascii() and authorization.isprintable()):
        raise ValueError("An authorization is one line of printable characters.")
    try:
        return await _ask(url, authorization, body, first_byte_s, idle_s)
    except TimeoutError as late:
        # A plain answer has its first byte when it is finished: a long one says nothing about
        # the upstream, or a caller could make it rest for everybody.
        raise AttemptFailed(TIMEOUT, counts=is_stream) from late
    except OSError as away:
        raise AttemptFailed(CONNECT) from away
    except Malformed as broken:
        raise AttemptFailed(BAD_ANSWER) from broken


async def _ask(
    url: str, authorization: str, body: bytes, first_byte_s: float, idle_s: float
) -> Response:
    """Ask; once more when the upstream closed a kept connection just as we used it.

    One that breaks later, or a new one, is another matter: the upstream may be at work on it.
    """
    try:
        origin, start = _target(url)
    except ValueError as odd:
        raise AttemptFailed(CONNECT) from odd
    head = b"%bauthorization: %b\r\ncontent-length: %d\r\n\r\n" % (
        start, authorization.encode(), len(body),
    )  # fmt: skip
    loop = asyncio.get_running_loop()
    began = loop.time()
    by = began + first_byte_s
    pool = _pools.get()
    kept = pool.idle(origin)
    if kept is not None:
        try:
            return await kept.ask(head, body, first_byte_by=by, idle_s=idle_s)
        except Disconnected as gone:
            if gone.heard or loop.time() > began + RACE_S:
                raise
    async with asyncio.timeout_at(min(by, loop.time() + CONNECT_TIMEOUT_S)):
        connection = await pool.connect(origin)
    return await connection.ask(head, body, first_byte_by=by, idle_s=idle_s)


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
            raise AttemptFailed(BAD_ANSWER, status=response.status)
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
        raise AttemptFailed(TIMEOUT, status=response.status) from stalled
    except (ConnectionError, Malformed) as broken:
        raise AttemptFailed(BAD_ANSWER, status=response.status) from broken


async def close() -> None:
    """Hang up on this loop's upstreams; called once, at shutdown."""
    if pool := _pools.pop():
        pool.close()
        await asyncio.sleep(0)  # sockets are closed by the loop's next turn
