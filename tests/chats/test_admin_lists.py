"""The console's lists of chats, messages and characters: what is looked for is found, in order."""

from __future__ import annotations

import asyncio
import csv
import io
from datetime import timedelta

import pytest

from chats.admin.characters import CharacterPages
from chats.admin.chats import ChatPages
from chats.characters.models import Character, Translation
from chats.models import Chat, ChatMember
from tests.airi_server.console import staff
from tests.chats.console import listed, url
from tests.factories import accounts
from tests.factories import characters as make_character
from tests.factories import chats as make

pytestmark = pytest.mark.django_db
HOUR = timedelta(hours=1)
NASTY = ["\x00", "a\x00b", "x" * 500, "@", "%", "_" * 64, "'--", "🦊", "sk-airi-" + "x" * 60]


@pytest.fixture(autouse=True)
def _root(client):
    staff(client, is_superuser=True)


@pytest.fixture
def mio():
    return accounts.user(email="Mio@example.com")


class TestChats:
    def test_are_listed_newest_first_whatever_their_ids_are(self, client, monkeypatch):
        monkeypatch.setattr(ChatPages, "list_per_page", 2)
        ids = ["b", "z", "a", "y", "c"]
        for place, chat_id in enumerate(ids):
            make.chat(chat_id=chat_id, at=make.NOW + (place // 2) * HOUR)

        found = listed(client, "chat")

        assert found == ["c", "y", "a", "z", "b"]

    def test_are_paged_back_the_way_one_came(self, client, monkeypatch):
        monkeypatch.setattr(ChatPages, "list_per_page", 2)
        for chat_id in "abcde":
            make.chat(chat_id=chat_id)
        address = url("chat_changelist")
        second = client.get(address + client.get(address).context["cl"].onward_url)

        first = client.get(address + second.context["cl"].back_url)

        assert [row.pk for row in second.context["cl"].result_list] == ["c", "b"]
        assert [row.pk for row in first.context["cl"].result_list] == ["e", "d"]

    def test_of_one_user_are_in_the_order_they_joined(self, client, mio, monkeypatch):
        monkeypatch.setattr(ChatPages, "list_per_page", 2)
        joined = ["one", "two", "three", "four", "five"]
        for place, chat_id in enumerate(joined):
            chat = make.chat(mio.pk, chat_id=chat_id, at=make.NOW - place * HOUR)
            ChatMember.objects.filter(chat=chat, user_id=mio.pk).update(
                joined_at=make.NOW + place * HOUR
            )
        make.chat(chat_id="foreign")

        for query in ({"q": "mio@EXAMPLE.com"}, {"q": mio.pk}, {"user": mio.pk}):
            assert listed(client, "chat", **query) == joined[::-1]

    def test_are_filtered_alone_and_for_one_user(self, client):
        wanted = make.chat("mio", type="private", at=make.NOW)
        make.chat("mio", type="group", at=make.NOW)
        make.chat("mio", type="private", at=make.NOW + HOUR)
        gone = make.chat("mio", type="private", at=make.NOW)
        Chat.objects.filter(pk=gone.pk).update(deleted_at=make.NOW)
        until = (make.NOW + HOUR / 2).isoformat()

        for more in ({}, {"user": "mio"}, {"q": "mio"}):
            query = {"type": "private", "state": "live", "to": until, **more}
            assert listed(client, "chat", **query) == [wanted.pk]

    def test_are_found_by_id_and_by_a_part_of_the_title(self, client):
        chat = make.chat(title="Summer in Kyoto")
        make.chat(title="Winter")

        found = [listed(client, "chat", q=term) for term in (chat.pk, "mer in KYO", "autumn")]

        assert found == [[chat.pk], [chat.pk], []]

    def test_show_who_made_them_and_how_many_are_in_them(self, client, mio):
        make.chat("zoe", "ren", owner=mio.pk)

        (row,) = client.get(url("chat_changelist")).context["cl"].result_list

        assert (row.email, row.member_count) == ("Mio@example.com", 3)

    @pytest.mark.parametrize("model", ["chat", "chatmessage", "character"])
    def test_survive_whatever_is_typed(self, client, model):
        make.chat()
        one_chat = {"chat": "ria"} if model == "chatmessage" else {}

        for term in NASTY:
            everywhere = dict.fromkeys(("q", "user", "after", "from", *one_chat), term)
            alone = [{"q": term}, {"after": term}, {"before": term, "user": "ria", **one_chat}]
            for given in (everywhere, *alone):
                assert client.get(url(f"{model}_changelist"), given).status_code == 200, given


class TestMessages:
    def test_are_those_of_one_chat_newest_number_first(self, client):
        chat, other = make.chat(), make.chat()
        said = [make.stored(chat, seq).pk for seq in (1, 2, 3)]
        make.stored(other, 1)

        found = [
            listed(client, "chatmessage", **query) for query in ({"chat": chat.pk}, {"q": chat.pk})
        ]

        assert found == [said[::-1]] * 2

    def test_are_nobodys_without_a_chat(self, client):
        make.stored(make.chat(), 1)

        answer = client.get(url("chatmessage_changelist"), {"role": "user"})

        assert answer.context["cl"].result_list == []
        assert "choose it by its id" in answer.content.decode()

    def test_are_filtered_by_role_author_state_and_time(self, client, mio):
        chat = make.chat(mio.pk)
        wanted = make.stored(chat, 1, author_id=mio.pk)
        make.stored(chat, 2)
        make.stored(chat, 3, author_id=mio.pk, role="assistant", sender_id=None)
        make.stored(chat, 4, author_id=mio.pk, content="", deleted_at=make.NOW)
        make.stored(chat, 5, author_id=mio.pk, created_at=make.NOW + HOUR)
        until = (make.NOW + HOUR / 2).isoformat()
        query = {"chat": chat.pk, "role": "user", "state": "live", "to": until}

        for whose in ({"user": mio.pk}, {"q": "mio@example.com"}):
            assert listed(client, "chatmessage", **query, **whose) == [wanted.pk]

    def test_say_how_long_they_are_and_never_what_they_say(self, client):
        message = make.stored(make.chat(), 1, content="klüch")
        pages = [
            client.get(url("chatmessage_changelist"), {"q": message.pk}),
            client.get(url("chatmessage_change", message.pk)),
        ]

        texts = [page.content.decode() for page in pages]

        assert pages[0].context["cl"].result_list[0].size == 6
        assert "6 bytes" in texts[1]
        assert not [text for text in texts if "klüch" in text]


class TestCharacters:
    def test_are_listed_newest_first_alone_and_for_one_owner(self, client, mio, monkeypatch):
        monkeypatch.setattr(CharacterPages, "list_per_page", 2)
        made = [
            make_character.character(owner=mio.pk, at=make.NOW + place * HOUR).pk
            for place in range(5)
        ]
        foreign = make_character.character(at=make.NOW - HOUR).pk

        everybodys = listed(client, "character")
        theirs = [
            listed(client, "character", **query)
            for query in ({"q": "mio@example.com"}, {"q": mio.pk}, {"user": mio.pk})
        ]

        assert everybodys == [*made[::-1], foreign]
        assert theirs == [made[::-1]] * 3

    def test_are_found_by_id_by_any_of_their_names_and_by_state(self, client):
        airi, other = make_character.character(), make_character.character(character_id="Tsundere")
        Translation.objects.filter(character=airi, language="ja").update(name="アイリ")
        Translation.objects.filter(character=other).update(name="Rin")
        Character.objects.filter(pk=other.pk).update(deleted_at=make.NOW)

        for term in (airi.pk, "アイリ", "aIRI", "my-ch"):
            assert listed(client, "character", q=term) == [airi.pk]
        for query in ({"q": "sundere"}, {"q": "rin"}, {"state": "deleted"}):
            assert listed(client, "character", **query) == [other.pk]


class TestExports:
    @pytest.mark.django_db(transaction=True)
    def test_hold_what_lists_show_and_nothing_that_was_said(self, client, mio):
        chat = make.chat(owner=mio.pk)
        make.stored(chat, 1, content="in confidence")
        make_character.character(owner=mio.pk)
        whose = {"chatmessage": {"chat": chat.pk}}

        files = {
            model: exported(client, model, **whose.get(model, {"user": mio.pk}))
            for model in ("chat", "chatmessage", "character")
        }

        for text in files.values():
            (row,) = csv.DictReader(io.StringIO(text))
            assert row["email"] == "Mio@example.com"
            assert "in confidence" not in text
            assert make_character.KEY not in text
        (message,) = csv.DictReader(io.StringIO(files["chatmessage"]))
        # An id that begins with a dash is no formula.
        assert message["chat_id"].removeprefix("'") == chat.pk
        assert (message["seq"], message["size"]) == ("1", "13")


def exported(client, model, **query):
    answer = client.get(url(f"{model}_export", "csv"), query)

    async def read():
        return b"".join([part async for part in answer.streaming_content])

    return asyncio.run(read()).decode()
