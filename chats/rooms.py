"""Chats themselves: made, listed, renamed, deleted, and who is in them.

Whatever changes the members holds the chat's lock, so that a send delivers to those who are in
the chat at its commit and to nobody else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from django.db import IntegrityError, transaction
from django.db.models import Q

from airi_server.kernel import ids
from airi_server.kernel.errors import Conflict, InvalidRequest
from chats import membership
from chats.membership import NotAllowed, is_id
from chats.models import Chat, ChatMember

MAX_MEMBERS: Final = 1000
MAX_LISTED: Final = 500
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class ChatExists(Conflict):
    """The id is taken; whether the caller is in that chat makes no difference."""


class TooManyMembers(Conflict):
    """The chat has as many members as any may have."""


@dataclass(frozen=True, slots=True)
class Someone:
    """Who is to become a member: a user by `user_id`, a character or bot by `character_id`."""

    type: str
    user_id: str | None = None
    character_id: str | None = None

    def ensure_named(self) -> None:
        """Refuse what names nobody, or two at once.

        Raises:
            InvalidRequest: Not exactly the one id that belongs to the type.
        """
        is_user = self.type == ChatMember.Type.USER
        named, other = self.user_id, self.character_id
        if not is_user:
            named, other = other, named
        if named is None or other is not None or not is_id(named):
            field = "userId" if is_user else "characterId"
            raise InvalidRequest(f"A {self.type} is named by {field} alone.", param=field)


def create(
    *,
    caller: str,
    at: datetime,
    chat_id: str | None = None,
    type: str = Chat.Type.GROUP,  # noqa: A002  its name on the wire
    title: str | None = None,
    members: Sequence[Someone] = (),
) -> Chat:
    """Make a chat whose owner is the caller, and put the others in; doubles count once.

    Raises:
        ChatExists: There is or was a chat with this id.
        TooManyMembers: More than `MAX_MEMBERS` with the caller.
        InvalidRequest: A member names nobody.
    """
    for someone in members:
        someone.ensure_named()
    others = dict.fromkeys(one for one in members if one.user_id != caller)
    if len(others) >= MAX_MEMBERS:
        raise TooManyMembers(f"A chat may have {MAX_MEMBERS} members.")
    chat = Chat(
        id=chat_id or ids.nanoid(),
        type=type,
        title=title,
        created_by=caller,
        created_at=at,
        updated_at=at,
    )
    try:
        with transaction.atomic():
            chat.save(force_insert=True)
            owner = _row(chat, Someone("user", caller), at, role=ChatMember.Role.OWNER)
            ChatMember.objects.bulk_create([owner, *(_row(chat, one, at) for one in others)])
    except IntegrityError as error:
        if "chat_pkey" in str(error):
            raise ChatExists("There is already a chat with this id.") from error
        raise
    return chat


def of_user(
    *, caller: str, limit: int | None = None, cursor: str | None = None
) -> tuple[list[Chat], str | None]:
    """Return the caller's live chats, last changed first, and the cursor of the next page.

    Raises:
        InvalidRequest: The cursor is not one we gave out.
    """
    page = min(limit or MAX_LISTED, MAX_LISTED)
    chats = Chat.objects.filter(members__user_id=caller, deleted_at__isnull=True)
    if cursor is not None:
        changed_at, last_id = _place(cursor)
        chats = chats.filter(
            Q(updated_at__lt=changed_at) | Q(updated_at=changed_at, id__lt=last_id)
        )
    found = list(chats.order_by("-updated_at", "-id")[: page + 1])
    shown = found[:page]
    return shown, _cursor(shown[-1]) if len(found) > page else None


def details(*, caller: str, chat_id: str) -> tuple[Chat, list[ChatMember]]:
    """Return a chat with its members, in the order in which they joined.

    Raises:
        ChatNotFound, NotAMember: Refused.
    """
    chat, _ = membership.of_caller(caller=caller, chat_id=chat_id)
    members = ChatMember.objects.filter(chat=chat).order_by("joined_at", "id")
    return chat, list(members[:MAX_MEMBERS])


def rename(*, caller: str, chat_id: str, title: str | None, at: datetime) -> Chat:
    """Give the chat another title; owners and admins may. Without a title it only counts as used.

    Raises:
        ChatNotFound, NotAMember, NotAllowed: Refused.
    """
    with transaction.atomic():
        chat, member = membership.of_caller(caller=caller, chat_id=chat_id, lock=True)
        membership.ensure_manager(member)
        chat.title = chat.title if title is None else title
        chat.updated_at = at
        chat.save(update_fields=["title", "updated_at"])
    return chat


def delete(*, caller: str, chat_id: str, at: datetime) -> Chat:
    """Delete the chat for everybody; only its owner may. Nothing can be read or sent after.

    Raises:
        ChatNotFound, NotAMember, NotAllowed: Refused.
    """
    with transaction.atomic():
        chat, member = membership.of_caller(caller=caller, chat_id=chat_id, lock=True)
        if member.role != ChatMember.Role.OWNER:
            raise NotAllowed("Only its owner may delete a chat.")
        chat.deleted_at = chat.updated_at = at
        chat.save(update_fields=["deleted_at", "updated_at"])
    return chat


def add_member(*, caller: str, chat_id: str, someone: Someone, at: datetime) -> ChatMember:
    """Put somebody in; owners and admins may. Who is in already stays as they are.

    Raises:
        ChatNotFound, NotAMember, NotAllowed: Refused.
        TooManyMembers: The chat is full.
        InvalidRequest: It names nobody.
    """
    someone.ensure_named()
    with transaction.atomic():
        chat, member = membership.of_caller(caller=caller, chat_id=chat_id, lock=True)
        membership.ensure_manager(member)
        everybody = ChatMember.objects.filter(chat=chat)
        there = everybody.filter(
            member_type=someone.type, user_id=someone.user_id, character_id=someone.character_id
        )
        known = there.order_by("id").first()
        if known is not None:
            return known
        if everybody.count() >= MAX_MEMBERS:
            raise TooManyMembers(f"A chat may have {MAX_MEMBERS} members.")
        added = _row(chat, someone, at)
        added.save(force_insert=True)
    return added


def set_role(*, caller: str, chat_id: str, member_id: str, role: str) -> ChatMember:
    """Make a user an admin or an ordinary member; only the owner may.

    Raises:
        ChatNotFound, NotAMember, MemberNotFound, NotAllowed: Refused.
        InvalidRequest: The owner keeps that role until they leave, and a character manages nothing.
    """
    with transaction.atomic():
        chat, member = membership.of_caller(caller=caller, chat_id=chat_id, lock=True)
        if member.role != ChatMember.Role.OWNER:
            raise NotAllowed("Only its owner decides who manages a chat.")
        other = membership.member_of(chat, member_id)
        is_user = other.member_type == ChatMember.Type.USER
        if ChatMember.Role.OWNER in (role, other.role) or not is_user:
            raise InvalidRequest("This member cannot have this role.", param="role")
        other.role = role
        other.save(update_fields=["role"])
    return other


def remove_member(*, caller: str, chat_id: str, member_id: str) -> ChatMember:
    """Take a member out: oneself always, others as owner or admin, the owner never.

    When the owner leaves, the oldest admin takes over, else the oldest user. The row that is
    returned is not stored any more.

    Raises:
        ChatNotFound, NotAMember, MemberNotFound, NotAllowed: Refused.
    """
    with transaction.atomic():
        chat, member = membership.of_caller(caller=caller, chat_id=chat_id, lock=True)
        other = membership.member_of(chat, member_id)
        if other.pk != member.pk:
            membership.ensure_manager(member)
            if other.role == ChatMember.Role.OWNER:
                raise NotAllowed("The owner cannot be removed.")
        membership.leave(other)
    return other


def _row(
    chat: Chat, someone: Someone, at: datetime, role: str = ChatMember.Role.MEMBER
) -> ChatMember:
    return ChatMember(
        id=ids.nanoid(),
        chat=chat,
        member_type=someone.type,
        user_id=someone.user_id,
        character_id=someone.character_id,
        role=role,
        joined_at=at,
    )


def _cursor(chat: Chat) -> str:
    return f"{(chat.updated_at - EPOCH) // timedelta(microseconds=1)}.{chat.id}"


def _place(cursor: str) -> tuple[datetime, str]:
    microseconds, _, last_id = cursor.partition(".")
    is_number = microseconds.isascii() and microseconds.isdigit() and len(microseconds) <= 17
    if not is_number or not is_id(last_id):
        raise InvalidRequest("cursor is not one we gave out.", param="cursor")
    return EPOCH + timedelta(microseconds=int(microseconds)), last_id
