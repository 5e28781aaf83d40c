"""`/api/v1/chats`: chats and their members. Messages travel over the socket."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, Self

from django.utils import timezone
from ninja import Query, Router, Status
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints
from pydantic.alias_generators import to_camel

from accounts.auth import AuthedRequest
from airi_server.kernel.schemas import ErrorBody, Instant
from chats import rooms
from chats.models import ID_PATTERN, MAX_TITLE, Chat, ChatMember
from chats.rooms import Someone

MAX_MEMBERS_AT_ONCE: Final = 200

ChatType = Literal["private", "bot", "group", "channel"]


def _storable(text: str) -> str:
    """Refuse what PostgreSQL cannot keep: NUL, and halves of surrogate pairs."""
    if "\x00" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
        raise ValueError("must not contain NUL or lone surrogates")
    return text


Id = Annotated[str, StringConstraints(pattern=ID_PATTERN)]
Title = Annotated[str, StringConstraints(max_length=MAX_TITLE), AfterValidator(_storable)]


class _In(BaseModel):
    model_config = ConfigDict(strict=True, alias_generator=to_camel)


class _Out(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)


class MemberIn(_In):
    """A user by `userId`; a character or a bot by `characterId`."""

    type: Literal["user", "character", "bot"]
    user_id: Id | None = None
    character_id: Id | None = None

    def someone(self) -> Someone:
        return Someone(self.type, self.user_id, self.character_id)


class RoleIn(_In):
    role: Literal["admin", "member"]


class ChatIn(_In):
    """A chat to make; the client may choose the id."""

    id: Id | None = None
    type: ChatType = "group"
    title: Title | None = None
    members: Annotated[list[MemberIn], Field(max_length=MAX_MEMBERS_AT_ONCE)] = []


class ChatPatch(_In):
    title: Title = Field(default="", json_schema_extra={"default": None})


class NewChatOut(_Out):
    id: str
    type: ChatType
    title: str | None
    created_at: Instant
    updated_at: Instant

    @classmethod
    def of(cls, chat: Chat, /, **more: Any) -> Self:
        facts = {name: getattr(chat, name) for name in cls.model_fields if name not in more}
        return cls(**facts, **more)


class ChatOut(NewChatOut):
    deleted_at: Instant | None


class MemberOut(_Out):
    """A member; `id` names the membership, not the person."""

    id: str
    chat_id: str
    member_type: Literal["user", "character", "bot"]
    user_id: str | None
    character_id: str | None
    role: Literal["owner", "admin", "member"]

    @classmethod
    def of(cls, member: ChatMember) -> Self:
        return cls(**{name: getattr(member, name) for name in cls.model_fields})


class ChatWithMembersOut(ChatOut):
    members: list[MemberOut]


class ChatsOut(_Out):
    """Chats, last changed first; `nextCursor` is null on the last page."""

    chats: list[ChatOut]
    next_cursor: str | None


router = Router(tags=["Chats"], by_alias=True)

REFUSALS: Final[dict[int, Any]] = dict.fromkeys((400, 401, 403), ErrorBody)
OF_ONE: Final[dict[int, Any]] = {**REFUSALS, 404: ErrorBody}


@router.post("", response={201: NewChatOut, **REFUSALS, 409: ErrorBody, 429: ErrorBody})
def create_chat(request: AuthedRequest, payload: ChatIn) -> Any:
    """Make a chat and own it. An id that is taken answers 409, also to its members.

    Whoever else is named is put in, as if by `POST /api/v1/chats/{id}/members`: all or nobody.
    """
    chat = rooms.create(
        caller=request.auth.user_id,
        at=timezone.now(),
        chat_id=payload.id,
        type=payload.type,
        title=payload.title,
        members=[member.someone() for member in payload.members],
    )
    return Status(201, NewChatOut.of(chat))


@router.get("", response={200: ChatsOut, **REFUSALS})
def list_chats(
    request: AuthedRequest,
    limit: Annotated[int | None, Query(ge=1, le=rooms.MAX_LISTED)] = None,
    cursor: str | None = None,
) -> Any:
    """List your chats, last changed first; 500 without a limit.

    Pass `nextCursor` back as `cursor` for the next page.
    """
    chats, next_cursor = rooms.of_user(caller=request.auth.user_id, limit=limit, cursor=cursor)
    return ChatsOut(chats=[ChatOut.of(chat) for chat in chats], next_cursor=next_cursor)


@router.get("/{id}", response={200: ChatWithMembersOut, **OF_ONE})
def read_chat(request: AuthedRequest, id: str) -> Any:  # noqa: A002  its name on the wire
    """Read a chat and who is in it, in the order in which they joined."""
    chat, members = rooms.details(caller=request.auth.user_id, chat_id=id)
    return ChatWithMembersOut.of(chat, members=[MemberOut.of(member) for member in members])


@router.patch("/{id}", response={200: ChatOut, **OF_ONE})
def change_chat(request: AuthedRequest, id: str, payload: ChatPatch) -> Any:  # noqa: A002  its name on the wire
    """Rename a chat, as its owner or an admin."""
    title = payload.title if "title" in payload.model_fields_set else None
    chat = rooms.rename(caller=request.auth.user_id, chat_id=id, title=title, at=timezone.now())
    return ChatOut.of(chat)


@router.delete("/{id}", response={200: ChatOut, **OF_ONE})
def delete_chat(request: AuthedRequest, id: str) -> Any:  # noqa: A002  its name on the wire
    """Delete a chat for everybody, as its owner."""
    chat = rooms.delete(caller=request.auth.user_id, chat_id=id, at=timezone.now())
    return ChatOut.of(chat)


@router.post(
    "/{id}/members",
    response={200: MemberOut, **OF_ONE, 409: ErrorBody, 429: ErrorBody},
)
def add_member(request: AuthedRequest, id: str, payload: MemberIn) -> Any:  # noqa: A002  its name on the wire
    """Put somebody into a chat, as its owner or an admin. Who is in it already stays.

    Whoever left by themselves comes back by naming themselves; nobody else can put them in again.
    How many people you put into chats in a minute is limited (429), and so is how often strangers
    put somebody (429), if the server lets them at all (403).
    """
    member = rooms.add_member(
        caller=request.auth.user_id, chat_id=id, someone=payload.someone(), at=timezone.now()
    )
    return MemberOut.of(member)


@router.patch("/{id}/members/{member_id}", response={200: MemberOut, **OF_ONE})
def change_member(
    request: AuthedRequest,
    id: str,  # noqa: A002  its name on the wire
    member_id: str,
    payload: RoleIn,
) -> Any:
    """Make a user an admin or an ordinary member, as the chat's owner."""
    member = rooms.set_role(
        caller=request.auth.user_id, chat_id=id, member_id=member_id, role=payload.role
    )
    return MemberOut.of(member)


@router.delete("/{id}/members/{member_id}", response={200: MemberOut, **OF_ONE})
def remove_member(request: AuthedRequest, id: str, member_id: str) -> Any:  # noqa: A002  its name on the wire
    """Leave a chat, or take somebody out as its owner or an admin.

    When the owner leaves, the oldest admin owns the chat, else the oldest user in it.
    """
    member = rooms.remove_member(caller=request.auth.user_id, chat_id=id, member_id=member_id)
    return MemberOut.of(member)
