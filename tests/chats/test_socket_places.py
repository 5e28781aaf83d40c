"""How many sockets a key, a user and an address may have, over real ones."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from accounts.models import User
from accounts.revalidation import Caller
from airi_server.kernel.threads import in_thread
from airi_server.runtime import options, published
from chats import telemetry
from chats.api import tickets
from chats.sockets import consumers, seats
from tests.factories import accounts

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.asyncio]
db = in_thread


async def allow(**limits):
    for name, limit in limits.items():
        await db(options.put)(name, limit, by="op", at=accounts.NOW)
    await published.refresh()


async def another_key(people, name):
    """Give somebody who is known a second key, under another name."""
    owner = await db(User.objects.get)(pk=people.id_of(name))
    people.keys[f"{name}'s other"] = await db(accounts.api_key)(owner=owner)
    return f"{name}'s other"


async def late(people, token):
    client = await people.open("/ws/v2/chat")
    await client.event()
    return client, asyncio.create_task(client.call("chat:authenticate", {"token": token}))


async def gone(count):
    """Wait until only so many seats are taken, counted once for keys and once for users."""
    async with asyncio.timeout(5):
        while sum(seats.current()._taken.values()) > 2 * count:
            await asyncio.sleep(0.01)


class TestKey:
    async def test_has_so_many_sockets_and_a_place_again_when_one_ends(self, people):
        await allow(CHAT_SOCKETS_PER_KEY=2)
        first, second = await people.join("ria"), await people.join("ria")

        third = await people.open(f"/ws/chat?token={people.token_of('ria')}")

        assert await third.closed() == 1013
        assert third.frames == []
        assert not first.socket.closed
        await people.join("mio")
        await second.close()
        await gone(2)
        await people.join("ria")

    async def test_is_the_same_with_its_first_call_and_with_a_ticket(self, people):
        await allow(CHAT_SOCKETS_PER_KEY=2)
        await people.join("ria")
        token = people.token_of("ria")
        got = await people.served.post("/api/v1/ws-tickets", key=token)
        second, answer = await late(people, token)
        await answer
        third, unanswered = await late(people, token)
        fourth = await people.open(f"/ws/chat?ticket={got.json()['ticket']}")

        assert [await third.closed(), await fourth.closed()] == [1013, 1013]
        assert not second.socket.closed
        assert not unanswered.done()
        unanswered.cancel()
        await second.close()
        await gone(1)
        await people.join("ria")

    async def test_leaves_the_lobby_when_it_is_refused(self, people):
        await allow(CHAT_SOCKETS_PER_KEY=1)
        await people.join("ria")

        client, unanswered = await late(people, people.token_of("ria"))
        await client.closed()
        unanswered.cancel()

        async with asyncio.timeout(5):
            while consumers.unauthenticated().count:
                await asyncio.sleep(0.01)

    async def test_is_given_back_however_a_socket_ends(self, people):
        await allow(CHAT_SOCKETS_PER_KEY=1)
        for end in ("close", "drop"):
            client = await people.join("ria")
            if end == "drop":
                client.drop()
            else:
                await client.close()
            await gone(0)
        await people.join("ria")

        assert seats.current()._taken.total() == 2

    async def test_keeps_what_was_open_when_the_limit_falls(self, people):
        open_ones = [await people.join("ria") for _ in range(3)]
        await allow(CHAT_SOCKETS_PER_KEY=1)

        refused = await people.open(f"/ws/chat?token={people.token_of('ria')}")

        assert await refused.closed() == 1013
        assert not any(client.socket.closed for client in open_ones)

    async def test_without_a_limit_has_none(self, people):
        await allow(CHAT_SOCKETS_PER_KEY=0, CHAT_SOCKETS_PER_USER=0)

        for _ in range(5):
            await people.join("ria")


class TestUser:
    async def test_has_so_many_sockets_with_all_keys_together(self, people):
        await allow(CHAT_SOCKETS_PER_KEY=2, CHAT_SOCKETS_PER_USER=3)
        for _ in range(2):
            await people.join("ria")
        other = await another_key(people, "ria")
        await people.join(other)

        refused = await people.open(f"/ws/chat?token={people.token_of(other)}")

        assert await refused.closed() == 1013
        await people.join("mio")


class TestAtOnce:
    async def test_no_more_are_let_in_than_may_be(self, people):
        await allow(CHAT_SOCKETS_PER_KEY=5)
        await people.know("ria")
        path = f"/ws/chat?token={people.token_of('ria')}"
        clients = await asyncio.gather(*(people.open(path) for _ in range(30)))

        async with asyncio.timeout(10):
            while sum(client.socket.closed for client in clients) < 25:
                await asyncio.sleep(0.01)

        assert sum(bool(client.frames) for client in clients) == 5


class TestAddress:
    async def test_is_the_64_of_a_client_behind_our_proxy(self, people, settings, monkeypatch):
        settings.TRUSTED_PROXIES = ["127.0.0.1"]
        monkeypatch.setattr(consumers, "MAX_PER_ADDRESS", 2)

        async def wait_from(address):
            return await people.open("/ws/v2/chat", headers={"x-forwarded-for": address})

        for host in ("1", "2"):
            await (await wait_from(f"2001:db8:0:1::{host}")).event()

        assert await (await wait_from("2001:db8:0:1:ffff::")).closed() == 1013
        for other in ("2001:db8:0:2::1", "203.0.113.9"):
            await (await wait_from(other)).event()

    async def test_of_nobody_we_trust_is_not_believed(self, people, settings, monkeypatch):
        settings.TRUSTED_PROXIES = []
        monkeypatch.setattr(consumers, "MAX_PER_ADDRESS", 1)
        first = await people.open("/ws/v2/chat", headers={"x-forwarded-for": "203.0.113.1"})
        await first.event()

        second = await people.open("/ws/v2/chat", headers={"x-forwarded-for": "203.0.113.2"})

        assert await second.closed() == 1013


class TestTickets:
    @pytest.fixture(autouse=True)
    def _still(self, monkeypatch):
        """The end of a window must not fall into a test."""
        at = datetime.now(UTC)
        monkeypatch.setattr(tickets, "timezone", SimpleNamespace(now=lambda: at))

    async def test_are_as_many_for_a_key_as_sockets(self, people):
        await allow(CHAT_SOCKETS_PER_KEY=2)
        for name in ("ria", "mio"):
            await people.know(name)

        async def ask(name):
            return await people.served.post("/api/v1/ws-tickets", key=people.token_of(name))

        got = [await ask("ria") for _ in range(3)]

        assert [answer.status for answer in got] == [201, 201, 429]
        assert got[-1].json()["error"] == "TOO_MANY_REQUESTS"
        assert 1 <= int(got[-1].headers["retry-after"]) <= 30
        assert (await ask("mio")).status == 201

    async def test_are_not_limited_without_a_limit(self, people):
        await allow(CHAT_SOCKETS_PER_KEY=0)
        await people.know("ria")

        for _ in range(5):
            got = await people.served.post("/api/v1/ws-tickets", key=people.token_of("ria"))
            assert got.status == 201


async def test_refusals_are_counted_by_their_reason(people, monkeypatch):
    counted: list[str] = []
    monkeypatch.setattr(telemetry, "socket_refused", counted.append)
    await allow(CHAT_SOCKETS_PER_KEY=1, CHAT_SOCKETS_PER_USER=2)
    monkeypatch.setattr(consumers, "MAX_PER_ADDRESS", 0)

    for user, key in (("u", "a"), ("u", "a"), ("u", "b"), ("u", "c")):
        seats.current().take(Caller(user, key, ""))
    await (await people.open("/ws/v2/chat")).closed()

    assert counted == ["key", "user", "waiting"]
