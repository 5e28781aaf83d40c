"""Connections to upstreams, kept for the next request to the same place."""

from __future__ import annotations

import asyncio
import functools
import ipaddress
import socket
import ssl
from collections import deque
from dataclasses import dataclass
from typing import Final

from aiohappyeyeballs import AddrInfoType, start_connection

from llmrouter.upstream.connections import Connection

KEEP_S: Final = 30.0
"""How long a connection may wait for its next request."""
NAMES_S: Final = 60.0
"""How long the addresses of a name are believed."""
NEXT_ADDRESS_S: Final = 0.25
"""RFC 8305: after this the next address of a name is tried beside the first."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a connection leads."""

    host: str
    port: int
    is_tls: bool


@functools.cache
def _tls() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


class Pool:
    """The connections of one event loop. The one used last is used next."""

    def __init__(self) -> None:
        self._idle: dict[Origin, deque[Connection]] = {}
        self._open: set[Connection] = set()
        self._names: dict[Origin, tuple[float, asyncio.Task[list[AddrInfoType]]]] = {}
        self._sweeper: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()

    def idle(self, origin: Origin) -> Connection | None:
        """Return a connection that has served before, and nobody uses."""
        idle = self._idle.get(origin)
        oldest = self._loop.time() - KEEP_S
        while idle:
            connection = idle.pop()
            if connection.is_usable and connection.idle_since >= oldest:
                return connection
            connection.hang_up()
        return None

    async def connect(self, origin: Origin) -> Connection:
        """Open a connection.

        Raises:
            OSError: Nobody is there; `socket.gaierror` for an unknown name, `ssl.SSLError` for a
                server that is not who it should be.
        """
        loop = asyncio.get_running_loop()
        sock = await self._dial(origin)
        connection = Connection(
            functools.partial(self._keep, origin), functools.partial(self._forget, origin)
        )
        try:
            await loop.create_connection(
                lambda: connection,
                sock=sock,
                ssl=_tls() if origin.is_tls else None,
                server_hostname=origin.host if origin.is_tls else None,
            )
        except BaseException:
            connection.hang_up()
            sock.close()
            raise
        self._open.add(connection)
        return connection

    async def _dial(self, origin: Origin) -> socket.socket:
        try:
            addresses = await self._addresses(origin)
            return await start_connection(
                addresses, happy_eyeballs_delay=NEXT_ADDRESS_S, interleave=1
            )
        except BaseException as failure:
            self._names.pop(origin, None)
            # A name that can be none, or that has no address; uvloop's RuntimeError for a socket.
            if isinstance(failure, (ValueError, RuntimeError)):
                raise OSError(str(failure)) from failure
            raise

    def close(self) -> None:
        """Hang up everywhere, also where an answer is under way."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        for connection in list(self._open):
            connection.hang_up()

    def _keep(self, origin: Origin, connection: Connection) -> None:
        self._idle.setdefault(origin, deque()).append(connection)
        if self._sweeper is None:
            self._sweeper = asyncio.get_running_loop().call_later(KEEP_S, self._sweep)

    def _forget(self, origin: Origin, connection: Connection) -> None:
        self._open.discard(connection)
        idle = self._idle.get(origin)
        if idle and connection in idle:
            idle.remove(connection)

    def _sweep(self) -> None:
        """Hang up where nobody has asked for long, and look again while somebody might."""
        self._sweeper = None
        loop = asyncio.get_running_loop()
        oldest = loop.time() - KEEP_S
        for origin, idle in list(self._idle.items()):
            while idle and idle[0].idle_since <= oldest:
                idle.popleft().hang_up()
            if not idle:
                del self._idle[origin]
        if self._idle:
            self._sweeper = loop.call_later(KEEP_S, self._sweep)

    async def _addresses(self, origin: Origin) -> list[AddrInfoType]:
        """Return where a host is; all who ask at once are told by one lookup."""
        numeric = _numeric(origin)
        if numeric is not None:
            return [numeric]
        loop = asyncio.get_running_loop()
        until, lookup = self._names.get(origin, (0.0, None))
        if lookup is None or until < loop.time():
            lookup = loop.create_task(_lookup(origin))
            self._names[origin] = (loop.time() + NAMES_S, lookup)
        return await asyncio.shield(lookup)


def _numeric(origin: Origin) -> AddrInfoType | None:
    """Return the address that is its own name, if it is: no thread has to look it up."""
    try:
        version = ipaddress.ip_address(origin.host).version
    except ValueError:
        return None
    family = socket.AF_INET6 if version == 6 else socket.AF_INET
    return family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (origin.host, origin.port)


async def _lookup(origin: Origin) -> list[AddrInfoType]:
    loop = asyncio.get_running_loop()
    return [*await loop.getaddrinfo(origin.host, origin.port, type=socket.SOCK_STREAM)]
