"""What is deleted: messages, whole chats, and everything of a user who leaves for good.

Each commit that leaves tombstones or deletes a chat is told to the members' clients
(`chats.fanout`).
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from django.db import connection, transaction

from airi_server.kernel import resources
from airi_server.kernel.errors import NotFound
from chats import fanout, membership
from chats.fanout import ChatEvent
from chats.membership import ChatNotFound, NotAllowed, is_id
from chats.messages import SendResult
from chats.models import Chat, ChatAddition, ChatLeaver, ChatMember, ChatMessage

BURY_MESSAGES_SQL: Final = resources.read_text("chats", "sql/bury_messages.sql")
OWN_CHATS: Final = (Chat.Type.PRIVATE, Chat.Type.BOT)
BATCH: Final = 5000


class MessageNotFound(NotFound):
    """The chat has no such message."""


def delete_message(*, caller: str, chat_id: str, message_id: str, at: datetime) -> SendResult:
    """Leave a tombstone in place of a message; its author may, and owners and admins.

    Deleting again keeps the tombstone's number and nothing is new.

    Raises:
        ChatNotFound, NotAMember, MessageNotFound, NotAllowed: Refused.
    """
    with transaction.atomic():
        chat, member = membership.of_caller(caller=caller, chat_id=chat_id, lock=True)
        messages = ChatMessage.objects.filter(chat=chat, pk=message_id).order_by("id")
        message = messages.first() if is_id(message_id) else None
        if message is None:
            raise MessageNotFound("Message not found")
        if message.author_id != caller and member.role not in membership.MANAGERS:
            raise NotAllowed("Only its author may delete a message.")
        sent = _bury(chat.pk, message.author_id, at, message_id=message.pk)
    if sent.is_new:
        return sent
    return replace(sent, seq=message.seq, from_seq=chat.last_seq + 1, to_seq=chat.last_seq)


def close_chat(*, chat_id: str, at: datetime) -> Chat:
    """Delete a chat as an operator: nobody reads it or sends to it any more. Again: nothing.

    What was said is left to `empty_chat`, which comes after this has committed: sends wait for
    the lock on a chat, but not for a deleted one.

    Raises:
        ChatNotFound: There never was one.
    """
    with transaction.atomic():
        known = Chat.objects.filter(pk=chat_id).order_by("id") if is_id(chat_id) else None
        chat = known.select_for_update(no_key=True).first() if known is not None else None
        if chat is None:
            raise ChatNotFound
        if chat.deleted_at is None:
            _close(chat, at)
    return chat


def empty_chat(*, chat_id: str, at: datetime, most: int) -> int:
    """Erase what was said in a deleted chat, and return how many messages became tombstones.

    At most about so many, in batches that are transactions of their own: with fewer there is
    nothing left, otherwise it goes on from there when it is called again.
    """
    emptied = 0
    while emptied < most:
        count = _buried_some(chat_id, None, at)
        emptied += count
        if count < BATCH:
            break
    return emptied


def delete_user_data(*, user_id: str, at: datetime) -> None:
    """Delete what a user leaves behind in chats; doing it again changes nothing.

    Private chats and chats with characters are deleted, with every message the user has pushed
    there. In groups and channels the membership ends and the messages stay, under an id that
    belongs to nobody any more. Chat by chat, each in its own transaction. Which chats they have
    left before, and how many people were put into chats by them, is forgotten too.
    """
    ChatLeaver.objects.filter(user_id=user_id).delete()
    ChatAddition.objects.filter(user_id=user_id).delete()
    memberships = ChatMember.objects.filter(user_id=user_id).order_by("chat_id")
    for chat_id in list(memberships.values_list("chat_id", flat=True)):
        with transaction.atomic():
            chat = Chat.objects.select_for_update(no_key=True).get(pk=chat_id)
            if chat.type not in OWN_CHATS:
                for member in ChatMember.objects.filter(chat=chat, user_id=user_id):
                    membership.leave(member)
                continue
            if chat.deleted_at is None:
                _close(chat, at)
        # Only now: sends do not wait for a deleted chat.
        while _buried_some(chat_id, user_id, at):
            pass


def _close(chat: Chat, at: datetime) -> None:
    chat.deleted_at = chat.updated_at = at
    chat.save(update_fields=["deleted_at", "updated_at"])
    fanout.publish_deletion(chat)


def _buried_some(chat_id: str, author_id: str | None, at: datetime) -> int:
    with transaction.atomic():
        Chat.objects.select_for_update(no_key=True).get(pk=chat_id)
        sent = _bury(chat_id, author_id, at)
    return sent.to_seq - sent.from_seq + 1


def _bury(
    chat_id: str, author_id: str | None, at: datetime, *, message_id: str | None = None
) -> SendResult:
    """Run `bury_messages.sql` under the chat's lock; have its numbers told with the commit."""
    params: dict[str, Any] = {
        "chat_id": chat_id,
        "author_id": author_id,
        "message_id": message_id,
        "page": BATCH,
        "at": at,
    }
    with connection.cursor() as cursor:
        cursor.execute(BURY_MESSAGES_SQL, params)
        numbers = sorted(row[0] for row in cursor.fetchall())
    members = tuple(membership.user_ids(chat_id))
    if not numbers:
        return SendResult(0, 1, 0, is_new=False, members=members)
    sent = SendResult(numbers[-1], numbers[0], numbers[-1], is_new=True, members=members)
    fanout.publish_on_commit(ChatEvent.of_sent(chat_id, sent))
    return sent
