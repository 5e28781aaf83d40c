"""Chats themselves: made, listed, renamed, deleted, and who is in them.

Whatever changes the members holds the chat's lock, so that a send delivers to those who are in
the chat at its commit and to nobody else. Whoever leaves comes back by themselves or not at all
(ADR 0030).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from django.db import IntegrityError, transaction
from django.db.models import Q

from airi_server.kernel import ids
from airi_server.kernel.errors import Conflict, Forbidden, InvalidRequest
from chats import additions, fanout, membership, options, telemetry
from chats.membership import NotAllowed, NotAMember, is_id
from chats.models import Chat, ChatLeaver, ChatMember

MAX_MEMBERS: Final = options.MAX_MEMBERS
MAX_LISTED: Final = 500
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class ChatExists(Conflict):
    """The id is taken; whether the caller is in that chat makes no difference."""


class TooManyMembers(Conflict):
    """The chat has as many members as any may have."""


class HasLeft(Forbidden):
    """They left this chat by themselves, and only they can come back."""

    def __init__(self) -> None:
        super().__init__("They left this chat: only they can come back to it.")


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
        TooManyMembers: More than a chat may have with the caller.
        StrangersKeptOut, TooManyAdditions: Refused (`chats.additions`).
        InvalidRequest: A member names nobody.
    """
    for someone in members:
        someone.ensure_named()
    others = dict.fromkeys(one for one in members if one.user_id != caller)
    if others:
        _ensure_room(len(others) + 1)
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
            # First: a client that repeats itself is told that the chat is there.
            chat.save(force_insert=True)
            people = [one.user_id for one in others if one.user_id is not None]
            additions.count(caller=caller, user_ids=people, at=at)
            owner = _row(chat, Someone("user", caller), at, role=ChatMember.Role.OWNER)
            ChatMember.objects.bulk_create([owner, *(_guest(chat, one, at) for one in others)])
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

    The members' clients are told with the commit.

    Raises:
        ChatNotFound, NotAMember, NotAllowed: Refused.
    """
    with transaction.atomic():
        chat, member = membership.of_caller(caller=caller, chat_id=chat_id, lock=True)
        if member.role != ChatMember.Role.OWNER:
            raise NotAllowed("Only its owner may delete a chat.")
        chat.deleted_at = chat.updated_at = at
        chat.save(update_fields=["deleted_at", "updated_at"])
        fanout.publish_deletion(chat)
    return chat


def add_member(*, caller: str, chat_id: str, someone: Someone, at: datetime) -> ChatMember:
    """Put somebody in; owners and admins may. Who is in already stays as they are.

    Whoever names themselves comes back to a chat that they left.

    Raises:
        ChatNotFound, NotAMember, NotAllowed: Refused.
        HasLeft: They left by themselves.
        TooManyMembers: The chat is full.
        StrangersKeptOut, TooManyAdditions: Refused (`chats.additions`).
        InvalidRequest: It names nobody.
    """
    someone.ensure_named()
    if someone.user_id == caller:
        return _come_back(caller, chat_id, at)
    with transaction.atomic():
        chat, member = membership.of_caller(caller=caller, chat_id=chat_id, lock=True)
        membership.ensure_manager(member)
        there = ChatMember.objects.filter(
            chat=chat,
            member_type=someone.type,
            user_id=someone.user_id,
            character_id=someone.character_id,
        )
        known = there.order_by("id").first()
        if known is not None:
            return known
        if ChatLeaver.objects.filter(chat=chat, user_id=someone.user_id).exists():
            telemetry.addition_refused("left")
            raise HasLeft
        _ensure_room(ChatMember.objects.filter(chat=chat).count() + 1)
        if someone.user_id is not None:
            additions.count(caller=caller, user_ids=[someone.user_id], at=at)
        added = _guest(chat, someone, at)
        added.save(force_insert=True)
    return added


def _come_back(caller: str, chat_id: str, at: datetime) -> ChatMember:
    """Put a caller in who has left, as an ordinary member; as the owner if nobody owns the chat."""
    with transaction.atomic():
        chat = membership.live_chat(chat_id, lock=True)
        everybody = ChatMember.objects.filter(chat=chat)
        known = everybody.filter(user_id=caller).order_by("id").first()
        if known is not None:
            return known
        if not ChatLeaver.objects.filter(chat=chat, user_id=caller).delete()[0]:
            raise NotAMember
        _ensure_room(everybody.count() + 1)
        is_owned = everybody.filter(role=ChatMember.Role.OWNER).exists()
        role = ChatMember.Role.MEMBER if is_owned else ChatMember.Role.OWNER
        returned = _row(chat, Someone("user", caller), at, role=role)
        returned.save(force_insert=True)
    return returned


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

    When the owner leaves, the oldest admin takes over, else the oldest user. Whoever leaves by
    themselves is not put in again by others; whoever was taken out may be. The row that is returned
    is not stored any more.

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
        if other.pk == member.pk:
            ChatLeaver.objects.create(chat=chat, user_id=caller)
    return other


def _ensure_room(members: int) -> None:
    """Let a chat have so many members.

    Raises:
        TooManyMembers: It may have fewer.
    """
    most = min(MAX_MEMBERS, options.CHAT_MEMBERS.read())
    if members > most:
        telemetry.addition_refused("full")
        raise TooManyMembers(f"A chat may have {most:,} members.")


def _guest(chat: Chat, someone: Someone, at: datetime) -> ChatMember:
    """Return the row of somebody whom another user puts in."""
    guest = _row(chat, someone, at)
    guest.is_silent = someone.user_id is not None
    return guest


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
