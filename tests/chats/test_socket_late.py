"""`/ws/v2/chat`: the first call authenticates (contract §16.7)."""

from __future__ import annotations

import asyncio

import pytest
from redis.exceptions import ConnectionError as Away

from accounts import users
from airi_server.kernel import redis
from airi_server.kernel.threads import in_thread
from chats import tickets
from chats.sockets import consumers
from tests.chats.captured import REQUESTS
from tests.chats.clients import envelope_a, envelope_b, minimal
from tests.factories import accounts

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.asyncio]
AUTHENTICATE = "chat:authenticate"


async def late(people, **more):
    client = await people.open("/ws/v2/chat", **more)
    assert (await client.event())["type"] == "eventa:adapters:hono-ws:connected"
    return client


class TestAuthenticate:
    @pytest.mark.parametrize("envelope", [envelope_b, minimal])
    async def test_answers_the_user_and_serves_from_then_on(self, people, envelope):
        room = await people.room("ria", "mio")
        mio = await people.join("mio")
        ria = await late(people, envelope=envelope)

        answer = await ria.call(AUTHENTICATE, {"token": people.token_of("ria")})

        assert answer == {"userId": people.id_of("ria")}
        assert consumers.unauthenticated().count == 0
        await mio.send(room, "hi")
        assert (await ria.pushed())["toSeq"] == 1
        assert await ria.send(room, "hello") == 2

    @pytest.mark.parametrize(
        "content",
        [{"token": "sk-airi-nope"}, {"token": ""}, {"token": "x" * 4_097}, {"token": 7}, {}, None],
    )
    async def test_with_a_bad_token_is_4001(self, people, content):
        client = await late(people)

        await client.socket.send_str(
            minimal(f"{AUTHENTICATE}-send", {"invokeId": "x", "content": content})
        )

        assert await client.closed() == 4001
        assert len(client.frames) == 1

    @pytest.mark.parametrize("envelope", [envelope_a, envelope_b])
    async def test_may_come_after_the_event_that_eventa_sends_at_open_but_not_two(
        self, people, envelope
    ):
        await people.know("ria")
        polite, chatty = await late(people, envelope=envelope), await late(people)
        greeting = envelope("Xk2ndmqTUDPyLvK8", {"url": "ws://x/"})

        await polite.socket.send_str(greeting)
        for _ in range(2):
            await chatty.socket.send_str(greeting)

        assert await polite.call(AUTHENTICATE, {"token": people.token_of("ria")})
        assert await chatty.closed() == 4001

    async def test_twice_is_4001(self, people):
        await people.know("ria")
        client = await late(people)
        await client.call(AUTHENTICATE, {"token": people.token_of("ria")})

        await client.socket.send_str(
            minimal(f"{AUTHENTICATE}-send", {"invokeId": "y", "content": {"token": "x"}})
        )

        assert await client.closed() == 4001

    async def test_while_the_database_is_away_is_1011(self, database_line, people):
        await people.know("ria")
        client = await late(people)
        database_line.cut()

        await client.socket.send_str(
            minimal(
                f"{AUTHENTICATE}-send",
                {"invokeId": "x", "content": {"token": people.token_of("ria")}},
            )
        )

        assert await client.closed(within_s=20) == 1011


class TestEverythingElse:
    @pytest.mark.parametrize(
        "text",
        ["{", "[]", '{"type":"unknown","payload":{}}',
         minimal(f"{AUTHENTICATE}-send", {"content": {"token": "x"}}),
         *[text for text in REQUESTS if AUTHENTICATE not in text]],
    )  # fmt: skip
    async def test_before_it_is_4001(self, people, text):
        client = await late(people)

        await client.socket.send_str(text)

        assert await client.closed() == 4001

    async def test_that_is_binary_is_4001(self, people):
        client = await late(people)

        await client.socket.send_bytes(b"{}")

        assert await client.closed() == 4001

    async def test_behind_it_without_waiting_for_the_answer_is_4001(self, people):
        await people.know("ria")
        client = await late(people)
        token = {"token": people.token_of("ria")}

        await client.socket.send_str(
            minimal(f"{AUTHENTICATE}-send", {"invokeId": "x", "content": token})
        )
        await client.socket.send_str(minimal("chat:pull-messages-send", {"invokeId": "y"}))

        assert await client.closed() == 4001

    async def test_of_more_than_8192_bytes_is_1009(self, people):
        client = await late(people)

        await client.socket.send_str("x" * 8_193)

        assert await client.closed() == 1009


class TestWaiting:
    async def test_ends_after_a_while_with_1013(self, people, monkeypatch):
        monkeypatch.setattr("chats.sockets.consumers.AUTHENTICATE_S", 0.2)
        client = await late(people)

        assert await client.closed() == 1013

    async def test_does_not_end_for_those_who_came_in(self, people, monkeypatch):
        monkeypatch.setattr("chats.sockets.consumers.AUTHENTICATE_S", 0.5)
        await people.know("ria")
        client = await late(people)
        await client.call(AUTHENTICATE, {"token": people.token_of("ria")})

        await asyncio.sleep(0.7)

        assert not client.socket.closed

    async def test_is_for_a_few_from_one_address(self, people, monkeypatch):
        monkeypatch.setattr(consumers, "MAX_PER_ADDRESS", 2)
        first, _second = await late(people), await late(people)

        third = await people.open("/ws/v2/chat")
        assert await third.closed() == 1013
        await first.close()
        async with asyncio.timeout(5):
            while consumers.unauthenticated().count > 1:
                await asyncio.sleep(0.01)
        await late(people)

    async def test_is_for_a_hundred_in_all(self):
        room = consumers.Unauthenticated()

        admitted = [room.enter(str(number)) for number in range(101)]

        assert (admitted.count(True), admitted[-1]) == (100, False)


class TestTicket:
    async def test_opens_a_socket_once(self, people):
        await people.know("ria")
        got = await people.served.post("/api/v1/ws-tickets", key=people.token_of("ria"))
        assert (got.status, got.json()["expiresIn"]) == (201, 30)
        assert got.headers["cache-control"].startswith("no-store")
        ticket = got.json()["ticket"]

        first = await late(people)
        answer = await first.call(AUTHENTICATE, {"token": ticket})
        again = await people.open(f"/ws/chat?ticket={ticket}")

        assert answer == {"userId": people.id_of("ria")}
        assert await again.closed() == 4001
        other = (await people.served.post("/api/v1/ws-tickets", key=people.token_of("ria"))).json()
        opened = await people.open(f"/ws/chat?ticket={other['ticket']}")
        assert (await opened.event())["type"].endswith("connected")

    async def test_that_expired_is_4001(self, people, monkeypatch):
        monkeypatch.setattr(tickets, "KEEP_S", 1)
        await people.know("ria")
        got = await people.served.post("/api/v1/ws-tickets", key=people.token_of("ria"))

        await asyncio.sleep(1.2)
        client = await people.open(f"/ws/chat?ticket={got.json()['ticket']}")

        assert await client.closed() == 4001

    async def test_of_somebody_banned_since_is_4001(self, people):
        await people.know("ria")
        got = await people.served.post("/api/v1/ws-tickets", key=people.token_of("ria"))
        await in_thread(users.ban)(
            user_id=people.id_of("ria"), reason="spam", until=None, at=accounts.NOW
        )

        client = await people.open(f"/ws/chat?ticket={got.json()['ticket']}")

        assert await client.closed() == 4001

    async def test_is_not_made_for_strangers(self, people):
        assert (await people.served.post("/api/v1/ws-tickets")).status == 401

    async def test_without_redis_is_503_and_cannot_be_used(self, people, monkeypatch):
        await people.know("ria")

        def away(*_, **__):
            raise Away

        monkeypatch.setattr("redis.Redis.set", away)
        got = await people.served.post("/api/v1/ws-tickets", key=people.token_of("ria"))
        assert got.status == 503

        async def unanswered(*_):
            raise redis.RedisAway

        monkeypatch.setattr(redis.RedisLink, "ask", unanswered)
        client = await people.open("/ws/chat?ticket=wst_x")
        assert await client.closed() == 1011
