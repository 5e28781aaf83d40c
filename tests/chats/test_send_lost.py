"""A connection that dies under a send: the numbers are handed out once, and everybody is told."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace

import psycopg
import pytest
from django.db import connection

from airi_server.kernel import database, instance
from airi_server.kernel.threads import in_thread
from chats import messages
from tests.factories import chats as make
from tests.lab.server import database_url

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.asyncio]
db = in_thread


class Locked:
    """Hold a chat's lock in another session until the block ends."""

    def __init__(self, chat_id):
        self.chat_id = chat_id

    def __enter__(self):
        self.session = psycopg.connect(database_url())
        self.session.execute("SELECT FROM chat WHERE id = %s FOR UPDATE", [self.chat_id])

    def __exit__(self, *_):
        self.session.close()


def _waiting():
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pid FROM pg_stat_activity"
            " WHERE application_name = %s AND state = 'active' AND wait_event_type = 'Lock'",
            [instance.APPLICATION_NAME],
        )
        return [pid for (pid,) in cursor.fetchall()]


async def sends_that_wait(count=1):
    """Return the server processes of sends that wait for a chat's lock."""
    async with asyncio.timeout(5):
        while len(found := await db(_waiting)()) < count:
            await asyncio.sleep(0.01)
    return found


def terminate(pids):
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(pid) FROM unnest(%s::int[]) AS pid", [pids])


async def cut_while_waiting(line, chat_id, sending):
    """Cut a send off that waits for the lock, and which commits all the same; then the retry."""
    with Locked(chat_id):
        task = asyncio.create_task(sending)
        await sends_that_wait()
        async with contextlib.AsyncExitStack() as idle:
            # The others of the pool are cut as well, and would be the next to fail.
            while database._pools.get().get_stats()["pool_available"]:
                await idle.enter_async_context(database.connection())
            line.cut()
            line.mend()
            await sends_that_wait(2)
    return await task


async def killed_while_waiting(chat_id, sending):
    """Let the server end a send that waits for the lock; nothing of it remains."""
    with Locked(chat_id):
        task = asyncio.create_task(sending)
        await db(terminate)(await sends_that_wait())
        async with asyncio.timeout(5):
            while not task.done() and not await db(_waiting)():
                await asyncio.sleep(0.01)
    return await task


class TestCommittedBeforeTheCut:
    async def test_is_answered_with_its_number_and_the_others_are_told_once(
        self, database_line, people
    ):
        room = await people.room("ria", "mio")
        ria, mio = await people.join("ria"), await people.join("mio")
        await ria.send(room, "before")
        await mio.pushed()

        seq = await cut_while_waiting(database_line, room, ria.send(room, "a", "b"))

        assert seq == 3
        push = await mio.pushed()
        assert (push["fromSeq"], push["toSeq"]) == (2, 3)
        assert [m["content"] for m in push["messages"]] == ["a", "b"]
        assert await mio.quiet()
        assert ria.pushes.empty()
        rows = await db(make.rows)(await db(make.chat_of)(room))
        assert [(seq, content) for seq, _, content in rows] == [(1, "before"), (2, "a"), (3, "b")]

    async def test_of_an_edit_beside_something_new_tells_of_both(self, database_line, hot_loop):
        room = await db(make.chat)()
        old, new = make.message("a"), make.message("b")
        await messages.send(caller="ria", chat_id=room.pk, messages=[old])

        sent = await cut_while_waiting(
            database_line,
            room.pk,
            messages.send(caller="ria", chat_id=room.pk, messages=[new, replace(old, content="A")]),
        )

        assert (sent.seq, sent.from_seq, sent.to_seq, sent.is_new) == (3, 2, 3, True)
        assert sent.members == ("ria",)

    async def test_of_nothing_tells_nobody(self, database_line, hot_loop):
        room = await db(make.chat)()

        sent = await cut_while_waiting(
            database_line, room.pk, messages.send(caller="ria", chat_id=room.pk, messages=[])
        )

        assert (sent.seq, sent.is_new) == (0, False)


class TestNotCommitted:
    async def test_is_sent_once_and_the_others_are_told_once(self, people):
        room = await people.room("ria", "mio")
        ria, mio = await people.join("ria"), await people.join("mio")

        seq = await killed_while_waiting(room, ria.send(room, "a"))

        assert seq == 1
        push = await mio.pushed()
        assert (push["fromSeq"], push["toSeq"], len(push["messages"])) == (1, 1, 1)
        assert await mio.quiet()
        assert len(await db(make.rows)(await db(make.chat_of)(room))) == 1

    async def test_and_cut_again_and_again_is_an_error_after_which_the_client_may_send_again(
        self, database_line, hot_loop, monkeypatch
    ):
        monkeypatch.setattr(database, "LOST_S", 0.2)
        room = await db(make.chat)()
        new = make.message("a")

        with Locked(room.pk):
            sending = asyncio.create_task(
                messages.send(caller="ria", chat_id=room.pk, messages=[new])
            )
            cuts = 0
            while not sending.done():
                found = await db(_waiting)()
                await db(terminate)(found)
                cuts += len(found)
                await asyncio.sleep(0.01)
            with pytest.raises(database.AWAY) as away:
                await sending
        again = await messages.send(caller="ria", chat_id=room.pk, messages=[new])

        assert cuts > 1
        assert database.was_lost(away.value)
        assert (again.seq, again.is_new) == (1, True)

    async def test_because_the_lock_was_held_too_long_is_not_tried_again(self, hot_loop):
        room = await db(make.chat)()
        await make.say(room, "a")
        before = database.round_trips

        with Locked(room.pk), pytest.raises(psycopg.errors.LockNotAvailable):
            await make.say(room, "b")

        assert database.round_trips == before + 1
