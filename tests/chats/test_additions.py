"""Who may put whom into chats, and how often."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from django.db import IntegrityError, transaction

from airi_server.kernel import ids
from airi_server.kernel.errors import InvalidRequest
from airi_server.kernel.threads import in_thread
from airi_server.runtime import options as runtime
from chats import additions, deletion, messages, rooms
from chats.additions import StrangersKeptOut, TooManyAdditions
from chats.models import Chat, ChatAddition, ChatMember
from chats.rooms import ChatExists, Someone, TooManyMembers
from tests.factories import chats as make

pytestmark = pytest.mark.django_db
NOW = make.NOW
LATER = NOW + timedelta(minutes=1)
TOMORROW = NOW + timedelta(days=1)
db = in_thread


def put(name, value):
    runtime.put(name, value, by="ria", at=NOW)


def users(*user_ids):
    return [Someone("user", user_id) for user_id in user_ids]


def found(*user_ids, caller="ria", at=NOW, **columns):
    """Make a chat, counted as everybody's are."""
    return rooms.create(caller=caller, at=at, members=users(*user_ids), **columns)


def put_in(room, user_id, caller="ria", at=NOW):
    (someone,) = users(user_id)
    return rooms.add_member(caller=caller, chat_id=room.pk, someone=someone, at=at)


def takes_part(room, user_id):
    ChatMember.objects.filter(chat=room, user_id=user_id).update(is_silent=False)


def chats_of(user_id):
    return Chat.objects.filter(members__user_id=user_id).count()


def counted():
    return {(row.kind, row.user_id): row.people for row in ChatAddition.objects.all()}


class TestAMinute:
    def test_allows_sixty_people_and_then_says_when_to_go_on(self):
        room = found()
        for number in range(60):
            put_in(room, f"u{number}", at=NOW + timedelta(seconds=number // 2))

        with pytest.raises(TooManyAdditions) as refused:
            put_in(room, "another", at=NOW + timedelta(seconds=42))

        assert (refused.value.status, refused.value.retry_after_s) == (429, 18)
        assert ChatMember.objects.filter(chat=room).count() == 61
        put_in(room, "another", at=LATER)

    def test_counts_each_caller_and_those_who_come_with_a_chat(self):
        put("CHAT_ADDITIONS_PER_MINUTE", 3)
        found("a", "b")
        found("c", caller="mio")
        room = found("d")

        for refused in (lambda: found("e"), lambda: put_in(room, "f")):
            with pytest.raises(TooManyAdditions):
                refused()

        assert found("e", caller="mio")
        assert counted()["by_them", "ria"] == 3

    def test_lets_one_call_bring_more_than_that(self):
        room = found(*(f"u{number}" for number in range(200)))

        assert ChatMember.objects.filter(chat=room).count() == 201
        with pytest.raises(TooManyAdditions):
            put_in(room, "another")

    def test_counts_only_people_who_come(self):
        put("CHAT_ADDITIONS_PER_MINUTE", 1)
        room = found("mio")
        airi = Someone("character", None, "airi")

        for _ in range(3):
            rooms.create(caller="ria", at=NOW, members=[*users("ria"), airi])
            assert put_in(room, "mio").user_id == "mio"
        rooms.add_member(caller="ria", chat_id=room.pk, someone=airi, at=NOW)

        assert counted()["by_them", "ria"] == 1

    def test_does_not_count_what_was_refused(self):
        put("CHAT_ADDITIONS_PER_MINUTE", 2)
        room = found(chat_id="c1")
        with pytest.raises(ChatExists):
            found("a", "b", "c", chat_id="c1")
        put("CHAT_MEMBERS", 2)
        put_in(room, "mio")
        with pytest.raises(TooManyMembers):
            put_in(room, "zoe")

        assert counted()["by_them", "ria"] == 1

    def test_of_a_chat_that_is_there_is_answered_as_before(self):
        """A client that repeats itself is not told to wait."""
        put("CHAT_ADDITIONS_PER_MINUTE", 1)
        found("a", chat_id="c1")

        with pytest.raises(ChatExists):
            found("a", chat_id="c1")

    def test_without_a_limit_has_none(self):
        put("CHAT_ADDITIONS_PER_MINUTE", 0)
        assert len({found(f"u{number}").pk for number in range(70)}) == 70

    def test_is_not_begun_anew_by_an_instance_whose_clock_is_behind(self):
        put("CHAT_ADDITIONS_PER_MINUTE", 2)
        for number in range(2):
            found(f"u{number}", at=LATER - number * timedelta(seconds=50))

        with pytest.raises(TooManyAdditions):
            found("another", at=LATER)

    def test_is_the_same_for_everybody_wherever_their_clock_stands(self):
        far = NOW.astimezone(tz=None)
        put("CHAT_ADDITIONS_PER_MINUTE", 1)
        found("a", at=far)

        with pytest.raises(TooManyAdditions):
            found("b", at=NOW)


class TestStrangers:
    def test_put_nobody_into_more_than_twenty_chats_a_day(self):
        """As it was done: one caller, 150 chats, the same person."""
        put("CHAT_ADDITIONS_PER_MINUTE", 0)
        refused = []
        for number in range(150):
            try:
                found("mio", at=NOW + timedelta(seconds=number / 75))
            except TooManyAdditions as refusal:
                refused.append(refusal)

        assert (chats_of("mio"), len(refused)) == (20, 130)
        assert refused[0].details == {"userId": "mio"}
        assert refused[0].retry_after_s == 12 * 3600
        found("mio", at=TOMORROW)

    def test_are_counted_together_whoever_they_are(self):
        put("CHAT_ADDITIONS_BY_STRANGERS_PER_DAY", 2)
        found("mio", caller="a")
        put_in(found(caller="b"), "mio", caller="b")

        with pytest.raises(TooManyAdditions):
            found("zoe", "mio", caller="c")
        with pytest.raises(TooManyAdditions):
            put_in(found(caller="d"), "mio", caller="d")

        assert found("zoe", caller="c")
        assert counted()["by_strangers", "zoe"] == 1

    def test_stay_strangers_in_the_chat_they_made(self):
        put("CHAT_ADDITIONS_BY_STRANGERS_PER_DAY", 1)
        room = found("mio")

        with pytest.raises(TooManyAdditions):
            found("mio")

        takes_part(room, "mio")
        for _ in range(5):
            found("mio")

    def test_who_came_along_are_strangers_too(self):
        """Else one could be brought in by one stranger and spread by a hundred."""
        put("CHAT_ADDITIONS_BY_STRANGERS_PER_DAY", 1)
        found("mio", "zoe")

        with pytest.raises(TooManyAdditions):
            found("mio", caller="zoe")

    def test_are_not_those_in_a_chat_of_ones_own(self):
        put("CHAT_ADDITIONS_BY_STRANGERS_PER_DAY", 1)
        found("ria", caller="mio")

        assert len({found("mio").pk for _ in range(5)}) == 5

    def test_are_not_those_in_a_chat_one_came_back_to(self):
        put("CHAT_STRANGERS", True)
        room = found("mio")
        member = make.member(room, "mio")
        rooms.remove_member(caller="mio", chat_id=room.pk, member_id=member.pk)
        put_in(room, "mio", caller="mio")
        put("CHAT_STRANGERS", False)

        assert found("mio")

    @pytest.mark.parametrize("end", ["deleted", "left", "taken out"])
    def test_are_those_again_whose_last_chat_together_is_over(self, end):
        put("CHAT_STRANGERS", True)
        room = found("mio")
        takes_part(room, "mio")
        put("CHAT_STRANGERS", False)
        assert put_in(found(), "mio")
        mio = make.member(room, "mio")
        ChatMember.objects.exclude(chat=room).filter(user_id="mio").delete()
        match end:
            case "deleted":
                rooms.delete(caller="ria", chat_id=room.pk, at=NOW)
            case "left":
                rooms.remove_member(caller="mio", chat_id=room.pk, member_id=mio.pk)
            case "taken out":
                rooms.remove_member(caller="ria", chat_id=room.pk, member_id=mio.pk)

        with pytest.raises(StrangersKeptOut):
            found("mio")

    def test_may_be_kept_out_altogether(self):
        room = found("mio")
        put("CHAT_STRANGERS", False)

        with pytest.raises(StrangersKeptOut):
            put_in(room, "zoe")
        with pytest.raises(StrangersKeptOut) as refused:
            found("zoe", "zzz")
        assert (refused.value.status, refused.value.code) == (403, "FORBIDDEN")
        assert refused.value.details == {"userId": "zoe"}

        takes_part(room, "mio")
        assert found("mio")
        assert found()
        assert chats_of("zoe") == 0

    def test_without_a_limit_have_none(self):
        put("CHAT_ADDITIONS_BY_STRANGERS_PER_DAY", 0)
        for _ in range(30):
            found("mio")

        assert chats_of("mio") == 30


class TestAChat:
    def test_has_as_many_members_as_the_setting_says(self):
        put("CHAT_MEMBERS", 3)
        room = found("a")
        put_in(room, "b")

        with pytest.raises(TooManyMembers):
            put_in(room, "c")
        with pytest.raises(TooManyMembers):
            found("a", "b", "c")
        assert ChatMember.objects.filter(chat=room).count() == 3

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("CHAT_MEMBERS", 1), ("CHAT_MEMBERS", 1001), ("CHAT_STRANGERS", 1),
            ("CHAT_STRANGERS", None), ("CHAT_ADDITIONS_PER_MINUTE", -1),
            ("CHAT_ADDITIONS_BY_STRANGERS_PER_DAY", True), ("CHAT_ADDITIONS_PER_MINUTE", 1.5),
        ],
    )  # fmt: skip
    def test_settings_have_bounds(self, name, value):
        with pytest.raises(InvalidRequest):
            put(name, value)


class TestCost:
    def test_is_a_few_statements_however_many_come(self, django_assert_num_queries):
        people = [f"u{number}" for number in range(200)]

        # the limit of members, begin, the chat, who knows the caller, the setting for strangers,
        # the count, the limits of a minute and of a day, the members, commit
        with django_assert_num_queries(10):
            found(*people)


class TestClaims:
    @pytest.mark.parametrize(
        ("claim", "columns"),
        [
            ("chat_addition_kind_known", {"kind": "x"}),
            ("chat_addition_people_positive", {"people": 0}),
            ("chat_addition_user_id_shape", {"user_id": "a.b"}),
            ("chat_addition_once", {"kind": "by_them", "user_id": "ria"}),
        ],
    )
    def test_are_the_databases(self, claim, columns):
        found("mio")
        rows = ChatAddition.objects.filter(kind="by_strangers")

        with pytest.raises(IntegrityError, match=f'"{claim}"'), transaction.atomic():
            rows.update(**columns)


class TestLeavingForGood:
    def test_forgets_what_was_counted(self):
        found("mio")

        for user_id in ("ria", "mio"):
            deletion.delete_user_data(user_id=user_id, at=NOW)

        assert counted() == {}


@pytest.mark.django_db(transaction=True)
@pytest.mark.asyncio
class TestRace:
    async def test_many_at_once_put_nobody_in_too_often(self, hot_loop):
        def attempt(number):
            try:
                found("mio", caller=f"caller-{number % 10}", chat_id=f"c{number}")
            except TooManyAdditions:
                return False
            return True

        done = await asyncio.gather(*(db(attempt)(number) for number in range(60)))

        assert done.count(True) == 20
        assert await db(chats_of)("mio") == 20

    async def test_many_at_once_by_one_caller_are_no_more_than_a_minute_allows(self, hot_loop):
        await db(put)("CHAT_ADDITIONS_PER_MINUTE", 10)

        def attempt(number):
            try:
                found(f"u{number}")
            except TooManyAdditions:
                return False
            return True

        done = await asyncio.gather(*(db(attempt)(number) for number in range(40)))

        assert done.count(True) == 10

    async def test_people_who_put_in_each_other_do_not_wait_for_ever(self, hot_loop):
        names = [ids.nanoid() for _ in range(6)]

        def attempt(number):
            others = [name for name in names if name != names[number % 6]]
            found(*others[:: -1 if number % 2 else 1], caller=names[number % 6])

        await asyncio.gather(*(db(attempt)(number) for number in range(24)))

    async def test_sending_something_makes_known_and_sending_nothing_does_not(self, hot_loop):
        await db(put)("CHAT_ADDITIONS_BY_STRANGERS_PER_DAY", 1)
        room = await db(found)("mio")

        await messages.send(caller="mio", chat_id=room.pk, messages=[])
        await messages.send(caller="ria", chat_id=room.pk, messages=[make.message()])
        with pytest.raises(TooManyAdditions):
            await db(found)("mio")

        await messages.send(caller="mio", chat_id=room.pk, messages=[make.message()])
        assert await db(found)("mio")


def test_the_names_of_limits_are_the_models():
    assert {additions.BY_THEM, additions.BY_STRANGERS} == set(ChatAddition.Kind)
