"""Writes of one turn of the loop: one system call, in order, nothing lost at the end."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest
import pytest_asyncio

from airi_server.web import joined_writes
from airi_server.web.joined_writes import JoinedWrites

pytestmark = pytest.mark.asyncio


class Peer(asyncio.Protocol):
    """The other end of a real connection."""

    def __init__(self) -> None:
        self.received = b""
        self.ended = asyncio.get_running_loop().create_future()

    def data_received(self, data):
        self.received += data

    def connection_lost(self, exc):
        self.ended.set_result(None)


class Recorded:
    """A transport that counts what is written to it."""

    def __init__(self, transport):
        self.transport = transport
        self.writes = []

    def write(self, data):
        self.writes.append(data)
        self.transport.write(data)

    def __getattr__(self, name):
        return getattr(self.transport, name)


@pytest_asyncio.fixture
async def line():
    """Return the joining end of a connection, what counts its writes, and the other end."""
    loop = asyncio.get_running_loop()
    peer = Peer()
    server = await loop.create_server(lambda: peer, "127.0.0.1", 0)
    transport, _ = await loop.create_connection(
        asyncio.Protocol, *server.sockets[0].getsockname()[:2]
    )
    recorded = Recorded(transport)
    yield JoinedWrites(cast("Any", recorded), loop), recorded, peer
    transport.abort()
    server.close()


async def test_of_one_turn_leave_as_one(line):
    joined, recorded, _ = line

    joined.write(b"head ")
    joined.write(b"body")
    assert recorded.writes == []
    await asyncio.sleep(0)
    joined.write(b", more")
    await asyncio.sleep(0)

    assert recorded.writes == [b"head body", b", more"]


async def test_leave_before_the_connection_is_closed(line):
    joined, _, peer = line

    joined.write(b"the ")
    joined.write(b"end")
    joined.close()
    async with asyncio.timeout(5):
        await peer.ended

    assert joined.is_closing()
    assert peer.received == b"the end"


async def test_too_large_to_wait_leave_at_once(line, monkeypatch):
    monkeypatch.setattr(joined_writes, "MAX_JOINED_BYTES", 4)
    joined, recorded, _ = line

    joined.write(b"ab")
    joined.write(b"cdefg")
    joined.write(b"h")
    await asyncio.sleep(0)

    assert recorded.writes == [b"ab", b"cdefg", b"h"]


async def test_to_a_connection_that_is_closing_are_dropped(line):
    joined, recorded, _ = line

    joined.write(b"late")
    recorded.close()
    await asyncio.sleep(0)
    joined.write(b"later" * joined_writes.MAX_JOINED_BYTES)

    assert recorded.writes == []


async def test_what_else_a_transport_can_do_is_the_transports(line):
    joined, _, _ = line

    assert joined.get_extra_info("peername")[0] == "127.0.0.1"
