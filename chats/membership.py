"""Membership: who is in a chat and what it lets them do; every look-up takes the caller."""

from __future__ import annotations

import re
from typing import Final

from airi_server.kernel.errors import Forbidden, NotFound
from chats.models import ID_PATTERN, Chat, ChatMember

SUCCESSION: Final = (ChatMember.Role.ADMIN, ChatMember.Role.MEMBER)
MANAGERS: Final = (ChatMember.Role.OWNER, ChatMember.Role.ADMIN)


class ChatNotFound(NotFound):
    """There is no such chat, or it was deleted."""

    def __init__(self) -> None:
        super().__init__("Chat not found")


class MemberNotFound(NotFound):
    """The chat has no such member."""

    def __init__(self) -> None:
        super().__init__("Member not found")


class NotAMember(Forbidden):
    """The caller is not in the chat."""

    def __init__(self) -> None:
        super().__init__("You are not a member of this chat.")


class NotAllowed(Forbidden):
    """The caller is in the chat, but their role does not let them do this."""


def is_id(text: str) -> bool:
    """Return whether a chat, a member or a message can have this id."""
    return re.fullmatch(ID_PATTERN, text, re.ASCII) is not None


def of_caller(*, caller: str, chat_id: str, lock: bool = False) -> tuple[Chat, ChatMember]:
    """Return a live chat and the caller's own row in it.

    With `lock` nobody else numbers messages or changes members until the transaction ends, and
    the caller's row is read after that lock was taken.

    Raises:
        ChatNotFound, NotAMember: Refused.
    """
    chat = live_chat(chat_id, lock=lock)
    member = ChatMember.objects.filter(chat=chat, user_id=caller).order_by("id").first()
    if member is None:
        raise NotAMember
    return chat, member


def live_chat(chat_id: str, *, lock: bool = False) -> Chat:
    """Return a chat that was not deleted, whoever is in it.

    Raises:
        ChatNotFound: There is none.
    """
    chats = Chat.objects.filter(deleted_at__isnull=True)
    if lock:
        chats = chats.select_for_update(no_key=True)
    chat = chats.filter(pk=chat_id).order_by("id").first() if is_id(chat_id) else None
    if chat is None:
        raise ChatNotFound
    return chat


def ensure_manager(member: ChatMember) -> None:
    """Let owners and admins pass.

    Raises:
        NotAllowed: The role is another.
    """
    if member.role not in MANAGERS:
        raise NotAllowed("Only owners and admins of this chat may do that.")


def member_of(chat: Chat, member_id: str) -> ChatMember:
    """Return a member by the id of their row.

    Raises:
        MemberNotFound: The chat has no such member.
    """
    members = ChatMember.objects.filter(chat=chat, pk=member_id).order_by("id")
    member = members.first() if is_id(member_id) else None
    if member is None:
        raise MemberNotFound
    return member


def user_ids(chat_id: str) -> list[str]:
    """Return who is in a chat, without its characters and bots."""
    users = ChatMember.objects.filter(chat_id=chat_id, user_id__isnull=False)
    return [str(user_id) for user_id in users.values_list("user_id", flat=True)]


def leave(member: ChatMember) -> None:
    """Take a member out, and find the next owner; the caller holds the chat's lock."""
    ChatMember.objects.filter(pk=member.pk).delete()
    if member.role != ChatMember.Role.OWNER:
        return
    users = ChatMember.objects.filter(chat_id=member.chat_id, member_type=ChatMember.Type.USER)
    for role in SUCCESSION:
        heir = users.filter(role=role).order_by("joined_at", "id").first()
        if heir is not None:
            heir.role = ChatMember.Role.OWNER
            heir.save(update_fields=["role"])
            return
