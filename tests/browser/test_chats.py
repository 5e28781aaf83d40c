"""Chats in a browser: found, looked at, read with a reason, deleted; and who is connected."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from accounts.models import User
from airi_server.runtime.audit import AuditEntry
from chats.models import Chat
from chats.rooms import Someone
from tests.browser import people
from tests.browser.chromium import Page, Watch, expect
from tests.factories import characters
from tests.factories import chats as make

LOOK = ("chats.view_chat", "chats.view_chatmessage", "chats.view_character", "accounts.view_user")
READ = "chats.read_messages"
SAID = [
    ("user", "Where shall we go this summer?"),
    ("assistant", "Kyoto, of course!\nThe Gion festival is in July."),
    ("user", "And where would we stay?"),
    ("assistant", "A machiya near the river. It has a small garden."),
]


@pytest.fixture
def mio() -> User:
    return people.person("mio")


@pytest.fixture
def room(mio) -> Chat:
    """Mio's chat with a friend and a character, two days old."""
    friend, at = people.person("zoe"), timezone.now() - timedelta(days=2)
    airi = characters.character(owner=mio.pk, character_id="airi")
    chat = make.chat(
        friend.pk, owner=mio.pk, title="Summer in Kyoto", at=at,
        members=[Someone("user", friend.pk), Someone("character", None, airi.pk)],
    )  # fmt: skip
    for place, (role, content) in enumerate(SAID, 1):
        then = at + timedelta(minutes=place)
        sender = {} if role == "user" else {"sender_id": None}
        times = {"created_at": then, "updated_at": then}
        make.stored(chat, place, role=role, content=content, **sender, **times)
    return chat


def page_of(chat: Chat) -> str:
    return f"/admin/chats/chat/{chat.pk.replace('_', '_5F')}/change/"


def submit(page: Page, name: str) -> None:
    page.locator("form").get_by_role("button", name=name, exact=True).click()


def test_a_chat_is_found_by_a_members_address(console, shot, room, mio):
    page = console(*LOOK, path="/admin/chats/chat/")

    page.goto(f"/admin/chats/chat/?q={mio.email}")

    row = page.locator("#result_list tbody tr")
    expect(row).to_have_count(1)
    shot("chats")
    row.get_by_role("link", name="Summer in Kyoto").click()
    expect(page.locator("#members tbody tr")).to_have_count(3)
    expect(page.get_by_text(mio.email).first).to_be_visible()
    expect(page.get_by_text("Gion")).to_have_count(0)


def test_messages_are_read_once_with_a_reason(console, shot, room):
    page = console(*LOOK, READ, "chats.delete_chat", path=page_of(room))
    shot("chats-one")

    page.get_by_role("link", name="Read messages", exact=True).click()
    submit(page, "Read messages")
    expect(page.get_by_text("This field is required")).to_be_visible()
    page.get_by_label("Reason").fill("Zoe reported message 2")
    shot("chats-read-form")
    submit(page, "Read messages")

    expect(page.locator("#said tbody tr")).to_have_count(4)
    expect(page.get_by_text("The Gion festival is in July.")).to_be_visible()
    shot("chats-read")
    entry = AuditEntry.objects.get(action=READ, subject_id=room.pk)
    assert entry.sentence == "Read the messages 1 to 4: Zoe reported message 2"
    page.get_by_role("link", name="Back to the chat").click()
    expect(page.get_by_text("Read the messages 1 to 4: Zoe reported message 2")).to_be_visible()


def test_the_page_of_a_chat_is_as_good_in_the_dark(console, shot, room):
    page = console(*LOOK, READ)
    page.emulate_media(color_scheme="dark")

    page.goto(page_of(room))

    expect(page.locator("html")).to_have_class("dark")
    background = page.locator("body").evaluate("e => getComputedStyle(e).backgroundColor")
    assert background != "rgb(255, 255, 255)"
    shot("chats-dark")


def test_the_messages_of_a_chat_are_listed_without_what_they_say(console, shot, room):
    page = console(*LOOK, path=page_of(room))

    page.get_by_role("link", name="Who sent what when").click()

    expect(page.locator("#result_list tbody tr")).to_have_count(4)
    expect(page.get_by_text("Kyoto")).to_have_count(0)
    shot("chats-messages")
    page.locator("#result_list tbody tr").first.get_by_role("link").first.click()
    expect(page.get_by_text("bytes, which you may not read")).to_be_visible()


def test_a_chat_is_deleted_with_a_reason(console, room):
    page = console(*LOOK, "chats.delete_chat", path=page_of(room))

    page.get_by_role("link", name="Delete", exact=True).click()
    page.get_by_label("Reason").fill("their lawyer asked")
    submit(page, "Delete the chat")

    expect(page.get_by_text("Messages erased: 4").first).to_be_visible()
    expect(page.get_by_role("link", name="Delete", exact=True)).to_have_count(0)
    assert [content for _, _, content in make.rows(room)] == [""] * 4


def test_a_character_is_shown_without_its_keys_and_deleted(console, shot, mio):
    airi = characters.character(owner=mio.pk, character_id="airi")
    page = console(*LOOK, "chats.delete_character", path=f"/admin/chats/character/?q={mio.email}")
    page.locator("#result_list tbody tr").get_by_role("link", name="airi").click()
    expect(page.locator("#translations tbody tr")).to_have_count(2)
    assert characters.KEY not in page.content()
    shot("chats-character")

    page.get_by_role("link", name="Delete", exact=True).click()
    page.get_by_label("Reason").fill("pretends to be somebody")
    submit(page, "Delete the character")

    expect(page.get_by_text("Nobody sees the character any more").first).to_be_visible()
    airi.refresh_from_db()
    assert airi.deleted_at is not None


def test_who_may_only_look_finds_no_buttons(console, watch: Watch, room):
    page = console(*LOOK, path=page_of(room))

    for name in ("Read messages", "Delete"):
        expect(page.get_by_role("link", name=name, exact=True)).to_have_count(0)
    watch.allow(403)
    for action in ("read", "remove"):
        answer = page.goto(page_of(room).replace("change", action))
        assert answer is not None
        assert answer.status == 403


def test_the_start_page_says_who_is_connected(console, shot):
    page = console("chats.view_chat", path="/admin/")

    row = page.locator("#connections tbody tr")

    expect(row).to_have_count(1)
    expect(row.locator("td.number")).to_have_text(["0", "0"])
    shot("chats-connections")
