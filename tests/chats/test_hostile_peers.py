"""Peers that do not play along below the frames: nothing is kept for them without a bound."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from airi_server.kernel.threads import in_thread
from airi_server.web import http_protocols
from chats.sockets import hub
from tests.chats import clients, raw
from tests.chats.raw import CONTINUED, PING, TEXT, frame
from tests.factories import chats as make

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.asyncio]
ANONYMOUS = "/ws/v2/chat"
FEW_BYTES = 1_048_576


async def nothing_is_kept():
    async with asyncio.timeout(10):
        while raw.kept():
            await asyncio.sleep(0.02)


class TestNotReading:
    async def test_ends_with_the_connection_gone_whatever_is_left(self, people, monkeypatch):
        monkeypatch.setattr("chats.sockets.outbox.LAST_WORDS_S", 0.2)
        monkeypatch.setattr(http_protocols, "LINGER_S", 0.2)
        room = await people.room("ria", "mio")
        ria = await people.join("ria")
        path = f"/ws/chat?token={people.token_of('mio')}"

        async with raw.opened(people.served.base_url, path):
            async with asyncio.timeout(30):
                while hub.current().registry.count == 2:
                    await ria.send(room, "x" * 250_000)
            await ria.close()
            await nothing_is_kept()

    async def test_of_answers_is_asked_no_more_once_a_few_are_waiting(self, people):
        """A page of long messages is a frame of two megabytes and more."""
        room = await people.room("ria")
        chat = await in_thread(make.chat_of)(room)
        for _ in range(4):
            await make.say(chat, "x" * 262_144, caller=people.id_of("ria"))
        pull = {"invokeId": "i", "content": {"chatId": room, "afterSeq": 0}}
        asking = clients.minimal("chat:pull-messages-send", pull).encode()

        async with raw.opened(
            people.served.base_url, f"/ws/chat?token={people.token_of('ria')}"
        ) as peer:
            await peer.send(frame(TEXT, asking) * 100)
            (ours,) = hub.current().registry.of([people.id_of("ria")])
            async with asyncio.timeout(10):
                while ours._room is None:
                    await asyncio.sleep(0.02)
            await asyncio.sleep(0.5)

            waiting = sum(len(text) for text, _ in ours._queue)
            assert 0 < waiting < 16 * FEW_BYTES

    async def test_of_answers_to_pings_keeps_no_answers(self, served):
        async with raw.opened(served.base_url, ANONYMOUS) as peer:
            for _ in range(300):
                await peer.send(frame(PING, b"x" * 125) * 500)

            (ours,) = raw.kept()
            assert ours.transport.get_write_buffer_size() < FEW_BYTES

    async def test_pings_is_gone_after_two(self, people, monkeypatch):
        """Also when so much is waiting for it that the connection cannot be closed."""
        room = await people.room("ria", "mio")
        ria = await people.join("ria")
        path = f"/ws/chat?token={people.token_of('mio')}"

        async with raw.opened(people.served.base_url, path):
            while not (stuck := [each for each in raw.kept() if not each.writable.is_set()]):
                await ria.send(room, "x" * 250_000)
            stuck[0].ping_timeout = 0.01
            stuck[0].send_keepalive_ping()

            async with asyncio.timeout(5):
                while hub.current().registry.count == 2:
                    await asyncio.sleep(0.02)


class TestFragments:
    async def test_without_end_are_1009(self, served):
        async with raw.opened(served.base_url, ANONYMOUS) as peer:
            await peer.send(frame(TEXT, is_last=False))
            await peer.send(frame(CONTINUED, is_last=False) * 5_000)

            assert b"too many fragments" in await peer.read_to_the_end()

    async def test_of_an_ordinary_message_are_put_together(self, people):
        await people.know("ria")
        path = f"/ws/chat?token={people.token_of('ria')}"
        async with raw.opened(people.served.base_url, path) as peer:
            await peer.send(frame(TEXT, b"[", is_last=False))
            await peer.send(frame(CONTINUED, b"", is_last=False) * 1_000)
            await peer.send(frame(CONTINUED, b"]"))

            assert b"adapters:hono-ws:error" in await peer.read_until(b"timestamp")


class TestHead:
    @pytest.mark.parametrize(
        "sent",
        [b"GET ", raw.head(ANONYMOUS)[:-2]],
        ids=["a method", "all but its end"],
    )
    async def test_that_does_not_end_is_not_waited_for(self, served, monkeypatch, sent):
        monkeypatch.setattr(http_protocols, "HEAD_S", 0.2)

        async with raw.connected(served.base_url) as peer:
            await peer.send(sent)

            assert (await peer.read_to_the_end()).startswith(b"HTTP/1.1 400 ")

    async def test_that_does_not_begin_ends_without_a_word(self, served, monkeypatch):
        monkeypatch.setattr(http_protocols, "HEAD_S", 0.2)

        async with raw.connected(served.base_url) as peer:
            assert await peer.read_to_the_end() == b""

    async def test_that_comes_drop_by_drop_is_not_waited_for(self, served, monkeypatch):
        monkeypatch.setattr(http_protocols, "HEAD_S", 0.3)

        async with raw.connected(served.base_url) as peer:
            reading = asyncio.create_task(peer.read_to_the_end())
            with suppress(ConnectionError):
                for byte in raw.head(ANONYMOUS)[:-2]:
                    if reading.done():
                        break
                    await peer.send(bytes([byte]))
                    await asyncio.sleep(0.02)

            assert (await reading).startswith(b"HTTP/1.1 400 ")

    @pytest.mark.parametrize(
        "sent",
        [
            b"GET /" + b"x" * 100_000,
            b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 20_000,
            raw.head(f"{ANONYMOUS}?token={'x' * 10_000}"),
        ],
        ids=["a path", "headers", "a query"],
    )
    async def test_that_is_too_long_is_refused(self, served, sent):
        async with raw.connected(served.base_url) as peer:
            await peer.send(sent)

            assert (await peer.read_to_the_end()).startswith(b"HTTP/1.1 400 ")

    async def test_is_not_expected_from_an_open_socket_or_an_idle_connection(
        self, served, monkeypatch
    ):
        monkeypatch.setattr(http_protocols, "HEAD_S", 0.2)
        get = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"

        async with (
            raw.opened(served.base_url, ANONYMOUS) as peer,
            raw.connected(served.base_url) as idle,
        ):
            for _ in range(3):
                await idle.send(get)
                assert b" 200 " in await idle.read_until(b"}")
                await asyncio.sleep(0.3)

            await peer.send(frame(PING, b"still here"))
            assert b"still here" in await peer.read_until(b"still here")


class TestHandshake:
    @pytest.mark.parametrize(
        ("line", "status"),
        [
            (b"Sec-WebSocket-Version: 99", b"400"),
            (b"Sec-WebSocket-Extensions: ;;;", b"101"),
            (b"Authorization: Bearer \xff\xfe", b"101"),
            (b"X-Forwarded-For: \xff,,,", b"101"),
            (b"Origin: \xff", b"403"),
        ],
    )
    async def test_that_is_odd_is_answered_and_leaves_no_traceback(
        self, served, caplog, line, status
    ):
        asked = raw.head("/ws/chat")
        name = line.partition(b":")[0]
        kept = [each for each in asked.split(b"\r\n") if not each.startswith(name)]

        async with raw.connected(served.base_url) as peer:
            await peer.send(b"\r\n".join([*kept[:-2], line, b"", b""]))

            answer = await peer.read_until(b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 " + status)
        assert not [record for record in caplog.records if record.exc_info]
