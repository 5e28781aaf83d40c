"""The ordinary chat: a group of Ria, who owns it, and of whoever is named."""

from __future__ import annotations

from datetime import UTC, datetime

from airi_server.kernel import ids
from chats import messages, rooms
from chats.messages import MessageDraft, SendResult
from chats.models import Chat, ChatAddition, ChatMember, ChatMessage
from chats.rooms import Someone

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def chat(*others: str, owner: str = "ria", admins: tuple[str, ...] = (), **columns) -> Chat:
    """Make a chat of `owner`, of `admins`, and of the users `others`.

    That people were put into it is not counted: tests make chats by the hundred at one instant.
    """
    made = rooms.create(
        **{
            "caller": owner,
            "at": NOW,
            "members": [Someone("user", user_id) for user_id in (*admins, *others)],
            **columns,
        }
    )
    ChatMember.objects.filter(chat=made, user_id__in=admins).update(role="admin")
    ChatAddition.objects.all().delete()
    return made


def chat_of(chat_id: str) -> Chat:
    return Chat.objects.get(pk=chat_id)


def message(content: str = "hi", **columns) -> MessageDraft:
    return MessageDraft(**{"id": ids.nanoid(), "role": "user", "content": content, **columns})


def member(chat: Chat, user_id: str) -> ChatMember:
    return ChatMember.objects.get(chat=chat, user_id=user_id)


async def say(chat: Chat, *contents: str, caller: str = "ria") -> SendResult:
    """Send one new message for each text."""
    new = [message(content) for content in contents]
    return await messages.send(caller=caller, chat_id=chat.pk, messages=new)


def stored(chat: Chat, seq: int, **columns) -> ChatMessage:
    """Store one message of the chat's creator as if it had been sent."""
    author = columns.setdefault("author_id", chat.created_by)
    ordinary = {"id": ids.nanoid(), "role": "user", "content": "hi", "sender_id": author}
    times = {"created_at": NOW, "updated_at": NOW}
    Chat.objects.filter(pk=chat.pk, last_seq__lt=seq).update(last_seq=seq)
    return ChatMessage.objects.create(chat=chat, seq=seq, **{**ordinary, **times, **columns})


def rows(chat: Chat) -> list[tuple[int, str, str]]:
    """Return number, author and content of everything stored in a chat, tombstones too."""
    stored = ChatMessage.objects.filter(chat=chat).order_by("seq")
    return list(stored.values_list("seq", "author_id", "content"))


def last_seq(chat: Chat) -> int:
    return Chat.objects.get(pk=chat.pk).last_seq
