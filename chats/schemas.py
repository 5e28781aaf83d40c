"""Shapes of `/api/v1/chats`, in camelCase; what they do not name is ignored."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints
from pydantic.alias_generators import to_camel

from airi_server.kernel.schemas import Instant
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
