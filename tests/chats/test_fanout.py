"""Pushes between instances, with and without Redis: nothing is lost, nothing comes twice."""

from __future__ import annotations

import asyncio
import signal
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
from django.conf import settings as configured

from airi_server.kernel import database
from airi_server.kernel.threads import in_thread
from chats import deletion, fanout, messages
from chats.models import MAX_MESSAGES
from chats.sockets import hub
from tests.factories import chats as make
from tests.fakes.proxy import SilentProxy

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.asyncio]
db = in_thread


@pytest_asyncio.fixture
async def redis_line(settings):
    """The way from this process to Redis, which can be cut."""
    there = urlsplit(configured.REDIS_URL)
    async with SilentProxy(there.hostname or "", there.port or 6379) as proxy:
        netloc = there.netloc.rpartition("@")
        url = there._replace(netloc=f"{netloc[0]}{netloc[1]}127.0.0.1:{proxy.port}").geturl()
        settings.REDIS_URL = url
        layer = configured.CHANNEL_LAYERS["default"]
        host = {**layer["CONFIG"]["hosts"][0], "address": url}
        settings.CHANNEL_LAYERS = {
            "default": {**layer, "CONFIG": {**layer["CONFIG"], "hosts": [host]}}
        }
        yield proxy


@pytest.fixture
def elsewhere(fleet):
    """A second instance: a process of its own on the same database and Redis."""
    return fleet.start()


@pytest.fixture
def deaf(monkeypatch):
    """No event reaches the sockets of this process, as if each had been lost."""
    monkeypatch.setattr("chats.sockets.deliveries.Deliveries.accept", lambda *_: None)


async def look():
    await hub.current().watch.look_at_heads()


class TestTwoInstances:
    async def test_tell_each_other_and_every_socket_hears_it_once(self, elsewhere, people):
        room = await people.room("ria", "mio")
        here = [await people.join("ria"), await people.join("mio"), await people.join("mio")]
        there = [await people.join(name, base_url=elsewhere.base_url) for name in ("ria", "mio")]

        await here[0].send(room, "from here")
        for client in (*here[1:], *there):
            assert (await client.pushed())["messages"][0]["content"] == "from here"
        await there[1].send(room, "from there")
        for client in (*here, there[0]):
            assert (await client.pushed())["messages"][0]["content"] == "from there"

        await asyncio.sleep(0.3)
        assert all(client.pushes.empty() for client in (*here, *there))

    async def test_let_their_clients_go_when_they_stop(self, elsewhere, people):
        ria = await people.join("ria", base_url=elsewhere.base_url)

        status = await asyncio.to_thread(elsewhere.end, signal.SIGTERM)

        assert (await ria.closed(), status) == (1012, -signal.SIGTERM)


class TestWithoutRedis:
    async def test_sends_pulls_and_pushes_here_go_on_and_others_catch_up(
        self, redis_line, elsewhere, people
    ):
        room = await people.room("ria", "mio")
        ria, mio = await people.join("ria"), await people.join("mio")
        far = await people.join("ria", base_url=elsewhere.base_url)
        await far.send(room, "before")
        for client in (ria, mio):
            await client.pushed()

        redis_line.cut()
        await far.send(room, "missed")
        assert await ria.send(room, "local") == 3
        assert (await mio.pushed())["messages"][0]["content"] == "local"
        assert (await mio.pull(room))["seq"] == 3
        late = await people.join("mio")
        assert await late.send(room, "still") == 4
        redis_line.mend()

        async with asyncio.timeout(15):
            while "missed" not in (
                seen := [m["content"] for m in (await ria.pushed())["messages"]]
            ):
                assert seen == ["still"]
        assert (await mio.pushed())["messages"][0]["content"] in ("still", "missed")
        await far.send(room, "after")
        async with asyncio.timeout(10):
            while "after" not in [m["content"] for m in (await ria.pushed())["messages"]]:
                pass

    async def test_clients_here_are_told_of_what_a_thread_commits(self, redis_line, people):
        room = await people.room("ria", "mio")
        mio = await people.join("mio")

        redis_line.cut()
        await db(deletion.close_chat)(chat_id=room, at=make.NOW)

        assert (await mio.pushed())["fromSeq"] == 2


class TestHeadWatch:
    async def test_pushes_what_no_event_has_brought_once(self, deaf, people):
        room = await people.room("ria", "mio")
        ria, mio = await people.join("ria"), await people.join("mio")
        await ria.send(room, "a", "b")
        await ria.send(room, "c")

        await look()

        push = await mio.pushed()
        assert (push["fromSeq"], push["toSeq"]) == (1, 3)
        assert [m["content"] for m in push["messages"]] == ["a", "b", "c"]
        await look()
        assert await mio.quiet()

    async def test_follows_when_the_others_are_heard_later_than_waited_for(
        self, deaf, people, monkeypatch
    ):
        """What was sent in between came too early, and the next look may be 25 s away."""
        monkeypatch.setattr(fanout, "READY_S", 0.0)
        room = await people.room("ria", "mio")
        ria, mio = await people.join("ria"), await people.join("mio")

        await ria.send(room, "a")

        assert (await mio.pushed())["toSeq"] == 1

    async def test_leaves_alone_what_was_delivered(self, people):
        room = await people.room("ria", "mio")
        ria, mio = await people.join("ria"), await people.join("mio")
        await ria.send(room, "a")
        await mio.pushed()

        await look()

        assert await mio.quiet()
        assert ria.pushes.empty()

    async def test_is_not_repeated_by_an_event_that_comes_late(self, deaf, people, monkeypatch):
        room = await people.room("ria", "mio")
        ria, mio = await people.join("ria"), await people.join("mio")
        await ria.send(room, "a")
        await look()
        await mio.pushed()
        monkeypatch.undo()

        hub.current().deliveries.accept(
            fanout.ChatEvent(chat_id=room, from_seq=1, to_seq=1, members=[people.id_of("mio")])
        )

        assert await mio.quiet()

    async def test_leaves_alone_what_is_older_than_the_sockets(self, people):
        room = await people.room("ria", "mio")
        ria = await people.join("ria")
        await ria.send(room, *("x" for _ in range(500)))
        await ria.close()
        await database.fetch(
            "UPDATE chat_message SET updated_at = updated_at - interval '1 minute'", {}
        )
        hub.current().deliveries.delivered.clear()
        mio = await people.join("mio")

        await look()

        assert await mio.quiet()

    async def test_splits_what_is_long(self, deaf, people):
        room = await people.room("ria", "mio")
        ria, mio = await people.join("ria"), await people.join("mio")
        for _ in range(3):
            await ria.send(room, *("x" for _ in range(400)))

        await look()

        seqs: list[int] = []
        while len(seqs) < 1_200:
            push = await mio.pushed()
            assert len(push["messages"]) <= MAX_MESSAGES
            seqs += [m["seq"] for m in push["messages"]]
        assert seqs == list(range(1, 1_201))

    async def test_brings_tombstones(self, people):
        room = await people.room("ria", "mio")
        ria, mio = await people.join("ria"), await people.join("mio")
        await ria.send(room, "a")
        message_id = (await mio.pushed())["messages"][0]["id"]
        await db(deletion.delete_message)(
            caller=people.id_of("ria"), chat_id=room, message_id=message_id, at=make.NOW
        )
        await database.fetch("UPDATE chat SET updated_at = clock_timestamp()", {})

        await look()

        push = await mio.pushed()
        assert (push["messages"], push["deleted"]) == ([], [{"id": message_id, "seq": 2}])

    async def test_tells_members_only(self, deaf, people):
        room = await people.room("ria")
        ria, mio = await people.join("ria"), await people.join("mio")
        await ria.send(room, "a")

        await look()

        assert (await ria.pushed())["toSeq"] == 1
        assert await mio.quiet()

    @pytest.mark.parametrize("failure", [database.AWAY[0], RuntimeError], ids=["away", "bug"])
    async def test_brings_what_could_not_be_read_at_first(self, people, monkeypatch, failure):
        room = await people.room("ria", "mio")
        ria, mio = await people.join("ria"), await people.join("mio")

        async def away(**_):
            raise failure

        with monkeypatch.context() as patched:
            patched.setattr(messages, "between", away)
            await ria.send(room, "a")
            assert await mio.quiet()
        await look()

        assert (await mio.pushed())["toSeq"] == 1


class TestEvents:
    @pytest.mark.parametrize(
        "wrong",
        [
            {"members": [" "]}, {"members": [""]}, {"members": "u1"}, {"members": [1]},
            {"chat_id": ""}, {"chat_id": "a b"}, {"from_seq": float("nan")}, {"to_seq": "1"},
            {"from_seq": 0}, {"to_seq": None},
        ],
    )  # fmt: skip
    async def test_from_elsewhere_that_cannot_be_read_are_logged_and_dropped(
        self, people, caplog, wrong
    ):
        """Case 130."""
        mio = await people.join("mio")
        event = {"chat_id": "c", "from_seq": 1, "to_seq": 1, "members": [people.id_of("mio")]}
        bus = hub.current().fanout

        bus._receive({"type": fanout.TYPE, "instance": "x", "events": [event | wrong]})
        bus._receive({"type": fanout.TYPE, "instance": " ", "events": []})
        bus._receive({"type": fanout.TYPE, "instance": "x", "events": "many"})

        assert caplog.text.count("Ignored an event that could not be read") == 3
        assert not mio.socket.closed

    async def test_of_a_long_range_are_delivered_in_parts(self, people):
        room = await people.room("ria", "mio")
        mio = await people.join("mio")
        chat = await db(make.chat_of)(room)
        for _ in range(3):
            await make.say(chat, *("x" for _ in range(400)), caller=people.id_of("ria"))

        hub.current().deliveries.accept(
            fanout.ChatEvent(chat_id=room, from_seq=1, to_seq=1_200, members=[people.id_of("mio")])
        )

        pushes = [await mio.pushed() for _ in range(3)]
        assert [(p["fromSeq"], p["toSeq"]) for p in pushes] == [(1, 500), (501, 1000), (1001, 1200)]
