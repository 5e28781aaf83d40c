"""What was edited does not come back because a device that was away sends the old content again."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import psycopg
import pytest

from airi_server.kernel import database, ids
from airi_server.kernel.threads import in_thread
from chats import deletion, messages
from chats.models import MAX_SUPERSEDED, ChatMessage
from chats.sockets.knowledge import MAX_CHATS, Knowledge
from tests.chats import clients
from tests.chats.test_send_lost import sends_that_wait
from tests.factories import chats as make
from tests.lab.server import database_url

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.asyncio]
SEND = "chat:send-messages"
db = in_thread


@pytest.fixture
def said():
    """The id of one message, and what sends it with a content."""
    return ids.nanoid()


async def say(client, room, message_id, content, *more):
    new = [{"id": message_id, "role": "user", "content": content}, *more]
    return (await client.call(SEND, {"chatId": room, "messages": new}))["seq"]


async def heard(client, seq):
    """Wait until a listener was pushed a number: a socket that joins after that is not."""
    while (await client.pushed())["toSeq"] < seq:
        pass


async def standing(client, room):
    return [(m["seq"], m["content"]) for m in (await client.pull(room))["messages"]]


@pytest.fixture
def elsewhere(fleet):
    """A second instance: a process of its own on the same database and Redis."""
    return fleet.start()


class TestLateRetry:
    async def test_changes_nothing_and_pushes_nothing(self, people, said):
        room = await people.room("ria", "mio")
        phone, mio = await people.join("ria"), await people.join("mio")
        await say(phone, room, said, "old")
        await say(phone, room, said, "new")
        await phone.close()
        await heard(mio, 2)
        phone = await people.join("ria")

        assert [await say(phone, room, said, "old") for _ in range(3)] == [2, 2, 2]

        assert await mio.quiet()
        assert await standing(mio, room) == [(2, "new")]

    async def test_of_a_device_that_was_away_meets_what_another_device_wrote(
        self, people, elsewhere, said
    ):
        """Case 133 a day later, on two instances: the tablet edits what the phone has sent."""
        room = await people.room("ria", "mio")
        phone, mio = await people.join("ria"), await people.join("mio")
        await say(phone, room, said, "old")
        await phone.close()  # before its answer, for all it knows
        tablet = await people.join("ria", base_url=elsewhere.base_url)
        await say(tablet, room, said, "new")
        await heard(mio, 2)
        phone = await people.join("ria")

        assert await say(phone, room, said, "old") == 2

        assert await tablet.quiet()
        assert await standing(phone, room) == [(2, "new")]

    async def test_beside_something_new_leaves_only_that(self, people, said):
        room = await people.room("ria", "mio")
        ria, mio = await people.join("ria"), await people.join("mio")
        await say(ria, room, said, "old")
        await say(ria, room, said, "new")
        await heard(mio, 2)
        other = {"id": ids.nanoid(), "role": "user", "content": "more"}
        again = await people.join("ria")

        assert await say(again, room, said, "old", other) == 3

        assert await standing(mio, room) == [(2, "new"), (3, "more")]

    async def test_of_a_socket_that_knows_only_what_came_after_is_one(self, people, said):
        """The highest number that it was sent says nothing about those below."""
        room = await people.room("ria", "mio")
        ria, mio = await people.join("ria"), await people.join("mio")
        await say(ria, room, said, "old")
        await say(ria, room, said, "new")
        await heard(mio, 2)
        again = await people.join("ria")

        assert await again.send(room, "more") == 3
        await mio.send(room, "yes")
        await heard(again, 4)
        assert await say(again, room, said, "old") == 2

        assert await standing(mio, room) == [(2, "new"), (3, "more"), (4, "yes")]

    async def test_of_an_outbox_with_a_message_and_its_edit_ends_in_the_edit(self, people, said):
        room = await people.room("ria", "mio")
        ria, mio = await people.join("ria"), await people.join("mio")
        await say(ria, room, said, "old")
        await say(ria, room, said, "new")
        await heard(mio, 2)
        again = await people.join("ria")

        answers = await asyncio.gather(
            *(say(again, room, said, content) for content in ("old", "new", "old", "new"))
        )

        assert answers == [2, 2, 2, 2]
        assert await mio.quiet()
        assert await standing(mio, room) == [(2, "new")]

    async def test_of_a_deleted_message_does_not_bring_it_back(self, people, said):
        room = await people.room("ria")
        ria = await people.join("ria")
        await say(ria, room, said, "old")
        await say(ria, room, said, "new")
        await db(deletion.delete_message)(
            caller=people.id_of("ria"), chat_id=room, message_id=said,
            at=make.NOW + timedelta(hours=1),
        )  # fmt: skip
        again = await people.join("ria")

        for client in (ria, again):
            for content in ("old", "new", "newer"):
                assert await say(client, room, said, content) == 3
        page = await again.pull(room)
        assert (page["messages"], page["deleted"]) == ([], [{"id": said, "seq": 3}])
        assert (await db(ChatMessage.objects.get)(pk=said)).superseded is None

    async def test_meets_an_edit_that_was_committed_while_it_waited(self, hot_loop, said):
        """The rule is decided under the chat's lock, by what stands then."""
        room = await db(make.chat)()
        for content in ("old", "new"):
            new = make.message(content, id=said)
            await messages.send(caller="ria", chat_id=room.pk, messages=[new])
        with psycopg.connect(database_url()) as elsewhere:
            elsewhere.execute("SELECT FROM chat WHERE id = %s FOR NO KEY UPDATE", [room.pk])
            retrying = asyncio.create_task(
                messages.send(
                    caller="ria",
                    chat_id=room.pk,
                    known=[(1, 2)],
                    messages=[make.message("old", id=said)],
                )
            )
            await sends_that_wait()
            elsewhere.execute("UPDATE chat SET last_seq = 3 WHERE id = %s", [room.pk])
            elsewhere.execute("UPDATE chat_message SET seq = 3, content = 'newest'")

        assert not (await retrying).is_new
        assert await db(make.rows)(room) == [(3, "ria", "newest")]


class TestEditBack:
    async def test_of_the_socket_that_edited_is_one(self, people, said):
        room = await people.room("ria", "mio")
        ria, mio = await people.join("ria"), await people.join("mio")

        answers = [await say(ria, room, said, content) for content in ("a", "b", "a", "b", "b")]

        assert answers == [1, 2, 3, 4, 4]
        assert await standing(mio, room) == [(4, "b")]

    async def test_of_a_socket_that_was_pushed_the_newer_one_is_one(self, people, elsewhere, said):
        room = await people.room("ria")
        phone = await people.join("ria")
        tablet = await people.join("ria", base_url=elsewhere.base_url)
        await say(phone, room, said, "a")
        await say(phone, room, said, "b")
        await heard(tablet, 2)

        assert await say(tablet, room, said, "a") == 3
        await heard(phone, 3)

    async def test_after_a_reconnection_is_one_once_the_chat_was_pulled(self, people, said):
        room = await people.room("ria")
        ria = await people.join("ria")
        await say(ria, room, said, "a")
        await say(ria, room, said, "b")
        for cursor in (0, 2):  # who asks from a cursor knows what is before it
            again = await people.join("ria")
            await again.pull(room, cursor)
            content = "a" if cursor == 0 else "b"

            assert await say(again, room, said, content) == (3 if cursor == 0 else 4)

    async def test_needs_the_page_that_has_the_newer_one(self, people, said):
        room = await people.room("ria", "mio")
        ria, mio = await people.join("ria"), await people.join("mio")
        await say(ria, room, said, "a")
        await ria.send(room, "x", "y")
        await say(ria, room, said, "b")
        await heard(mio, 4)
        again = await people.join("ria")
        await again.pull(room, limit=2)

        assert await say(again, room, said, "a") == 4
        assert await again.pull(room, 3)
        assert await say(again, room, said, "a") == 5

    async def test_after_the_same_again_was_answered_is_one(self, people, said):
        """Who sent what stands, and heard its number, knows it."""
        room = await people.room("ria")
        ria = await people.join("ria")
        await say(ria, room, said, "a")
        await say(ria, room, said, "b")
        again = await people.join("ria")

        assert await say(again, room, said, "b") == 2
        assert await say(again, room, said, "a") == 3

    async def test_is_not_what_a_send_of_nothing_allows(self, people, said):
        room = await people.room("ria", "mio")
        ria, mio = await people.join("ria"), await people.join("mio")
        await say(ria, room, said, "a")
        await say(ria, room, said, "b")
        await heard(mio, 2)
        again = await people.join("ria")

        assert await again.send(room) == 2
        assert await say(again, room, said, "a") == 2


class TestBounds:
    async def test_the_newest_contents_are_known_and_an_older_one_is_an_edit(self, hot_loop, said):
        room = await db(make.chat)()

        async def send(content):
            new = make.message(content, id=said)
            return await messages.send(caller="ria", chat_id=room.pk, messages=[new])

        for number in range(MAX_SUPERSEDED + 2):
            await send(f"version {number}")
        row = await db(ChatMessage.objects.get)(pk=said)
        assert row.superseded is not None
        assert {len(each) for each in row.superseded} == {16}
        assert len(row.superseded) == len({bytes(each) for each in row.superseded}) == 32

        late = [await send(f"version {number}") for number in range(1, MAX_SUPERSEDED + 1)]
        assert [one.is_new for one in late] == [False] * 32
        assert (await send("version 0")).is_new
        assert not (await send("version 2")).is_new

    async def test_an_instance_of_the_release_before_edits_as_it_did(self, hot_loop, said):
        """It does not say what its sockets know."""
        room = await db(make.chat)()
        for content in ("a", "b"):
            new = make.message(content, id=said)
            await messages.send(caller="ria", chat_id=room.pk, messages=[new])
        old = {"chat_id": room.pk, "user_id": "ria",
               "messages": [{"id": said, "role": "user", "content": "a"}]}  # fmt: skip

        async with database.connection() as lent:
            ((outcome, *_),) = await messages._send_batch(lent, [old])

        assert outcome == "sent"
        assert await db(make.rows)(room) == [(3, "ria", "a")]

    async def test_a_socket_is_known_to_have_seen_the_chats_it_heard_of_last(self):
        knowledge = Knowledge()

        for number in range(MAX_CHATS):
            knowledge.learn(f"chat {number}", 1, 1)
        knowledge.learn("chat 0", 3, 4)
        knowledge.learn("another", 1, 2)
        knowledge.learn("nothing", 2, 1)

        assert knowledge.of("chat 0") == [(1, 1), (3, 4)]
        assert (knowledge.of("chat 1"), knowledge.of("nothing")) == ([], [])
        assert knowledge.of("another") == [(1, 2)]

    async def test_what_no_client_could_be_sent_is_not_known(self, people, said):
        """A frame of another chat with the same numbers says nothing about this one."""
        room, other = await people.room("ria", "mio"), await people.room("ria", "mio")
        ria, mio = await people.join("ria"), await people.join("mio")
        await say(ria, room, said, "a")
        await say(ria, room, said, "b")
        await heard(mio, 2)
        await ria.send(other, "x", "y", "z")
        await heard(mio, 3)
        again = await people.join("ria", envelope=clients.envelope_b)
        await again.pull(other)

        assert await say(again, room, said, "a") == 2
