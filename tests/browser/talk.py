"""What people do on the chat page, and what another program of theirs does meanwhile."""

from __future__ import annotations

import orjson
from django.utils import timezone
from websockets.sync.client import connect

from chats import deletion
from chats.models import ChatMessage
from tests.browser.chromium import Locator, Page, expect
from tests.chats.clients import minimal
from tests.factories.gateway import Caller


def say(page: Page, text: str) -> None:
    page.get_by_label("Message", exact=True).fill(text)
    page.keyboard.press("Enter")


def ask(page: Page, text: str) -> None:
    """Say something, and wait until the answer is stored."""
    before = said(page).count()
    say(page, text)
    expect(said(page)).to_have_count(before + 2)
    expect(page.get_by_role("button", name="Send")).to_be_visible()


def said(page: Page) -> Locator:
    return page.locator("#messages .said")


def notes(page: Page) -> Locator:
    return page.locator("#messages .who")


def stored(caller: Caller, content: str) -> ChatMessage:
    """Return the one message of this person with this text."""
    return ChatMessage.objects.get(author_id=caller.user_id, content=content)


def edit(server, caller: Caller, message: ChatMessage, content: str) -> None:
    """Send a message again with other words, as another program of the same person would."""
    new = {"id": message.pk, "role": message.role, "content": content}
    body = {"invokeId": "edit", "content": {"chatId": message.chat_id, "messages": [new]}}
    url = f"ws://127.0.0.1:{server.port}/ws/chat?token={caller.key}"
    with connect(url, proxy=None) as socket:
        socket.send(minimal("chat:send-messages-send", body))
        while not orjson.loads(socket.recv(timeout=5))["type"].endswith("-receive-edit"):
            pass


def delete(caller: Caller, message: ChatMessage) -> None:
    """Leave a tombstone, of which nobody is told."""
    deletion.delete_message(
        caller=caller.user_id,
        chat_id=message.chat_id,
        message_id=message.pk,
        at=timezone.now(),
    )
