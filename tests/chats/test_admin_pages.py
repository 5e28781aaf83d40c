"""The console's pages of one chat and one character, and what operators do on them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from airi_server.runtime.audit import AuditEntry
from chats import deletion, rooms
from chats.admin import chats
from chats.characters.models import AvatarModel, Capability, Character, Prompt
from chats.models import Chat, ChatMessage
from tests.airi_server.console import staff
from tests.chats.console import url
from tests.factories import accounts
from tests.factories import characters as make_character
from tests.factories import chats as make

pytestmark = pytest.mark.django_db
WHY = {"reason": "complaint 7"}


@pytest.fixture
def mio():
    return accounts.user(email="Mio@example.com")


@pytest.fixture
def room(mio):
    """Mio's chat with Ria, three messages long; the second is deleted."""
    chat = make.chat("ria", owner=mio.pk, title="Kyoto")
    make.stored(chat, 1, content="first <b>words</b>")
    make.stored(chat, 3, content="last words", author_id="ria")
    make.stored(chat, 4, content="", deleted_at=make.NOW)
    return chat


def audited():
    newest = AuditEntry.objects.order_by("-id")[0]
    return newest.action, newest.subject_id, newest.sentence, newest.facts


class TestPageOfAChat:
    def test_says_who_is_in_it_and_how_far_it_has_come(self, client, room, mio):
        staff(client, "chats.view_chat")

        answer = client.get(url("chat_change", room.pk))

        page = answer.content.decode()
        assert answer.context["counts"][:2] == (2, 1)
        assert [email for _, email, _ in answer.context["members"]] == ["Mio@example.com", ""]
        for fact in ("Kyoto", room.pk, "Mio@example.com", "no such user any more", "Newest number"):
            assert fact in page
        assert "words" not in page

    def test_says_who_left_by_themselves_and_who_was_only_put_in(self, client, room, mio):
        staff(client, "chats.view_chat")
        before = client.get(url("chat_change", room.pk)).content.decode()
        ria = make.member(room, "ria")
        rooms.remove_member(caller="ria", chat_id=room.pk, member_id=ria.pk)

        answer = client.get(url("chat_change", room.pk))

        assert "has sent nothing since" in before
        assert "Left by themselves" not in before
        ((leaver, email, _),) = answer.context["leavers"]
        assert (leaver.user_id, email) == ("ria", "")
        assert "Left by themselves" in answer.content.decode()

    def test_counts_no_further_than_that_is_quick(self, client, room, monkeypatch):
        monkeypatch.setattr(chats, "MAX_COUNTED", 2)
        staff(client, "chats.view_chat")

        answer = client.get(url("chat_change", room.pk))

        assert answer.context["counts"] == (2, 1, True)
        assert "More than" in answer.content.decode()

    def test_of_one_with_an_underscore_in_its_id_opens_like_any_other(self, client):
        staff(client, is_superuser=True)
        make.chat(chat_id="a_5Fb_c")

        for page in ("chat_change", "chat_history", "chat_read", "chat_remove"):
            assert client.get(url(page, "a_5Fb_c")).status_code == 200

    @pytest.mark.parametrize("page", ["chat_change", "chatmessage_change", "character_change"])
    def test_of_what_is_not_there_leads_to_the_start(self, client, page):
        staff(client, is_superuser=True)

        for key in ("missing", "\x00", "x" * 500):
            assert client.get(url(page, key)).status_code == 302

    @pytest.mark.parametrize("page", ["chat_read", "chat_remove", "character_remove"])
    def test_of_an_action_on_nothing_is_not_found(self, client, page):
        staff(client, is_superuser=True)

        assert client.post(url(page, "missing"), WHY).status_code == 404

    def test_offers_what_the_operator_may_do(self, client, room):
        staff(client, "chats.view_chat")
        plain = client.get(url("chat_change", room.pk)).content.decode()
        staff(client, "chats.view_chat", "chats.read_messages", "chats.delete_chat")
        full = client.get(url("chat_change", room.pk)).content.decode()

        for page in ("chat_read", "chat_remove"):
            assert url(page, room.pk) not in plain
            assert url(page, room.pk) in full


class TestReading:
    @pytest.fixture(autouse=True)
    def _reader(self, client):
        staff(client, "chats.view_chat", "chats.read_messages")

    def read(self, client, room, **changes):
        return client.post(url("chat_read", room.pk), {"first": 1, "last": 4, **WHY, **changes})

    def test_shows_a_range_once_and_writes_down_who_why_and_which(self, client, room):
        answer = self.read(client, room)

        page = answer.content.decode()
        assert "first &lt;b&gt;words&lt;/b&gt;" in page
        assert "last words" in page
        assert "no-store" in answer["Cache-Control"]
        action, subject, sentence, facts = audited()
        assert (action, subject) == ("chats.read_messages", room.pk)
        assert sentence == "Read the messages 1 to 4: complaint 7"
        assert facts == {"first": 1, "last": 4, "shown": 3, "reason": "complaint 7"}

    def test_shows_no_more_than_was_asked_for(self, client, room):
        page = self.read(client, room, last=2).content.decode()

        assert "first" in page
        assert "last words" not in page

    @pytest.mark.parametrize(
        "mistake",
        [
            {"reason": ""}, {"reason": " "}, {"reason": "x" * 501}, {"reason": "a\x00"},
            {"first": 0}, {"first": ""}, {"first": 10**30}, {"last": 0}, {"last": 51},
            {"first": 3, "last": 2}, {"first": "abc"},
        ],
    )  # fmt: skip
    def test_shows_nothing_without_a_reason_and_a_range(self, client, room, mistake):
        page = self.read(client, room, **mistake)

        assert page.context["form"].errors
        assert "words" not in page.content.decode()
        assert not AuditEntry.objects.filter(action="chats.read_messages").exists()

    def test_begins_with_the_newest_or_with_the_one_it_was_asked_for(self, client, room):
        Chat.objects.filter(pk=room.pk).update(last_seq=120)
        asked = [client.get(url("chat_read", room.pk), {"seq": seq}) for seq in ("", "7", "٣", "x")]

        initial = [tuple(each.context["form"].initial.values()) for each in asked]

        assert initial == [(71, 120), (7, 7), (71, 120), (71, 120)]

    def test_shows_nothing_of_another_chat(self, client, room):
        make.stored(make.chat(), 2, content="foreign words")

        assert "foreign" not in self.read(client, room).content.decode()

    def test_is_refused_to_who_may_only_look(self, client, room):
        staff(client, "chats.view_chat", "chats.view_chatmessage", "chats.delete_chat")

        answers = [client.get(url("chat_read", room.pk)), self.read(client, room)]

        assert [answer.status_code for answer in answers] == [403, 403]
        message = ChatMessage.objects.get(seq=1)
        page = client.get(url("chatmessage_change", message.pk)).content.decode()
        assert url("chat_read", room.pk) not in page


@pytest.mark.django_db(transaction=True)
class TestDeletingAChat:
    @pytest.fixture(autouse=True)
    def _operator(self, client):
        staff(client, "chats.view_chat", "chats.delete_chat")

    def test_takes_a_reason(self, client, room):
        client.post(url("chat_remove", room.pk), {"reason": ""})

        assert Chat.objects.get(pk=room.pk).deleted_at is None

    def test_erases_what_was_said_and_keeps_who_and_when(self, client, room, mio):
        answer = client.post(url("chat_remove", room.pk), WHY, follow=True)

        assert "Deleted. Messages erased: 2." in answer.content.decode()
        assert Chat.objects.get(pk=room.pk).deleted_at is not None
        assert make.rows(room) == [(4, mio.pk, ""), (5, mio.pk, ""), (6, "ria", "")]
        action, subject, sentence, facts = audited()
        assert (action, subject) == ("chats.delete_chat", room.pk)
        assert sentence == "Deleted the chat: complaint 7"
        assert facts == {"reason": "complaint 7", "newest_number": 4}
        assert url("chat_remove", room.pk) not in answer.content.decode()

    def test_of_a_long_one_goes_on_with_the_next_press(self, client, room, monkeypatch):
        monkeypatch.setattr(deletion, "BATCH", 1)
        monkeypatch.setattr(chats, "MAX_EMPTIED", 1)
        first = client.post(url("chat_remove", room.pk), WHY, follow=True).content.decode()
        deleted_at = Chat.objects.get(pk=room.pk).deleted_at

        client.post(url("chat_remove", room.pk), WHY)

        assert "press “Delete” again" in first
        assert "still to be erased: 1" in first
        assert url("chat_remove", room.pk) in first
        assert not ChatMessage.objects.exclude(content="").exists()
        assert Chat.objects.get(pk=room.pk).deleted_at == deleted_at


class TestCharacters:
    @pytest.fixture
    def airi(self, mio):
        return make_character.character(owner=mio.pk)

    def test_are_shown_with_all_their_parts_and_without_the_keys(self, client, airi):
        staff(client, "chats.view_character")
        at = datetime(2026, 1, 1, tzinfo=UTC)
        Prompt.objects.create(
            character=airi, position=0, language="en", type="system", content="Be kind."
        )
        AvatarModel.objects.create(
            character=airi, position=0, name="body", type="vrm", description="tall",
            config={"vrm": {"urls": ["https://example.com/a.vrm"]}}, created_at=at, updated_at=at,
        )  # fmt: skip
        sealed = Capability.objects.get(character=airi).sealed_config

        page = client.get(url("character_change", airi.pk)).content.decode()

        for fact in ("Mio@example.com", "Be kind.", "body", "a.vrm", "Language model", "Airi"):
            assert fact in page
        assert make_character.KEY not in page
        assert sealed[12:] not in page
        assert url("character_remove", airi.pk) not in page

    def test_are_deleted_once_with_a_reason(self, client, airi):
        staff(client, "chats.view_character", "chats.delete_character")
        client.post(url("character_remove", airi.pk), {"reason": ""})
        assert Character.objects.get(pk=airi.pk).deleted_at is None

        done = client.post(url("character_remove", airi.pk), WHY, follow=True)
        again = client.post(url("character_remove", airi.pk), WHY)

        assert "Nobody sees the character" in done.content.decode()
        assert url("character_remove", airi.pk) not in done.content.decode()
        assert Character.objects.get(pk=airi.pk).deleted_at is not None
        assert audited()[:3] == (
            "chats.delete_character",
            airi.pk,
            "Deleted the character: complaint 7",
        )
        assert again.context["form"].non_field_errors() == ["Character not found"]
