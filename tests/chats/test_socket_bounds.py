"""What one client cannot do to the server or to others: flood, stall, send too much."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from chats import messages
from chats.sockets import calls, consumers, hub, protocol
from tests.chats.clients import Rejected, envelope_a

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.asyncio]


class TestFrameSize:
    async def test_of_one_mebibyte_passes_and_a_byte_more_is_1009(self, people):
        ria = await people.join("ria")
        await ria.socket.send_str("x" * 1_048_576)
        assert (await ria.event())["type"] == "eventa:adapters:hono-ws:error"

        await ria.socket.send_str("x" * 1_048_577)

        assert await ria.closed() == 1009


class TestSlowSocket:
    async def test_gets_a_hint_and_1013_and_delays_nobody(self, people):
        room = await people.room("ria", "mio", "ana")
        ria, ana = await people.join("ria"), await people.join("ana")
        slow = await people.join("mio")
        slow.pause()

        (behind,) = hub.current().registry.of([people.id_of("mio")])
        sent = 0
        async with asyncio.timeout(60):
            while not behind.is_closing:
                sent = await ria.send(room, "x" * 250_000)
                await ana.pushed(within_s=5)
        slow.resume()

        assert await slow.closed(within_s=20) == 1013
        assert slow.frames[-1]["type"] == "chat:resync"
        assert slow.pushes.qsize() < sent

    async def test_that_never_reads_again_is_cut_off(self, people, monkeypatch):
        monkeypatch.setattr("chats.sockets.outbox.LAST_WORDS_S", 0.2)
        room = await people.room("ria", "mio")
        ria = await people.join("ria")
        slow = await people.join("mio")
        slow.pause()

        async with asyncio.timeout(30):
            while hub.current().registry.count == 2:
                await ria.send(room, "x" * 250_000)

        assert await ria.send(room, "still here") > 1


class TestFlood:
    async def test_of_small_frames_is_read_at_a_pace_and_starves_nobody(self, people, monkeypatch):
        monkeypatch.setattr(consumers, "BURST", 5)
        monkeypatch.setattr(consumers, "FRAMES_PER_S", 0.001)
        taken = []
        take = consumers.ChatConsumer.receive

        async def receive(consumer, **frame):
            taken.append(consumer)
            await take(consumer, **frame)

        monkeypatch.setattr(consumers.ChatConsumer, "receive", receive)
        flooder = await people.join("mio")
        for _ in range(10_000):
            await flooder.socket.send_str(envelope_a("unknown", {}))

        monkeypatch.setattr(consumers, "BURST", 1_000)
        room = await people.room("ria")
        ria = await people.join("ria")
        for number in range(20):
            assert await ria.send(room, "x") == number + 1

        assert sorted(Counter(taken).values()) == [6, 20]
        flooder.drop()  # the server would come to its goodbye in some hours

    async def test_of_calls_is_held_back(self, people, monkeypatch):
        under_way, most = 0, 0

        async def pull(**_):
            nonlocal under_way, most
            under_way += 1
            most = max(most, under_way)
            await asyncio.sleep(0.01)
            under_way -= 1
            return messages.Page((), 0, ())

        monkeypatch.setattr("chats.messages.pull", pull)
        ria = await people.join("ria")

        await asyncio.gather(*(ria.pull("c1") for _ in range(40)))

        assert most == calls.PULLS_AT_ONCE


class TestDatabaseAway:
    async def test_is_an_answer(self, database_line, people):
        room = await people.room("ria")
        ria = await people.join("ria")
        database_line.cut()

        with pytest.raises(Rejected) as refused:
            await ria.pull(room)
        database_line.mend()

        assert (await ria.pull(room))["seq"] == 0
        assert refused.value.args[0]["errorCode"] == "SERVICE_UNAVAILABLE"


class TestAbort:
    async def test_does_not_keep_an_answer_back(self, people, monkeypatch):
        send, was_aborted = messages.send, asyncio.Event()

        async def send_late(**asked):
            await was_aborted.wait()
            return await send(**asked)

        monkeypatch.setattr("chats.messages.send", send_late)
        room = await people.room("ria")
        ria = await people.join("ria")
        new = [{"id": "m1", "role": "user", "content": "x"}]
        call = {"invokeId": "mine", "content": {"chatId": room, "messages": new}}

        await ria.socket.send_str(envelope_a(f"{protocol.SEND.tag}-send", call))
        await ria.socket.send_str(
            envelope_a(f"{protocol.SEND.tag}-send-abort", {"invokeId": "mine"})
        )
        await ria.socket.send_str("frames are read in turn")
        assert (await ria.event())["type"] == protocol.MALFORMED
        was_aborted.set()

        assert await ria.event() == {
            "type": f"{protocol.SEND.tag}-receive-mine",
            "body": {"invokeId": "mine", "content": {"seq": 1}},
        }
