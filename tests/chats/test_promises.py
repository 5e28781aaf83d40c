"""What the sockets promise as a whole: fan-out, joining, watches, tickets, and secrets kept."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections import Counter
from datetime import UTC, datetime

import aiohttp
import pytest

from accounts import keys
from accounts.models import APIKey
from airi_server.kernel.threads import in_thread
from airi_server.web import http_protocols, serve
from chats.sockets import hub, watch
from tests.chats import raw
from tests.factories import accounts
from tests.fakes.otlp import Receiver
from tests.lab.server import ServerProcess

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.asyncio]
db = in_thread


class TestFanOut:
    async def test_brings_each_message_once_to_500_sockets_on_three_instances(self, fleet, people):
        room = await people.room("ria", "mio")
        sent = 3
        others = [fleet.launch(), fleet.launch()]
        places = [people.served.base_url, *(each.ready().base_url for each in others)]
        await people.know("mio")
        mios = []
        for _ in range(10):
            joining = [people.join("mio", base_url=places[n % 3]) for n in range(50)]
            mios += await asyncio.gather(*joining)
        senders = [await people.join("ria", base_url=place) for place in places]
        for number in range(sent):
            await senders[number % 3].send(room, str(number))

        for client in mios:
            got: Counter[str] = Counter()
            while sum(got.values()) < sent:
                got.update(m["content"] for m in (await client.pushed())["messages"])
            assert got == {str(number): 1 for number in range(sent)}
        await asyncio.sleep(0.3)
        assert all(client.pushes.empty() for client in mios)
        await people.leave()


class SlowToHear:
    """A channel layer that takes a while to subscribe."""

    def __init__(self, layer, heard):
        self._layer = layer
        self._heard = heard

    async def group_add(self, group, channel):
        await asyncio.sleep(0.2)
        await self._layer.group_add(group, channel)
        self._heard.append(group)

    def __getattr__(self, name):
        return getattr(self._layer, name)


class TestJoining:
    @pytest.mark.parametrize("path", ["/ws/chat", "/ws/v2/chat"])
    async def test_comes_before_the_first_pull_is_answered(self, people, monkeypatch, path):
        """What another instance sends after the pull is heard: there is no hole between them."""
        heard: list[str] = []
        bus = hub.current().fanout
        monkeypatch.setattr(bus, "_layer", SlowToHear(bus._layer, heard))
        room = await people.room("ria")
        headers = {"Authorization": f"Bearer {people.token_of('ria')}"}
        ria = await people.open(path, headers=headers if path == "/ws/chat" else {})
        assert heard == []

        if path != "/ws/chat":
            await ria.call("chat:authenticate", {"token": people.token_of("ria")})
        await ria.pull(room)

        assert heard == ["chats"]


@pytest.fixture
def often(monkeypatch):
    """The watch looks a few times a second, and no hint makes it look."""
    monkeypatch.setattr(watch, "EVERY_S", 0.1)
    monkeypatch.setattr(watch.Watch, "look_soon", lambda *_, **__: None)


class TestWatch:
    async def test_looks_again_and_again_at_what_no_event_has_brought(
        self, often, people, monkeypatch
    ):
        room = await people.room("ria", "mio")
        ria, mio = await people.join("ria"), await people.join("mio")
        monkeypatch.setattr("chats.sockets.deliveries.Deliveries.accept", lambda *_: None)

        for content in ("first", "second"):
            await ria.send(room, content)
            assert (await mio.pushed())["messages"][0]["content"] == content

    @pytest.mark.parametrize("end", ["expired", "disabled"])
    async def test_closes_the_sockets_of_who_fell_without_a_hint(self, often, people, end):
        ria, mio = await people.join("ria"), await people.join("mio")
        key = people.keys["ria"][0]
        if end == "expired":
            past = {"created_at": datetime(2020, 1, 1, tzinfo=UTC),
                    "expires_at": datetime(2020, 1, 2, tzinfo=UTC)}  # fmt: skip
            await db(APIKey.objects.filter(pk=key.pk).update)(**past)
        else:
            await db(keys.disable)(
                user_id=key.user_id, public_id=key.public_id, at=datetime.now(UTC)
            )

        assert await ria.closed() == 4001
        assert not mio.socket.closed

    async def test_is_often_enough_for_the_promises(self):
        assert watch.EVERY_S == 25
        assert watch.EVERY_S + watch.PAUSE_S < 60


class TestHeartbeat:
    async def test_is_every_30_s_and_two_misses_end_it(self, people):
        await people.join("ria")

        (ours,) = raw.kept()
        assert (ours.ping_interval, ours.ping_timeout) == (30, 30)
        assert ours.config.ws_max_size == 1_048_576
        assert serve.CONNECTIONS["ws"] is http_protocols.WebSocketProtocol


class TestTicket:
    async def test_opens_a_socket_only_where_the_key_would(self, people, settings):
        settings.TRUSTED_PROXIES = ["127.0.0.1"]
        key, token = await db(accounts.api_key)()
        await db(keys.change)(
            user_id=key.user_id, public_id=key.public_id, at=accounts.NOW,
            allowed_addresses=["10.1.0.0/16"],
        )  # fmt: skip

        async def opened_from(address):
            asked = {"X-Forwarded-For": "10.1.0.1"}
            got = await people.served.post("/api/v1/ws-tickets", key=token, **asked)
            assert got.status == 201
            return await people.open(
                f"/ws/chat?ticket={got.json()['ticket']}", headers={"X-Forwarded-For": address}
            )

        elsewhere = await opened_from("10.2.0.1")
        another = await opened_from("10.1.0.2")

        assert await elsewhere.closed() == 4001
        assert (await another.event())["type"].endswith("connected")

    async def test_is_taken_by_one_of_many_at_once(self, people):
        await people.know("ria")
        got = await people.served.post("/api/v1/ws-tickets", key=people.token_of("ria"))
        path = f"/ws/chat?ticket={got.json()['ticket']}"

        clients = await asyncio.gather(*(people.open(path) for _ in range(10)))

        codes = []
        for client in clients:
            with contextlib.suppress(TimeoutError):
                codes.append(await client.closed(within_s=1))
        assert codes == [4001] * 9


class TestSecrets:
    async def test_are_in_no_line_of_the_log_and_nothing_that_is_exported(
        self, transactional_db, tmp_path, people
    ):
        """In the query, in the first call, in a ticket; served, refused, and sent elsewhere."""
        log = tmp_path / "server.log"
        await people.know("ria")
        token, content = people.token_of("ria"), "what Ria said in confidence"
        with Receiver() as collector, ServerProcess(
            log, LOG_LEVEL="DEBUG", OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint,
            OTEL_METRIC_EXPORT_INTERVAL_MS="200",
        ) as server:  # fmt: skip
            asked = people.served.session.post(
                f"{server.base_url}/api/v1/ws-tickets",
                headers={"Authorization": f"Bearer {token}"},
            )
            async with asked as answer:
                ticket = (await answer.json())["ticket"]
            wrong = token[:-4] + "!!!!"
            for path in (f"?token={token}", f"?ticket={ticket}", f"?ticket={ticket}"):
                await people.open(f"/ws/chat{path}", base_url=server.base_url)
            await people.open(f"/ws/chat?token={wrong}", base_url=server.base_url)
            for path, headers in (
                (f"/ws/chat?token={token}", {"Origin": "https://evil.example"}),
                (f"/ws/other?token={token}", {}),
            ):
                with pytest.raises(aiohttp.WSServerHandshakeError):
                    await people.open(path, base_url=server.base_url, headers=headers)
            late = await people.open("/ws/v2/chat", base_url=server.base_url)
            await late.call("chat:authenticate", {"token": token})
            await late.send(await people.room("ria"), content)
            await people.leave()
            await asyncio.to_thread(server.end, signal.SIGTERM)

        written = log.read_text() + str(collector.spans) + str(collector.metrics)
        assert "Socket closed" in written
        assert "chat.messages" in written
        for secret in (token, token[12:], ticket, wrong, content):
            assert secret not in written
        assert "Traceback" not in written
