from __future__ import annotations

import asyncio
from dataclasses import replace

import psycopg
import pytest

from airi_server.kernel import database
from airi_server.kernel.threads import in_thread
from chats import deletion, messages, rooms
from chats.membership import NotAMember
from chats.models import ChatMessage
from tests.chats.test_send_lost import sends_that_wait
from tests.factories import chats as make
from tests.lab.server import database_url

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.asyncio]
db = in_thread


@pytest.fixture
def room(hot_loop):
    return make.chat("mio")


async def send(room, *new, caller="ria"):
    return await messages.send(caller=caller, chat_id=room.pk, messages=new)


async def stored(message_id):
    return await db(ChatMessage.objects.get)(pk=message_id)


class TestNumbers:
    async def test_follow_the_order_in_which_messages_are_given(self, room):
        first = await make.say(room, "a", "b", "c")
        second = await make.say(room, "d", caller="mio")

        assert (first.seq, first.from_seq, first.to_seq) == (3, 1, 3)
        assert (second.seq, second.from_seq, second.to_seq) == (4, 4, 4)
        assert await db(make.rows)(room) == [
            (1, "ria", "a"), (2, "ria", "b"), (3, "ria", "c"), (4, "mio", "d")
        ]  # fmt: skip

    async def test_are_dense_under_eight_concurrent_senders(self, room):
        """One lane, and connections of their own: what eight instances would do."""

        async def alone(sender):
            for place in range(10):
                new = make.message(f"{sender}-{place}")
                call = {
                    "chat_id": room.pk, "user_id": "ria",
                    "messages": [{"id": new.id, "role": "user", "content": new.content}],
                }  # fmt: skip
                async with database.connection() as lent:
                    await messages._send_batch(lent, [call])

        async def together(sender):
            for place in range(10):
                await make.say(room, f"{sender}-{place}")

        await asyncio.gather(*(alone(n) for n in range(8)), *(together(n) for n in range(8, 16)))

        rows = await db(make.rows)(room)
        assert [seq for seq, _, _ in rows] == list(range(1, 161))
        assert await db(make.last_seq)(room) == 160
        for sender in range(16):
            own = [content for _, _, content in rows if content.startswith(f"{sender}-")]
            assert own == [f"{sender}-{place}" for place in range(10)]

    async def test_are_never_handed_out_again_after_a_deletion(self, room):
        await make.say(room, "a", "b")
        last = await db(ChatMessage.objects.get)(seq=2)
        await db(deletion.delete_message)(
            caller="ria", chat_id=room.pk, message_id=last.pk, at=make.NOW
        )

        assert (await make.say(room, "c")).seq == 4

    async def test_of_nothing_are_none(self, room):
        await make.say(room, "a")

        sent = await send(room)

        assert (sent.seq, sent.from_seq, sent.to_seq, sent.is_new) == (1, 2, 1, False)


class TestSender:
    """Case 122."""

    @pytest.mark.parametrize("role", sorted(messages.ROLES))
    async def test_is_the_caller_for_users_and_null_for_everything_else(self, room, role):
        new = make.message(role=role)

        await send(room, new, caller="mio")

        row = await stored(new.id)
        assert row.sender_id == ("mio" if role == "user" else None)
        assert (row.author_id, row.role) == ("mio", role)


class TestIdenticalResend:
    """Case 133."""

    async def test_keeps_its_number_and_pushes_nothing(self, room):
        new = make.message("a")
        first = await send(room, new)
        await make.say(room, "b")

        again = await send(room, new)

        assert (again.seq, again.is_new) == (first.seq, False)
        assert (again.from_seq, again.to_seq) == (3, 2)
        assert await db(make.last_seq)(room) == 2

    async def test_beside_something_new_is_left_where_it_was(self, room):
        old, new = make.message("a"), make.message("b")
        await send(room, old)

        sent = await send(room, new, old)

        assert (sent.seq, sent.from_seq, sent.to_seq, sent.is_new) == (2, 2, 2, True)

    async def test_of_many_at_once_stores_one(self, room):
        new = make.message("a")

        sent = await asyncio.gather(*(send(room, new) for _ in range(20)))

        assert {one.seq for one in sent} == {1}
        assert sum(one.is_new for one in sent) == 1

    async def test_twice_in_one_request_counts_once(self, room):
        new = make.message("a")

        sent = await send(room, new, new)

        assert (sent.from_seq, sent.to_seq) == (1, 1)

    async def test_of_a_deleted_message_leaves_it_deleted(self, room):
        new = make.message("a")
        await send(room, new)
        await db(deletion.delete_message)(
            caller="ria", chat_id=room.pk, message_id=new.id, at=make.NOW
        )

        again = await send(room, new)
        edited = await send(room, replace(new, content="b"))

        assert (again.seq, again.is_new, edited.is_new) == (2, False, False)
        assert (await stored(new.id)).content == ""


class TestEdit:
    async def test_takes_the_next_number_and_leaves_the_old_one(self, room):
        new = make.message("a")
        await send(room, new)
        before = await stored(new.id)
        await make.say(room, "b")

        sent = await send(room, replace(new, content="A"))

        assert (sent.seq, sent.from_seq, sent.to_seq, sent.is_new) == (3, 3, 3, True)
        assert await db(make.rows)(room) == [(2, "ria", "b"), (3, "ria", "A")]
        row = await stored(new.id)
        assert row.created_at == before.created_at
        assert row.updated_at > before.updated_at

    async def test_comes_after_everything_new_of_the_same_call(self, room):
        first, second = make.message("a"), make.message("b")
        await send(room, first, second)

        await send(room, replace(second, content="B"), make.message("c"),
                   replace(first, content="A"), make.message("d"))  # fmt: skip

        assert [content for _, _, content in await db(make.rows)(room)] == ["c", "d", "B", "A"]
        assert await db(make.last_seq)(room) == 6

    async def test_never_changes_the_role(self, room):
        new = make.message("a")
        await send(room, new)

        await send(room, replace(new, role="assistant", content="b"))

        assert (await stored(new.id)).role == "user"


class TestBounds:
    async def test_let_the_longest_content_and_five_hundred_messages_through(self, room):
        await make.say(room, "é" * 131_072)

        assert (await make.say(room, *("x" for _ in range(500)))).seq == 501


class TestMembers:
    async def test_are_those_at_the_commit(self, room):
        await db(rooms.add_member)(
            caller="ria", chat_id=room.pk, someone=rooms.Someone("character", None, "airi"),
            at=make.NOW,
        )  # fmt: skip
        before = await make.say(room, "a")
        mio = await db(make.member)(room, "mio")
        await db(rooms.remove_member)(caller="ria", chat_id=room.pk, member_id=mio.pk)
        after = await make.say(room, "b")

        assert set(before.members) == {"ria", "mio"}
        assert after.members == ("ria",)
        with pytest.raises(NotAMember):
            await make.say(room, "c", caller="mio")

    async def test_are_read_once_the_lock_was_had(self, room):
        """A removal that was first to the lock counts, however long ago the send was begun."""
        with psycopg.connect(database_url()) as removing:
            removing.execute("SELECT FROM chat WHERE id = %s FOR UPDATE", [room.pk])
            removing.execute("DELETE FROM chat_member WHERE user_id = 'mio'")
            sending = asyncio.create_task(make.say(room, "a"))
            refused = asyncio.create_task(make.say(room, "b", caller="mio"))
            await sends_that_wait()

        assert (await sending).members == ("ria",)
        with pytest.raises(NotAMember):
            await refused


class TestRoundTrips:
    async def test_are_one_a_send(self, room):
        await make.say(room, "a")
        before = database.round_trips

        await make.say(room, "b", "c")

        assert database.round_trips == before + 1

    async def test_of_a_send_touch_the_chat(self, room):
        await make.say(room, "a")

        chats, _ = await db(rooms.of_user)(caller="ria")

        assert chats[0].updated_at > room.updated_at
