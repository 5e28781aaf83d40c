"""What is deleted outside of the sockets reaches everybody's clients, on every instance."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from django.db import transaction

from accounts.models import User
from airi_server import departures
from airi_server.kernel import notify
from airi_server.kernel.threads import in_thread
from airi_server.runtime import published
from chats import deletion, tidings
from chats.messages import Sent
from tests.factories import chats as make

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.asyncio]
LATER = make.NOW + timedelta(hours=1)
db = in_thread


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
        caller=people.id_of("ria"), chat_id=room, message_id=message["id"], at=LATER
    )

    for client in (ria, mio, far):
        push = await client.pushed()
        assert (push["fromSeq"], push["toSeq"], push["messages"]) == (2, 2, [])
        assert push["deleted"] == [{"id": message["id"], "seq": 2}]


async def test_who_leaves_for_good_is_cut_off_and_their_partner_hears_of_it(people, elsewhere):
    room = await people.room("ria", "mio")
    await db(lambda: make.chat_of(room).__class__.objects.update(type="private"))()
    ria, mio = await people.join("ria"), await people.join("mio")
    far = await people.join("ria", base_url=elsewhere.base_url)
    await ria.send(room, "a", "b")
    said = (await mio.pushed())["messages"]

    await db(departures.delete_user_data)(user_id=people.id_of("ria"), at=LATER)
    await db(remove_user)(people.id_of("ria"))

    push = await mio.pushed()
    assert [gone["id"] for gone in push["deleted"]] == [message["id"] for message in said]
    assert [await client.closed(within_s=20) for client in (ria, far)] == [4001, 4001]
    assert not mio.socket.closed


async def test_nothing_is_told_of_what_was_taken_back(people):
    room = await people.room("ria", "mio")
    mio = await people.join("mio")
    sent = Sent(1, 1, 1, is_new=True, members=(people.id_of("mio"),))
    await make.say(await db(make.chat_of)(room), "a", caller=people.id_of("ria"))

    def take_back():
        with pytest.raises(ZeroDivisionError), transaction.atomic():
            tidings.tell(room, sent)
            raise ZeroDivisionError

    await db(take_back)()
    assert await mio.quiet()

    await db(tidings.tell)(room, sent)
    assert (await mio.pushed())["toSeq"] == 1


async def test_tidings_that_cannot_be_read_are_logged_and_dropped(people, caplog):
    mio = await people.join("mio")

    notify._receive(b"", notify._encode(tidings.TOPIC, {"chat_id": "a b", "members": 1}))

    await asyncio.sleep(0)
    assert "A hint could not be handled" in caplog.text
    assert not mio.socket.closed
