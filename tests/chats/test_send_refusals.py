from __future__ import annotations

import asyncio
from dataclasses import replace

import orjson
import psycopg
import pytest
from django.db import connection

from airi_server.kernel import database, resources
from airi_server.kernel.errors import InvalidRequest
from airi_server.kernel.threads import in_thread
from chats import messages, rooms
from chats.membership import ChatNotFound, NotAMember
from chats.messages import MessageIdTaken, NotTheAuthor
from chats.models import ChatMessage
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


@pytest.fixture
def halting():
    """The function that sends, under another name: once it has looked at the ids, it waits."""
    sql = resources.read_text("chats", "sql/send_messages.sql")
    looked = "        v_now := clock_timestamp();\n"
    assert sql.count(looked) == 1
    sql = sql.replace("chats_send_messages", "halting_send")
    with connection.cursor() as cursor:
        cursor.execute(sql.replace(looked, looked + "        PERFORM pg_advisory_xact_lock(7);\n"))
        yield messages.SEND_SQL.replace("chats_send_messages", "halting_send")
        cursor.execute("DROP FUNCTION halting_send(json, text[])")


@pytest.fixture
def barrier(transactional_db):
    """What the function waits for; it goes on when this is closed."""
    with psycopg.connect(database_url()) as session:
        session.execute("SELECT pg_advisory_xact_lock(7)")
        yield session


def is_halted():
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE wait_event = 'advisory' AND datname = current_database()"
        )
        return cursor.fetchone()[0] == 1


class TestRefusals:
    async def test_of_an_id_that_lives_in_another_chat(self, room):
        other = await db(make.chat)()
        taken, new = make.message("a"), make.message("b")
        await send(other, taken)

        with pytest.raises(MessageIdTaken) as refused:
            await send(room, new, taken)

        assert (refused.value.status, refused.value.details) == (409, {"id": taken.id})
        assert await db(make.rows)(room) == []
        assert await db(make.last_seq)(room) == 0

    async def test_of_an_id_that_another_chat_takes_at_the_same_time(self, room):
        others = [await db(make.chat)() for _ in range(7)]
        new = make.message("a")

        async def try_in(chat):
            rows = [{"id": one.id, "role": "user", "content": "a"} for one in (make.message(), new)]
            call = {"chat_id": chat.pk, "user_id": "ria", "messages": rows}
            async with database.connection() as lent:
                return (await messages._send_batch(lent, [call]))[0][0]

        outcomes = await asyncio.gather(*(try_in(chat) for chat in (room, *others)))

        assert sorted(outcomes) == ["other_chat"] * 7 + ["sent"]
        assert await db(ChatMessage.objects.count)() == 2

    async def test_of_an_id_that_another_chat_takes_once_it_was_looked_for(
        self, room, halting, barrier
    ):
        """The look and the count of what is new are of one snapshot, or the edit goes astray."""
        other = await db(make.chat)()
        taken = make.message("theirs")
        rows = [{"id": taken.id, "role": "user", "content": "ours"}]
        call = {"chat_id": room.pk, "user_id": "ria", "messages": rows}
        params = {"calls": orjson.dumps([call]).decode(), "chats": [room.pk]}

        async with database.connection() as lent:
            sending = asyncio.create_task(database.execute(lent, halting, params))
            async with asyncio.timeout(5):
                while not await db(is_halted)():
                    await asyncio.sleep(0.01)
            await send(other, taken)
            barrier.rollback()
            ((_, outcome, *_),) = await sending

        assert outcome == "other_chat"
        assert await db(make.rows)(other) == [(1, "ria", "theirs")]
        assert await db(make.last_seq)(room) == 0

    async def test_of_somebody_elses_message(self, room):
        theirs = make.message("a")
        await send(room, theirs)

        for content in ("a", "b"):
            with pytest.raises(NotTheAuthor) as refused:
                await send(room, make.message("c"), replace(theirs, content=content), caller="mio")
            assert (refused.value.status, refused.value.details) == (403, {"id": theirs.id})
        assert await db(make.rows)(room) == [(1, "ria", "a")]

    async def test_of_one_id_with_two_contents(self, room):
        new = make.message("a")

        with pytest.raises(InvalidRequest):
            await send(room, new, replace(new, content="b"))

    async def test_of_strangers_and_of_chats_that_are_not_there(self, room):
        """Case 120."""
        with pytest.raises(NotAMember):
            await make.say(room, "a", caller="stranger")
        for chat_id in ("missing", "", "a b", "\x00", "x" * 65, "\ud800"):
            with pytest.raises(ChatNotFound):
                await messages.send(caller="ria", chat_id=chat_id, messages=[make.message()])
        await db(rooms.delete)(caller="ria", chat_id=room.pk, at=make.NOW)
        with pytest.raises(ChatNotFound):
            await make.say(room, "a")
        assert await db(make.rows)(room) == []

    @pytest.mark.parametrize(
        "wrong",
        [
            {"id": ""}, {"id": "x" * 65}, {"id": "a b"}, {"id": "a\n"}, {"id": "é"},
            {"role": "developer"}, {"role": ""},
            {"content": "a\x00b"}, {"content": "\ud800"}, {"content": "é" * 131_073},
        ],
    )  # fmt: skip
    async def test_of_what_breaks_a_bound(self, room, wrong):
        with pytest.raises(InvalidRequest):
            await send(room, make.message(), make.message(**wrong))

        assert await db(make.last_seq)(room) == 0

    async def test_of_too_much_at_once(self, room):
        with pytest.raises(InvalidRequest):
            await send(room, *(make.message() for _ in range(501)))
        with pytest.raises(InvalidRequest):
            await send(room, *(make.message("x" * 262_144) for _ in range(5)))

    async def test_leave_the_other_calls_of_a_batch_alone(self, room):
        other = await db(make.chat)("mio")

        answers = await asyncio.gather(
            make.say(room, "a"), make.say(room, "b", caller="stranger"), make.say(other, "c"),
            make.say(room, "d", caller="mio"), return_exceptions=True,
        )  # fmt: skip

        assert [type(answer) for answer in answers].count(NotAMember) == 1
        assert [content for _, _, content in await db(make.rows)(room)] == ["a", "d"]
