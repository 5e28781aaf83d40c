"""A bug under a socket is one traceback in the log, and the socket comes to an end or an answer."""

from __future__ import annotations

import asyncio

import aiohttp
import orjson
import pytest

from chats.sockets import hub
from tests.chats.clients import Rejected, envelope_a

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.asyncio]
FROM_START = "/ws/chat"
LATE = "/ws/v2/chat"


class Planted(Exception):
    """What the places of these tests raise."""


def crash(*_args, **_arguments):
    raise Planted("a canary")


async def crash_later(*_args, **_arguments):
    crash()


async def open_to(people, path):
    """Open a socket and, where that is its first call, authenticate."""
    token = people.token_of("ria")
    client = await people.open(path + (f"?token={token}" if path == FROM_START else ""))
    if path == LATE:
        await client.call("chat:authenticate", {"token": token})
    return client


async def all_lines(log):
    """Return the log once something has crashed and the socket has come to its end."""
    async with asyncio.timeout(5):
        while "Planted: a canary" not in log.text or "Socket closed" not in log.text:
            await asyncio.sleep(0.01)
    return [orjson.loads(line) for line in log.text.splitlines()]


def assert_said_once(lines):
    """One traceback, under the id of the line that every socket ends with."""
    (crashed,) = [line for line in lines if "exception" in line]
    (closed,) = [line for line in lines if line["message"] == "Socket closed"]
    assert crashed["request_id"] == closed["request_id"]
    assert crashed["level"] == "error"
    assert crashed["exception"].endswith("Planted: a canary\n")
    return crashed, closed


class TestCrashed:
    async def test_call_is_answered_and_its_socket_goes_on(self, people, log, monkeypatch):
        room = await people.room("ria")
        ria = await open_to(people, FROM_START)
        with monkeypatch.context() as broken:
            broken.setattr("chats.messages.pull", crash_later)
            with pytest.raises(Rejected) as refused:
                await ria.pull(room)

        assert refused.value.args[0]["errorCode"] == "INTERNAL_SERVER_ERROR"
        assert (await ria.pull(room))["seq"] == 0
        await ria.close()
        crashed, _ = assert_said_once(await all_lines(log))
        assert (crashed["message"], crashed["call"]) == ("A call crashed", "chat:pull-messages")

    @pytest.mark.parametrize("path", [FROM_START, LATE])
    async def test_frame_ends_its_socket(self, people, log, monkeypatch, path):
        await people.know("ria")
        ria = await open_to(people, path)
        monkeypatch.setattr("chats.sockets.envelopes.read", crash)

        await ria.socket.send_str("{}")

        assert await ria.closed() == 1006
        assert_said_once(await all_lines(log))
        assert not hub.current()._open

    @pytest.mark.parametrize(
        "place", ["chats.sockets.authentication.of_upgrade", "chats.sockets.hub.Hub.opened"]
    )
    async def test_opening_is_no_socket(self, people, log, monkeypatch, place):
        await people.know("ria")
        monkeypatch.setattr(place, crash_later if place.endswith("upgrade") else crash)

        with pytest.raises((aiohttp.WSServerHandshakeError, TimeoutError)):
            await (await open_to(people, FROM_START)).event(within_s=1)

        assert_said_once(await all_lines(log))
        assert not hub.current()._open

    @pytest.mark.parametrize(
        ("path", "place", "code"),
        [
            (FROM_START, "chats.sockets.authentication._caller", 1011),
            (FROM_START, "chats.sockets.hub.Hub.join", 1006),
            (LATE, "chats.sockets.authentication._caller", 1011),
            (LATE, "chats.sockets.authentication.of_token", 1011),
            (LATE, "chats.sockets.hub.Hub.join", 1011),
        ],
    )
    async def test_authentication_ends_its_socket(
        self, people, log, monkeypatch, path, place, code
    ):
        await people.know("ria")
        monkeypatch.setattr(place, crash_later)
        token = people.token_of("ria")
        ria = await people.open(path + (f"?token={token}" if path == FROM_START else ""))

        if path == LATE:
            call = {"invokeId": "a", "content": {"token": token}}
            await ria.socket.send_str(envelope_a("chat:authenticate-send", call))

        assert await ria.closed() == code
        _, closed = assert_said_once(await all_lines(log))
        assert closed["code"] == code
        assert not hub.current()._open
