"""What is deleted: single messages, and everything of a user who leaves for good."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from django.db import connection, transaction

from airi_server.kernel import resources
from airi_server.kernel.errors import NotFound
from chats import membership
from chats.membership import NotAllowed, is_id
from chats.messages import Sent
from chats.models import Chat, ChatMember, ChatMessage

BURY_MESSAGES_SQL: Final = resources.read_text("chats", "sql/bury_messages.sql")
OWN_CHATS: Final = (Chat.Type.PRIVATE, Chat.Type.BOT)
BATCH: Final = 5000


class MessageNotFound(NotFound):
    """The chat has no such message."""


def delete_message(*, caller: str, chat_id: str, message_id: str, at: datetime) -> Sent:
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
        buried = _bury(chat.pk, message.author_id, at, message_id=message.pk)
        users = ChatMember.objects.filter(chat=chat, user_id__isnull=False)
        members = tuple(str(user_id) for user_id in users.values_list("user_id", flat=True))
    if buried:
        return Sent(buried[0], buried[0], buried[0], is_new=True, members=members)
    return Sent(message.seq, chat.last_seq + 1, chat.last_seq, is_new=False, members=members)


def delete_user_data(*, user_id: str, at: datetime) -> None:
    """Delete what a user leaves behind in chats; doing it again changes nothing.

    Private chats and chats with characters are deleted, with every message the user has pushed
    there. In groups and channels the membership ends and the messages stay, under an id that
    belongs to nobody any more. Chat by chat, each in its own transaction.
    """
    memberships = ChatMember.objects.filter(user_id=user_id).order_by("chat_id")
    for chat_id in list(memberships.values_list("chat_id", flat=True)):
        with transaction.atomic():
            chat = Chat.objects.select_for_update(no_key=True).get(pk=chat_id)
            if chat.type not in OWN_CHATS:
                for member in ChatMember.objects.filter(chat=chat, user_id=user_id):
                    membership.leave(member)
                continue
            if chat.deleted_at is None:
                chat.deleted_at = chat.updated_at = at
                chat.save(update_fields=["deleted_at", "updated_at"])
        # Only now: sends do not wait for a deleted chat.
        while _buried_some(chat_id, user_id, at):
            pass


def _buried_some(chat_id: str, user_id: str, at: datetime) -> bool:
    with transaction.atomic():
        Chat.objects.select_for_update(no_key=True).get(pk=chat_id)
        return bool(_bury(chat_id, user_id, at))


def _bury(
    chat_id: str, author_id: str, at: datetime, *, message_id: str | None = None
) -> list[int]:
    """Run `bury_messages.sql` under the chat's lock and return the tombstones' numbers."""
    params: dict[str, Any] = {
        "chat_id": chat_id,
        "author_id": author_id,
        "message_id": message_id,
        "page": BATCH,
        "at": at,
    }
    with connection.cursor() as cursor:
        cursor.execute(BURY_MESSAGES_SQL, params)
        return sorted(row[0] for row in cursor.fetchall())
