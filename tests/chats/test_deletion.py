from __future__ import annotations

from datetime import timedelta

import pytest

from airi_server.kernel.threads import in_thread
from chats import deletion, messages, rooms
from chats.deletion import MessageNotFound
from chats.membership import ChatNotFound, NotAllowed, NotAMember
from chats.models import Chat, ChatMember, ChatMessage
from tests.factories import chats as make

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.asyncio]
LATER = make.NOW + timedelta(hours=1)
db = in_thread


@pytest.fixture
def room(hot_loop):
    return make.chat("mio", "zoe", admins=("ada",))


async def delete(room, message_id, caller="ria"):
    return await db(deletion.delete_message)(
        caller=caller, chat_id=room.pk, message_id=message_id, at=LATER
    )


class TestDeleteMessage:
    async def test_leaves_an_empty_tombstone_with_the_next_number(self, room):
        new = make.message("a")
        await messages.send(caller="mio", chat_id=room.pk, messages=[new])
        await make.say(room, "b")

        sent = await delete(room, new.id, "mio")

        row = await db(ChatMessage.objects.get)(pk=new.id)
        assert (row.seq, row.content, row.deleted_at) == (3, "", LATER)
        assert (sent.seq, sent.from_seq, sent.to_seq, sent.is_new) == (3, 3, 3, True)
        assert set(sent.members) == {"ria", "mio", "zoe", "ada"}
        assert await db(make.last_seq)(room) == 3

    async def test_again_keeps_the_tombstone(self, room):
        new = make.message("a")
        await messages.send(caller="ria", chat_id=room.pk, messages=[new])
        await delete(room, new.id)
        changed = (await db(Chat.objects.get)(pk=room.pk)).updated_at

        again = await delete(room, new.id)

        assert (again.seq, again.from_seq, again.to_seq, again.is_new) == (2, 3, 2, False)
        assert (await db(Chat.objects.get)(pk=room.pk)).updated_at == changed

    async def test_is_for_authors_and_managers(self, room):
        for caller, may in {"mio": True, "ria": True, "ada": True, "zoe": False}.items():
            new = make.message("a")
            await messages.send(caller="mio", chat_id=room.pk, messages=[new])
            with pytest.raises(NotAMember):
                await delete(room, new.id, "stranger")
            if may:
                await delete(room, new.id, caller)
            else:
                with pytest.raises(NotAllowed):
                    await delete(room, new.id, caller)

    async def test_finds_nothing_in_other_chats(self, room):
        other = await db(make.chat)()
        new = make.message("a")
        await messages.send(caller="ria", chat_id=other.pk, messages=[new])

        for message_id in (new.id, "missing", "", "\x00"):
            with pytest.raises(MessageNotFound):
                await delete(room, message_id)


def everything():
    tables = (Chat, ChatMember, ChatMessage)
    return [sorted(table.objects.values_list()) for table in tables]


async def forget(user_id="ria", at=LATER):
    await db(deletion.delete_user_data)(user_id=user_id, at=at)


class TestDeleteUserData:
    @pytest.mark.parametrize("kind", ["private", "bot"])
    async def test_ends_private_chats_and_empties_what_the_user_pushed(
        self, hot_loop, kind, monkeypatch
    ):
        monkeypatch.setattr(deletion, "BATCH", 2)
        chat = await db(make.chat)("mio", type=kind)
        await make.say(chat, "a", "b", "c", "d", "e")
        await make.say(chat, "theirs", caller="mio")
        await messages.send(
            caller="ria", chat_id=chat.pk, messages=[make.message("answer", role="assistant")]
        )

        await forget()

        with pytest.raises(ChatNotFound):
            await messages.pull(caller="mio", chat_id=chat.pk, after_seq=0)
        rows = await db(make.rows)(chat)
        assert rows == [(6, "mio", "theirs"), *((seq, "ria", "") for seq in range(8, 14))]
        assert await db(make.last_seq)(chat) == 13

    async def test_empties_private_chats_that_were_deleted_before(self, hot_loop):
        chat = await db(make.chat)(type="bot")
        await make.say(chat, "a")
        await db(rooms.delete)(caller="ria", chat_id=chat.pk, at=make.NOW)

        await forget()

        assert await db(make.rows)(chat) == [(2, "ria", "")]
        assert (await db(Chat.objects.get)(pk=chat.pk)).deleted_at == make.NOW

    @pytest.mark.parametrize("kind", ["group", "channel"])
    async def test_leaves_groups_and_lets_the_messages_stay(self, hot_loop, kind):
        chat = await db(make.chat)("mio", type=kind)
        await make.say(chat, "a")

        await forget()

        page = await messages.pull(caller="mio", chat_id=chat.pk, after_seq=0)
        assert [row.content for row in page.messages] == ["a"]
        assert (await db(make.member)(chat, "mio")).role == "owner"
        with pytest.raises(NotAMember):
            await messages.pull(caller="ria", chat_id=chat.pk, after_seq=0)

    async def test_does_nothing_the_second_time_and_nothing_to_others(self, hot_loop):
        for kind in ("private", "group"):
            for owner in ("ria", "mio"):
                await make.say(await db(make.chat)(type=kind, owner=owner), "a", caller=owner)
        await forget()
        once = await db(everything)()

        await forget(at=LATER + timedelta(hours=1))
        await forget("nobody")

        assert await db(everything)() == once
        assert await db(ChatMessage.objects.filter(content="").count)() == 1
        assert await db(Chat.objects.filter(deleted_at=None).count)() == 3
