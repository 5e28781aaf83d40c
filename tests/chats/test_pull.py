from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from django.db import connection

from airi_server.kernel import database
from airi_server.kernel.threads import in_thread
from chats import deletion, messages, rooms
from chats.membership import ChatNotFound, NotAMember
from chats.messages import Head, Tombstone
from chats.models import MAX_CONTENT_BYTES, MAX_PAGE_BYTES, Chat
from tests.factories import chats as make

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.asyncio]
db = in_thread


@pytest.fixture
def room(hot_loop):
    return make.chat("mio")


async def pull(room, after_seq=0, limit=None, caller="ria"):
    return await messages.pull(caller=caller, chat_id=room.pk, after_seq=after_seq, limit=limit)


class TestPull:
    async def test_returns_messages_as_clients_read_them(self, room):
        new = make.message("hi", role="assistant")
        await messages.send(caller="mio", chat_id=room.pk, messages=[new])

        (row,) = (await pull(room)).messages

        assert (row.id, row.chat_id, row.sender_id) == (new.id, room.pk, None)
        assert (row.role, row.content, row.seq) == ("assistant", "hi", 1)
        assert row.created_at == row.updated_at > 1_700_000_000_000

    async def test_gives_pages_of_a_bounded_size(self, room):
        """Case 119."""
        await make.say(room, *("x" for _ in range(500)))
        await make.say(room, "x")
        sizes = {None: 100, 0: 100, -1: 100, 50: 50, 500: 500, 9999: 500}

        for limit, size in sizes.items():
            page = await pull(room, limit=limit)
            assert [row.seq for row in page.messages] == list(range(1, size + 1)), limit
            assert page.seq == size, limit

    async def test_ends_at_the_head(self, room):
        await make.say(room, "a", "b")

        assert [row.seq for row in (await pull(room, after_seq=1)).messages] == [2]
        for cursor in (2, 3, 2**63 - 1, 2**80):
            page = await pull(room, after_seq=cursor)
            assert (page.messages, page.seq) == ((), 2)
        assert (await pull(room, after_seq=-5)).messages[0].seq == 1

    async def test_of_an_empty_chat_is_an_empty_page(self, room):
        page = await pull(room)

        assert (page.messages, page.seq, page.deleted) == ((), 0, ())

    async def test_reports_tombstones_and_counts_them(self, room):
        new = [make.message(text) for text in "abc"]
        await messages.send(caller="ria", chat_id=room.pk, messages=new)
        for gone in new[:2]:
            await db(deletion.delete_message)(
                caller="ria", chat_id=room.pk, message_id=gone.id, at=make.NOW
            )

        page = await pull(room, limit=2)
        rest = await pull(room, after_seq=page.seq)

        assert [row.content for row in page.messages] == ["c"]
        assert page.deleted == (Tombstone(new[0].id, 4),)
        assert (rest.messages, rest.deleted, rest.seq) == ((), (Tombstone(new[1].id, 5),), 5)

    async def test_shows_an_edit_at_its_new_number_only(self, room):
        new = make.message("a")
        await messages.send(caller="ria", chat_id=room.pk, messages=[new])
        await make.say(room, "b")
        await messages.send(caller="ria", chat_id=room.pk, messages=[replace(new, content="A")])

        assert [(row.seq, row.content) for row in (await pull(room)).messages] == [
            (2, "b"), (3, "A")
        ]  # fmt: skip

    async def test_refuses_strangers_and_chats_that_are_not_there(self, room):
        """Case 120."""
        await make.say(room, "a")
        with pytest.raises(NotAMember):
            await pull(room, caller="stranger")
        for chat_id in ("missing", "", "\x00", "x" * 65):
            with pytest.raises(ChatNotFound):
                await messages.pull(caller="ria", chat_id=chat_id, after_seq=0)
        await db(rooms.delete)(caller="ria", chat_id=room.pk, at=make.NOW)
        for caller in ("ria", "stranger"):
            with pytest.raises(ChatNotFound):
                await pull(room, caller=caller)

    async def test_is_one_round_trip(self, room):
        await pull(room)
        before = database.round_trips

        await pull(room)

        assert database.round_trips == before + 1


@pytest.fixture
def long_room(room):
    """A chat of 500 of the longest messages, with a tombstone after each hundredth."""
    with connection.cursor() as cursor:
        cursor.execute(FILL, {"chat_id": room.pk, "length": MAX_CONTENT_BYTES})
        cursor.execute("UPDATE chat SET last_seq = 505 WHERE id = %s", [room.pk])
    return room


FILL = """
INSERT INTO chat_message (
    id, chat_id, seq, sender_id, author_id, role, content, created_at, updated_at, deleted_at)
SELECT 'm' || n, %(chat_id)s, n, 'ria', 'ria', 'user',
       CASE WHEN n %% 101 > 0 THEN repeat('x', %(length)s) ELSE '' END, now(), now(),
       CASE WHEN n %% 101 > 0 THEN NULL ELSE now() END
FROM generate_series(1, 505) AS n
"""


class TestLongPages:
    """A page is bounded before it is read: 500 of the longest messages are 128 MiB."""

    @pytest.mark.parametrize(
        ("sql", "place"),
        [
            (messages.PULL_MESSAGES_SQL, {"user_id": "ria", "after_seq": 0}),
            (messages.READ_RANGE_SQL, {"from_seq": 1, "to_seq": 500}),
        ],
    )
    async def test_leave_the_database_with_as_much_as_one_frame_carries(
        self, long_room, sql, place
    ):
        page = {"page": 500, "max_bytes": MAX_PAGE_BYTES}

        rows = await database.fetch(sql, {"chat_id": long_room.pk, **place, **page})

        assert [row[-4] for row in rows] == [1, 2, 3, 4]

    @pytest.mark.parametrize("limit", [1, 3, 500])
    async def test_bring_every_row_and_end_at_the_head(self, long_room, limit):
        cursor, seen, gone = 0, [], []
        while cursor < 505:
            page = await pull(long_room, after_seq=cursor, limit=limit)
            assert cursor < page.seq
            seen += [row.seq for row in page.messages]
            gone += [one.seq for one in page.deleted]
            cursor = page.seq

        assert gone == [101, 202, 303, 404, 505]
        assert seen == [seq for seq in range(1, 506) if seq not in gone]

    async def test_of_a_range_say_where_they_end(self, long_room):
        first, seen = 99, []
        while first <= 105:
            page = await messages.between(chat_id=long_room.pk, from_seq=first, to_seq=105)
            seen.append(([row.seq for row in page.messages], page.seq))
            first = page.seq + 1

        # The tombstone at 101 costs nothing.
        assert seen == [([99, 100, 102, 103], 103), ([104, 105], 105)]

    async def test_hold_one_message_however_long_it_is(self, long_room, monkeypatch):
        monkeypatch.setattr(messages, "MAX_PAGE_BYTES", 1)

        page = await pull(long_room)
        after = await messages.between(chat_id=long_room.pk, from_seq=2, to_seq=5)

        assert ([row.seq for row in page.messages], page.seq) == ([1], 1)
        assert ([row.seq for row in after.messages], after.seq) == ([2], 2)

    async def test_are_as_long_as_a_frame_may_be(self):
        assert MAX_PAGE_BYTES >= MAX_CONTENT_BYTES


class TestPullBesideWriters:
    async def test_never_skips_a_message(self, room):
        """Rows and head read by two statements lose messages here."""
        writers, each = 4, 40
        done = asyncio.Event()

        async def write():
            for _ in range(each):
                rows = [{"id": make.message().id, "role": "user", "content": "x"}]
                call = {"chat_id": room.pk, "user_id": "ria", "messages": rows}
                async with database.connection() as lent:
                    await messages._send_batch(lent, [call])

        async def read(limit):
            cursor, seen = 0, []
            while True:
                last = done.is_set()
                page = await pull(room, after_seq=cursor, limit=limit)
                seen += [row.seq for row in page.messages]
                assert page.seq >= cursor
                assert all(row.seq > cursor for row in page.messages)
                if last and page.seq == cursor:
                    return seen
                cursor = page.seq

        readers = [asyncio.create_task(read(limit)) for limit in (1, 3, 500)]
        await asyncio.gather(*(write() for _ in range(writers)))
        done.set()

        for reader in readers:
            assert await reader == list(range(1, writers * each + 1))


class TestBetween:
    async def test_returns_what_has_a_number_in_the_range(self, room):
        new = make.message("b")
        await make.say(room, "a")
        sent = await messages.send(caller="ria", chat_id=room.pk, messages=[new])
        await make.say(room, "c")

        page = await messages.between(chat_id=room.pk, from_seq=sent.from_seq, to_seq=sent.to_seq)

        assert [row.content for row in page.messages] == ["b"]
        assert page.messages == (await pull(room, after_seq=1, limit=1)).messages

    async def test_leaves_out_what_was_numbered_again(self, room):
        new = make.message("a")
        sent = await messages.send(caller="ria", chat_id=room.pk, messages=[new])
        await messages.send(caller="ria", chat_id=room.pk, messages=[replace(new, content="b")])

        page = await messages.between(chat_id=room.pk, from_seq=sent.from_seq, to_seq=sent.to_seq)

        assert (page.messages, page.deleted) == ((), ())


class TestHeads:
    async def test_are_those_of_the_users_own_chats_that_moved_or_are_gone(self, room):
        quiet, gone, foreign = [await db(make.chat)(owner=o) for o in ("ria", "ria", "zoe")]
        for chat in (gone, foreign):
            await make.say(chat, "x", caller=chat.created_by)
        await db(Chat.objects.filter(pk=gone.pk).update)(deleted_at=make.NOW)
        await make.say(room, "a", "b")

        heads = await messages.heads(user_ids=["ria", "mio", "nobody"], within_s=60)

        assert set(heads) == {
            Head("ria", room.pk, 2), Head("mio", room.pk, 2),
            Head("ria", gone.pk, 1, is_deleted=True),
        }  # fmt: skip
        assert await messages.heads(user_ids=["ria"], within_s=0) == []
        assert quiet.pk not in {head.chat_id for head in heads}
