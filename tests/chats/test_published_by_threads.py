"""What is deleted outside of the sockets reaches everybody's clients, on every instance."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from channels_redis.pubsub import RedisPubSubChannelLayer
from django.db import connections, transaction

from accounts.models import User
from airi_server import user_deletion
from airi_server.kernel.threads import in_thread
from airi_server.runtime import published
from chats import deletion, fanout, rooms
from chats.fanout import ChatEvent
from chats.membership import NotAllowed
from chats.models import Chat
from chats.sockets import hub
from tests.chats.clients import Rejected
from tests.factories import chats as make
from tests.fakes.raw import silent

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.asyncio]
db = in_thread


def now():
    """What happens now is found by the head watch too, where an event comes too early."""
    return datetime.now(UTC)


@pytest.fixture
def elsewhere(fleet):
    """A second instance: a process of its own on the same database and Redis."""
    return fleet.start()


def remove_user(user_id):
    """Do what whoever deletes a user does once every handler has returned."""
    with transaction.atomic():
        User.objects.filter(pk=user_id).delete()
        published.announce("credentials")


async def test_a_message_that_a_thread_deletes_is_told_here_and_elsewhere(people, elsewhere):
    room = await people.room("ria", "mio")
    ria, mio = await people.join("ria"), await people.join("mio")
    far = await people.join("mio", base_url=elsewhere.base_url)
    await ria.send(room, "a")
    (message,) = (await mio.pushed())["messages"]
    await far.pushed()

    await db(deletion.delete_message)(
        caller=people.id_of("ria"), chat_id=room, message_id=message["id"], at=now()
    )

    for client in (ria, mio, far):
        push = await client.pushed()
        assert (push["fromSeq"], push["toSeq"], push["messages"]) == (2, 2, [])
        assert push["deleted"] == [{"id": message["id"], "seq": 2}]


class TestDeletedChat:
    async def test_is_told_to_its_members_here_and_elsewhere(self, people, elsewhere):
        room, other = await people.room("ria", "mio"), await people.room("ria", "mio")
        ria, mio, zoe = [await people.join(name) for name in ("ria", "mio", "zoe")]
        far = await people.join("mio", base_url=elsewhere.base_url)
        await ria.send(room, "a", "b")
        for client in (mio, far):
            assert (await client.pushed())["toSeq"] == 2

        token = people.token_of("ria")
        gone = await people.served.send("DELETE", f"/api/v1/chats/{room}", key=token)

        assert gone.status == 200
        for client in (ria, mio, far):
            push = await client.pushed()
            assert push == {"chatId": room, "messages": [], "fromSeq": 4, "toSeq": 4}
            with pytest.raises(Rejected) as refused:
                await client.pull(room, 2)
            assert refused.value.args[0]["errorCode"] == "NOT_FOUND"
            assert (await client.pull(other))["seq"] == 0
            assert await client.quiet()
        assert zoe.pushes.empty()

    async def test_is_learned_of_by_who_was_offline_at_their_next_pull(self, people):
        room = await people.room("ria", "mio")
        await db(rooms.delete)(caller=people.id_of("ria"), chat_id=room, at=now())
        mio = await people.join("mio")

        with pytest.raises(Rejected) as refused:
            await mio.pull(room)

        assert refused.value.args[0]["errorCode"] == "NOT_FOUND"
        assert mio.pushes.empty()

    async def test_is_told_of_once_whoever_deletes_it(self, people):
        room = await people.room("ria", "mio")
        mio = await people.join("mio")

        for _ in range(2):
            await db(deletion.close_chat)(chat_id=room, at=now())

        assert (await mio.pushed())["fromSeq"] == 2
        assert await mio.quiet()

    async def test_is_told_of_by_a_command_which_has_no_loop(self, people, elsewhere, monkeypatch):
        monkeypatch.setattr(fanout, "PUBLISH_S", 30.0)  # its loop connects first
        room = await people.room("ria", "mio")
        mio, far = await people.join("mio"), await people.join("mio", base_url=elsewhere.base_url)

        await mio.hears_others()  # what a command says comes through Redis

        def command():
            try:
                deletion.close_chat(chat_id=room, at=now())
            finally:
                connections.close_all()

        with ThreadPoolExecutor(1) as other:  # its thread has never served this loop
            await asyncio.get_running_loop().run_in_executor(other, command)

        assert (await mio.pushed())["fromSeq"] == 2
        assert (await far.pushed())["fromSeq"] == 2

    async def test_keeps_no_command_waiting_for_a_silent_redis_each_time(self, people, monkeypatch):
        chats = [await people.room("ria", "mio") for _ in range(3)]
        monkeypatch.setattr(fanout, "PUBLISH_S", 0.3)
        monkeypatch.setattr(fanout.Fanout, "silent_until", 0.0)
        sends = []
        send = fanout.Fanout._send

        async def counted(bus, events):
            sends.append(len(events))
            await send(bus, events)

        def command():
            try:
                for chat in chats:
                    deletion.close_chat(chat_id=chat, at=now())
            finally:
                connections.close_all()

        monkeypatch.setattr(fanout.Fanout, "_send", counted)
        async with silent() as port:
            layer = RedisPubSubChannelLayer(hosts=[f"redis://127.0.0.1:{port}"])
            monkeypatch.setattr(fanout, "get_channel_layer", lambda: layer)
            with ThreadPoolExecutor(1) as other:  # its thread has never served this loop
                await asyncio.get_running_loop().run_in_executor(other, command)

        assert sends == [1]

    async def test_waits_for_redis_again_once_it_has_taken_an_event(self, people, monkeypatch):
        room = await people.room("ria", "mio")
        monkeypatch.setattr(fanout.Fanout, "silent_until", float("inf"))
        ria = await people.join("ria")

        await ria.send(room, "a")
        await fanout.current().published()

        assert fanout.Fanout.silent_until == 0.0

    async def test_is_not_told_of_by_who_may_not_delete_it(self, people):
        room = await people.room("ria", "mio")
        ria, mio = await people.join("ria"), await people.join("mio")

        with pytest.raises(NotAllowed):
            await db(rooms.delete)(caller=people.id_of("mio"), chat_id=room, at=now())

        assert await ria.quiet()
        assert mio.pushes.empty()

    async def test_is_found_by_the_head_watch_when_its_event_was_lost(self, people, monkeypatch):
        room = await people.room("ria", "mio")
        ria, mio = await people.join("ria"), await people.join("mio")
        await ria.send(room, "a")
        await mio.pushed()
        with monkeypatch.context() as losing:
            losing.setattr("chats.fanout.publish_on_commit", lambda _: None)
            at = datetime.now(UTC)
            await db(rooms.delete)(caller=people.id_of("ria"), chat_id=room, at=at)

        for _ in range(2):
            await hub.current().watch.look_at_heads()

        for client in (ria, mio):
            push = await client.pushed()
            assert (push["chatId"], push["messages"], push["fromSeq"]) == (room, [], 3)
            assert await client.quiet()

    async def test_is_forgotten_when_it_is_no_news_any_more(self, people):
        room = await people.room("ria")
        ria = await people.join("ria")
        await db(rooms.delete)(caller=people.id_of("ria"), chat_id=room, at=datetime.now(UTC))
        await ria.pushed()
        watch, deliveries = hub.current().watch, hub.current().deliveries
        await watch.look_at_heads()
        assert deliveries.closed == {room}
        before = datetime.now(UTC) - timedelta(hours=1)
        await db(Chat.objects.filter(pk=room).update)(updated_at=before)

        await watch.look_at_heads()

        assert deliveries.closed == set()
        assert await ria.quiet()


async def test_who_leaves_for_good_is_cut_off_and_their_partner_hears_of_it(people, elsewhere):
    room = await people.room("ria", "mio")
    await db(lambda: make.chat_of(room).__class__.objects.update(type="private"))()
    ria, mio = await people.join("ria"), await people.join("mio")
    far = await people.join("ria", base_url=elsewhere.base_url)
    await ria.send(room, "a", "b")
    said = (await mio.pushed())["messages"]

    await db(user_deletion.delete_user_data)(user_id=people.id_of("ria"), at=now())
    await db(remove_user)(people.id_of("ria"))

    assert (await mio.pushed())["fromSeq"] == 4  # beyond a gap: the chat is gone
    push = await mio.pushed()
    assert [gone["id"] for gone in push["deleted"]] == [message["id"] for message in said]
    assert [await client.closed(within_s=20) for client in (ria, far)] == [4001, 4001]
    assert not mio.socket.closed


async def test_nothing_is_told_of_what_was_taken_back(people):
    room = await people.room("ria", "mio")
    mio = await people.join("mio")
    event = ChatEvent.of_range(room, 1, 1, members=[people.id_of("mio")])
    await make.say(await db(make.chat_of)(room), "a", caller=people.id_of("ria"))

    def take_back():
        with pytest.raises(ZeroDivisionError), transaction.atomic():
            fanout.publish_on_commit(event)
            raise ZeroDivisionError

    await db(take_back)()
    assert await mio.quiet()

    await db(fanout.publish_on_commit)(event)
    assert (await mio.pushed())["toSeq"] == 1
