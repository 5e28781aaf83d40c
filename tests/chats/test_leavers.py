"""Whoever leaves a chat comes back by themselves; whoever is taken out may be put in again."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from django.db import IntegrityError, transaction

from airi_server.kernel.threads import in_thread
from chats import deletion, messages, rooms
from chats.membership import ChatNotFound, NotAMember
from chats.models import ChatLeaver, ChatMember
from chats.rooms import HasLeft, Someone, TooManyMembers
from tests.factories import chats as make

pytestmark = pytest.mark.django_db
LATER = make.NOW + timedelta(hours=1)
MIO = Someone("user", "mio")


@pytest.fixture
def room():
    """Ria owns it, Ada is an admin, Mio and Zoe are members."""
    return make.chat("mio", "zoe", admins=("ada",))


def leave(room, user_id="mio"):
    member = make.member(room, user_id)
    rooms.remove_member(caller=user_id, chat_id=room.pk, member_id=member.pk)


def put_in(room, caller, someone=MIO):
    return rooms.add_member(caller=caller, chat_id=room.pk, someone=someone, at=LATER)


def roles(room):
    users = ChatMember.objects.filter(chat=room, member_type="user")
    return dict(users.values_list("user_id", "role"))


class TestLeaving:
    @pytest.mark.parametrize("caller", ["ria", "ada"])
    def test_keeps_others_from_putting_them_in_again(self, room, caller):
        leave(room)

        with pytest.raises(HasLeft):
            put_in(room, caller)
        with pytest.raises(HasLeft) as refused:
            put_in(room, caller)

        assert (refused.value.status, refused.value.code) == (403, "FORBIDDEN")
        assert "mio" not in roles(room)

    def test_keeps_nobody_else_out_and_them_out_of_no_other_chat(self, room):
        other = make.chat()
        leave(room)

        put_in(room, "ria", Someone("user", "new"))
        put_in(room, "ria", Someone("character", None, "mio"))
        put_in(other, "ria")

        assert "new" in roles(room)
        assert "mio" in roles(other)

    def test_of_an_admin_and_of_the_owner_is_leaving_too(self, room):
        leave(room, "ada")
        leave(room, "ria")
        (heir,) = (user_id for user_id, role in roles(room).items() if role == "owner")

        for left in ("ada", "ria"):
            with pytest.raises(HasLeft):
                put_in(room, heir, Someone("user", left))

    def test_says_nothing_to_those_who_may_add_nobody(self, room):
        leave(room)

        with pytest.raises(NotAMember):
            put_in(room, "stranger")


class TestComingBack:
    def test_is_for_those_who_left_as_ordinary_members(self, room):
        leave(room, "ada")

        member = put_in(room, "ada", Someone("user", "ada"))

        assert (member.user_id, member.role, member.joined_at) == ("ada", "member", LATER)
        assert roles(room)["ada"] == "member"
        assert not ChatLeaver.objects.exists()

    def test_again_changes_nothing(self, room):
        leave(room)

        assert put_in(room, "mio").pk == put_in(room, "mio").pk
        assert put_in(room, "ria", Someone("user", "ria")).role == "owner"

    def test_and_leaving_again_is_leaving(self, room):
        for _ in range(3):
            leave(room)
            with pytest.raises(HasLeft):
                put_in(room, "ria")
            put_in(room, "mio")

        assert "mio" in roles(room)

    def test_is_not_for_those_who_were_never_there_or_were_taken_out(self, room):
        rooms.remove_member(caller="ria", chat_id=room.pk, member_id=make.member(room, "zoe").pk)

        for user_id in ("stranger", "zoe"):
            with pytest.raises(NotAMember):
                put_in(room, user_id, Someone("user", user_id))

    def test_is_not_for_those_who_came_back_and_were_taken_out(self, room):
        leave(room)
        put_in(room, "mio")
        rooms.remove_member(caller="ada", chat_id=room.pk, member_id=make.member(room, "mio").pk)

        with pytest.raises(NotAMember):
            put_in(room, "mio")
        assert put_in(room, "ria").user_id == "mio"

    def test_to_a_chat_that_is_full_has_to_wait(self, room, monkeypatch):
        leave(room)
        monkeypatch.setattr(rooms, "MAX_MEMBERS", 3)

        with pytest.raises(TooManyMembers):
            put_in(room, "mio")

        leave(room, "zoe")
        assert put_in(room, "mio")

    def test_to_a_chat_that_was_deleted_is_not_possible(self, room):
        leave(room)
        rooms.delete(caller="ria", chat_id=room.pk, at=LATER)

        with pytest.raises(ChatNotFound):
            put_in(room, "mio")

    def test_to_a_chat_that_nobody_owns_is_owning_it(self, room):
        for user_id in ("zoe", "ada", "mio", "ria"):
            leave(room, user_id)

        put_in(room, "zoe", Someone("user", "zoe"))
        put_in(room, "ria", Someone("user", "ria"))

        assert roles(room) == {"zoe": "owner", "ria": "member"}


class TestTakenOut:
    @pytest.mark.parametrize("caller", ["ria", "ada"])
    def test_may_be_put_in_again(self, room, caller):
        mio = make.member(room, "mio")
        rooms.remove_member(caller=caller, chat_id=room.pk, member_id=mio.pk)

        assert put_in(room, caller).user_id == "mio"


class TestClaims:
    def test_the_database_keeps_out_who_has_left(self, room):
        leave(room)
        mio = {"member_type": "user", "user_id": "mio", "joined_at": LATER}
        refused = pytest.raises(IntegrityError, match='"chat_member_has_not_left"')

        with refused, transaction.atomic():
            ChatMember.objects.create(chat=room, **mio)
        with refused, transaction.atomic():
            ChatMember.objects.filter(chat=room, user_id="zoe").update(user_id="mio")
        ChatMember.objects.create(chat=make.chat(), **mio)

    def test_somebody_has_left_once(self, room):
        leave(room)

        with pytest.raises(IntegrityError, match='"chat_leaver_once"'), transaction.atomic():
            ChatLeaver.objects.create(chat=room, user_id="mio")
        with pytest.raises(IntegrityError, match="chat_leaver_user_id_shape"), transaction.atomic():
            ChatLeaver.objects.create(chat=room, user_id="a.b")


class TestLeavingForGood:
    def test_forgets_what_was_left(self, room):
        leave(room)
        leave(room, "zoe")

        for _ in range(2):
            deletion.delete_user_data(user_id="mio", at=LATER)

        assert list(ChatLeaver.objects.values_list("user_id", flat=True)) == ["zoe"]


@pytest.mark.django_db(transaction=True)
@pytest.mark.asyncio
class TestRace:
    async def test_leaving_and_being_put_in_end_with_them_outside(self, hot_loop):
        room = await in_thread(make.chat)("mio", "zoe", admins=("ada",))
        mio = await in_thread(make.member)(room, "mio")
        add = in_thread(put_in)

        outcomes = await asyncio.gather(
            *(add(room, caller) for caller in ("ria", "ada") * 4),
            in_thread(rooms.remove_member)(caller="mio", chat_id=room.pk, member_id=mio.pk),
            *(add(room, caller) for caller in ("ria", "ada") * 4),
            return_exceptions=True,
        )

        assert all(
            isinstance(each, HasLeft) or getattr(each, "user_id", None) == "mio"
            for each in outcomes
        )
        assert "mio" not in await in_thread(roles)(room)
        with pytest.raises(NotAMember):
            await messages.pull(caller="mio", chat_id=room.pk, after_seq=0)
