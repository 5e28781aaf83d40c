"""Who may open `/ws/chat`, and when they have to leave."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import aiohttp
import pytest
import pytest_asyncio

from accounts import keys, users
from accounts.models import APIKey
from airi_server.kernel import database
from airi_server.kernel.threads import in_thread
from chats.sockets import authentication, hub, watch
from tests.chats import clients
from tests.chats.captured import ERROR_FRAMES, EVENTS, REQUESTS

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.asyncio]
db = in_thread
NOW = datetime(2026, 3, 1, tzinfo=UTC)


@pytest_asyncio.fixture
async def ria(people):
    return await people.join("ria")


class TestOpening:
    async def test_without_a_token_that_stands_is_closed_with_4001(self, people):
        """Case 128."""
        await people.know("ria")
        wrong = people.token_of("ria")[:-1] + "!"

        many = "?" + "&" * 99
        for query in ("", "?token=", f"?token={wrong}", "?ticket=x", "?token=%ff%00", many):
            client = await people.open(f"/ws/chat{query}")
            assert await client.closed() == 4001, query
            assert client.frames == []

    async def test_works_with_a_header(self, people):
        await people.know("ria")
        headers = {"Authorization": f"Bearer {people.token_of('ria')}"}

        client = await people.open("/ws/chat", headers=headers)

        assert (await client.event())["type"] == "eventa:adapters:hono-ws:connected"

    @pytest.mark.parametrize(
        ("origin", "is_served"),
        [
            ("https://airi.moeru.ai", True), ("http://localhost:5173", True),
            ("https://evil.example", False), ("null", False), ("http://[", False),
        ],
    )  # fmt: skip
    async def test_from_a_page_depends_on_its_origin(self, people, origin, is_served):
        await people.know("ria")
        path = f"/ws/chat?token={people.token_of('ria')}"

        if is_served:
            client = await people.open(path, headers={"Origin": origin})
            assert (await client.event())["type"].endswith("connected")
        else:
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await people.open(path, headers={"Origin": origin})
            assert refused.value.status == 403

    @pytest.mark.parametrize(
        ("host", "origin", "is_served"),
        [
            ("chat.example", "https://chat.example", True),
            ("chat.example:8443", "https://chat.example:8443", True),
            ("chat.example", "https://chat.example.evil.example", False),
            ("evil.example", "https://evil.example", False),
        ],
    )
    async def test_from_a_page_of_this_server_is_served(
        self, people, settings, host, origin, is_served
    ):
        settings.ALLOWED_HOSTS = ["chat.example"]
        await people.know("ria")
        path, headers = f"/ws/chat?token={people.token_of('ria')}", {"Host": host, "Origin": origin}

        if is_served:
            client = await people.open(path, headers=headers)
            assert (await client.event())["type"].endswith("connected")
        else:
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await people.open(path, headers=headers)
            assert refused.value.status == 403

    @pytest.mark.parametrize("path", ["/ws/other", "//ws/chat", "/ws/chat/", "/WS/chat"])
    async def test_elsewhere_is_a_request_for_what_is_not_there(self, people, path):
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await people.open(path)

        assert refused.value.status == 404

    async def test_while_the_database_is_away_is_worth_another_try(self, database_line, people):
        await people.know("ria")
        database_line.cut()

        client = await people.open(f"/ws/chat?token={people.token_of('ria')}")

        assert await client.closed(within_s=20) == 1011

    async def test_keeps_the_token_neither_in_the_log_nor_in_memory(self, people, caplog):
        ria = await people.join("ria")
        (socket,) = hub.current().registry.all()

        await ria.close()
        async with asyncio.timeout(5):
            while hub.current().registry.count:
                await asyncio.sleep(0.01)

        (line,) = [r for r in caplog.records if r.message == "Socket closed"]
        assert (line.path, line.code, line.frames_in, line.frames_out) == ("/ws/chat", 1000, 0, 1)
        assert people.token_of("ria") not in caplog.text + repr(vars(line)) + repr(socket.caller)

    async def test_scrubs_its_scope(self):
        scope = {"query_string": b"token=x", "headers": [(b"authorization", b"x"), (b"host", b"h")]}

        authentication.forget_secrets(scope)

        assert scope == {"query_string": b"", "headers": [(b"host", b"h")]}


class TestLeaving:
    @pytest.mark.parametrize("end", ["disabled", "deleted", "banned", "expired", "moved"])
    async def test_is_for_whoever_would_be_refused_now(self, people, ria, end):
        """Every look; with a hint it comes within a second or so."""
        other = await people.join("mio")
        key = people.keys["ria"][0]
        match end:
            case "disabled":
                await db(keys.disable)(user_id=key.user_id, public_id=key.public_id, at=NOW)
            case "deleted":
                await db(keys.delete)(user_id=key.user_id, public_id=key.public_id)
            case "banned":
                await db(users.ban)(user_id=key.user_id, reason="spam", until=None, at=NOW)
            case "expired":
                past = {"created_at": datetime(2020, 1, 1, tzinfo=UTC),
                        "expires_at": datetime(2020, 1, 2, tzinfo=UTC)}  # fmt: skip
                await db(APIKey.objects.filter(pk=key.pk).update)(**past)
                hub.current().watch.look_soon()  # no hint tells of time passing
            case "moved":
                await db(keys.change)(
                    user_id=key.user_id, public_id=key.public_id, at=NOW,
                    allowed_addresses=["10.9.9.9"],
                )  # fmt: skip

        assert await ria.closed() == 4001
        assert not other.socket.closed

    async def test_is_looked_at_often_enough(self):
        assert watch.EVERY_S + watch.PAUSE_S <= 30

    async def test_is_not_for_anybody_while_the_database_is_away(self, ria, monkeypatch):
        async def away(*_, **__):
            raise database.AWAY[0]

        monkeypatch.setattr("accounts.revalidation.fallen", away)

        await hub.current().watch._look()

        assert not ria.socket.closed

    async def test_of_everybody_when_the_process_stops_is_1012(self, people, ria):
        hub.current().drain()

        assert await ria.closed() == 1012
        late = await people.open(f"/ws/chat?token={people.token_of('ria')}")
        assert await late.closed() == 1012


class TestFrames:
    @pytest.mark.parametrize("text", REQUESTS)
    async def test_of_captured_requests_are_answered(self, people, text):
        invoke_id, tag, _ = REQUESTS[text]
        if tag == "chat:authenticate":
            pytest.skip("not on this socket")  # test_odd_calls.py
        client = await people.join("ria")

        await client.socket.send_str(text)

        assert (await client.event())["type"].endswith(f"-{invoke_id}")

    async def test_of_every_other_kind_are_ignored(self, people, ria):
        for text in (*EVENTS, *ERROR_FRAMES):
            await ria.socket.send_str(text)

        await _is_served(people, ria)
        assert ria.events.empty()

    async def test_that_are_malformed_get_an_error_event(self, people, ria):
        """Case 124."""
        for text in ("{", "[]", "7", '{"type":"chat:pull-messages-send"}'):
            await ria.socket.send_str(text)
        await ria.socket.send_bytes(b'{"type":"x","payload":{}}')

        for _ in range(5):
            frame = await ria.event()
            assert frame["type"] == "eventa:adapters:hono-ws:error"
            assert frame["payload"]["body"] == {"error": {}}
        await _is_served(people, ria)

    @pytest.mark.parametrize("envelope", [clients.envelope_a, clients.envelope_b, clients.minimal])
    async def test_of_either_envelope_are_served(self, people, envelope):
        """Case 123."""
        client = await people.join("ria", envelope=envelope)

        await _is_served(people, client)


async def _is_served(people, client):
    room = await people.room("ria")
    assert await client.send(room, "hi") == 1
    assert (await client.pull(room))["messages"][0]["content"] == "hi"
