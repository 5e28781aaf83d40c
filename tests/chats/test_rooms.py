from __future__ import annotations

from datetime import timedelta

import pytest

from airi_server.kernel.errors import InvalidRequest
from chats import rooms
from chats.membership import ChatNotFound, MemberNotFound, NotAllowed, NotAMember
from chats.models import Chat, ChatMember
from chats.rooms import ChatExists, Someone, TooManyMembers
from tests.factories import chats as make

pytestmark = pytest.mark.django_db
LATER = make.NOW + timedelta(hours=1)


@pytest.fixture
def room():
    """Ria owns it, Ada is an admin, Mio and Zoe are members."""
    return make.chat("mio", "zoe", admins=("ada",))


def roles(room):
    users = ChatMember.objects.filter(chat=room, member_type="user")
    return dict(users.values_list("user_id", "role"))


class TestCreate:
    def test_makes_the_caller_the_owner(self):
        chat = make.chat()

        assert roles(chat) == {"ria": "owner"}
        assert (chat.type, chat.title, chat.last_seq, chat.created_by) == ("group", None, 0, "ria")

    def test_counts_the_caller_and_doubles_once(self):
        airi = Someone("character", None, "airi")

        chat = make.chat(members=[Someone("user", "ria"), airi, airi, Someone("bot", None, "airi")])

        assert ChatMember.objects.filter(chat=chat).count() == 3
        assert roles(chat) == {"ria": "owner"}

    def test_refuses_an_id_that_is_taken_to_everybody(self):
        """Case 131."""
        chat = make.chat("mio")

        for caller in ("ria", "mio", "stranger"):
            with pytest.raises(ChatExists):
                make.chat(owner=caller, chat_id=chat.pk)
        rooms.delete(caller="ria", chat_id=chat.pk, at=LATER)
        with pytest.raises(ChatExists) as refused:
            make.chat(chat_id=chat.pk)

        assert refused.value.status == 409
        assert roles(chat) == {"ria": "owner", "mio": "member"}

    @pytest.mark.parametrize(
        "someone",
        [
            Someone("user"), Someone("user", None, "airi"), Someone("user", "mio", "airi"),
            Someone("character"), Someone("bot", "mio"), Someone("character", "mio", "airi"),
            Someone("user", ""), Someone("user", "a b"), Someone("bot", None, "x" * 65),
        ],
    )  # fmt: skip
    def test_refuses_members_that_name_nobody(self, room, someone):
        with pytest.raises(InvalidRequest):
            make.chat(members=[someone])
        with pytest.raises(InvalidRequest):
            rooms.add_member(caller="ria", chat_id=room.pk, someone=someone, at=LATER)

        assert Chat.objects.count() == 1

    def test_refuses_more_members_than_a_chat_may_have(self, monkeypatch):
        monkeypatch.setattr(rooms, "MAX_MEMBERS", 3)
        make.chat("a", "b")
        with pytest.raises(TooManyMembers):
            make.chat("a", "b", "c")


class TestListing:
    def test_shows_own_live_chats_last_changed_first(self):
        old, new, gone = (make.chat(at=make.NOW + timedelta(hours=h)) for h in range(3))
        shared = make.chat("ria", owner="mio", at=make.NOW + timedelta(hours=5))
        make.chat(owner="mio")
        rooms.delete(caller="ria", chat_id=gone.pk, at=LATER)

        found, cursor = rooms.of_user(caller="ria")

        assert [chat.pk for chat in found] == [shared.pk, new.pk, old.pk]
        assert cursor is None

    def test_pages_show_each_chat_once_also_at_the_same_instant(self):
        made = {make.chat(at=make.NOW + timedelta(hours=n // 3)).pk for n in range(10)}
        pages, cursor = [], None
        while True:
            found, cursor = rooms.of_user(caller="ria", limit=4, cursor=cursor)
            pages.append([chat.pk for chat in found])
            if cursor is None:
                break

        assert [len(page) for page in pages] == [4, 4, 2]
        assert {pk for page in pages for pk in page} == made

    def test_stops_at_five_hundred(self, monkeypatch):
        monkeypatch.setattr(rooms, "MAX_LISTED", 2)
        for _ in range(3):
            make.chat()

        assert len(rooms.of_user(caller="ria")[0]) == 2
        assert len(rooms.of_user(caller="ria", limit=9)[0]) == 2

    @pytest.mark.parametrize(
        "cursor", ["", ".", "1", "1.", ".a", "x.a", "-1.a", "1.a b", "9" * 18 + ".a", "٣.a"]
    )
    def test_refuses_a_cursor_we_did_not_give_out(self, cursor):
        with pytest.raises(InvalidRequest):
            rooms.of_user(caller="ria", cursor=cursor)

    def test_reads_the_largest_cursor(self):
        assert rooms.of_user(caller="ria", cursor="9" * 17 + ".a") == ([], None)

    def test_is_one_query(self, room, django_assert_num_queries):
        with django_assert_num_queries(1):
            rooms.of_user(caller="ria", limit=10)


def act(verb, caller, room):
    """Do what the matrix asks; `mio` is the ordinary member it is done to."""
    in_room = {"caller": caller, "chat_id": room.pk}
    mio, ria = make.member(room, "mio"), make.member(room, "ria")
    match verb:
        case "read":
            rooms.details(**in_room)
        case "rename":
            rooms.rename(**in_room, title="T", at=LATER)
        case "delete":
            rooms.delete(**in_room, at=LATER)
        case "add":
            rooms.add_member(**in_room, someone=Someone("user", "new"), at=LATER)
        case "remove":
            rooms.remove_member(**in_room, member_id=mio.pk)
        case "remove owner":
            rooms.remove_member(**in_room, member_id=ria.pk)
        case "promote":
            rooms.set_role(**in_room, member_id=mio.pk, role="admin")


MATRIX = {
    #               ria    ada    zoe
    "read":         (True, True, True),
    "rename":       (True, True, False),
    "delete":       (True, False, False),
    "add":          (True, True, False),
    "remove":       (True, True, False),
    "remove owner": (True, False, False),
    "promote":      (True, False, False),
}  # fmt: skip


class TestRoles:
    @pytest.mark.parametrize("place", range(3))
    @pytest.mark.parametrize("verb", MATRIX)
    def test_allow_what_the_matrix_says(self, room, verb, place):
        caller = ("ria", "ada", "zoe")[place]
        if MATRIX[verb][place]:
            act(verb, caller, room)
            return
        with pytest.raises(NotAllowed):
            act(verb, caller, room)

    @pytest.mark.parametrize("verb", MATRIX)
    def test_mean_nothing_in_other_chats_and_deleted_ones(self, room, verb):
        """Case 120."""
        make.chat(owner="stranger")
        with pytest.raises(NotAMember):
            act(verb, "stranger", room)
        Chat.objects.filter(pk=room.pk).update(deleted_at=LATER)
        for caller in ("ria", "stranger"):
            with pytest.raises(ChatNotFound):
                act(verb, caller, room)

    def test_are_the_owners_to_give(self, room):
        mio = make.member(room, "mio")

        rooms.set_role(caller="ria", chat_id=room.pk, member_id=mio.pk, role="admin")
        act("rename", "mio", room)
        rooms.set_role(caller="ria", chat_id=room.pk, member_id=mio.pk, role="member")
        with pytest.raises(NotAllowed):
            act("rename", "mio", room)

    def test_of_owners_and_characters_stay(self, room):
        airi = rooms.add_member(
            caller="ria", chat_id=room.pk, someone=Someone("bot", None, "airi"), at=LATER
        )
        for member_id in (airi.pk, make.member(room, "ria").pk):
            with pytest.raises(InvalidRequest):
                rooms.set_role(caller="ria", chat_id=room.pk, member_id=member_id, role="admin")


class TestMembers:
    def test_who_is_in_already_stays_as_they_are(self, room):
        there = make.member(room, "ada")

        again = rooms.add_member(
            caller="ria", chat_id=room.pk, someone=Someone("user", "ada"), at=LATER
        )

        assert (again.pk, again.role) == (there.pk, "admin")

    def test_are_bounded(self, room, monkeypatch):
        monkeypatch.setattr(rooms, "MAX_MEMBERS", 4)
        with pytest.raises(TooManyMembers):
            act("add", "ria", room)

    @pytest.mark.parametrize("member_id", ["missing", "", "\x00", "x" * 65])
    def test_of_other_chats_are_not_found(self, room, member_id):
        foreign = make.member(make.chat(owner="stranger"), "stranger")
        for wanted in (foreign.pk, member_id):
            with pytest.raises(MemberNotFound):
                rooms.remove_member(caller="ria", chat_id=room.pk, member_id=wanted)
            with pytest.raises(MemberNotFound):
                rooms.set_role(caller="ria", chat_id=room.pk, member_id=wanted, role="admin")

    def test_may_leave(self, room):
        zoe = make.member(room, "zoe")

        rooms.remove_member(caller="zoe", chat_id=room.pk, member_id=zoe.pk)

        with pytest.raises(NotAMember):
            rooms.details(caller="zoe", chat_id=room.pk)

    def test_inherit_in_order_when_owners_leave(self, room):
        ChatMember.objects.filter(chat=room, user_id="zoe").update(joined_at=LATER)
        order = []
        for caller in ("ria", "ada", "mio", "zoe"):
            own = make.member(room, caller)
            rooms.remove_member(caller=caller, chat_id=room.pk, member_id=own.pk)
            order += [user_id for user_id, role in roles(room).items() if role == "owner"]

        assert order == ["ada", "mio", "zoe"]
        assert roles(room) == {}
