"""The frames of `/ws/chat` and `/ws/v2/chat`: names, bodies, errors and close codes.

The one source of the protocol. How a body travels is `chats.envelopes`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from pydantic.alias_generators import to_camel

from chats.models import ID_PATTERN

MAX_FRAME_BYTES: Final = 1_048_576
MAX_ANONYMOUS_FRAME_BYTES: Final = 8_192
"""Of a socket that has not authenticated yet."""
MAX_MESSAGES: Final = 500
"""The most messages in one call and in one push."""
MAX_CONTENT_BYTES_OUT: Final = 1_048_576
"""Content in one page or push of more than one message; a frame carries its body twice."""
MAX_INVOKE_ID: Final = 256
MAX_TOKEN: Final = 4_096

CONNECTED: Final = "eventa:adapters:hono-ws:connected"
"""The first frame the server sends."""
MALFORMED: Final = "eventa:adapters:hono-ws:error"
"""The answer to a frame that cannot be read; the connection stays."""
NEW_MESSAGES: Final = "chat:new-messages"
RESYNC: Final = "chat:resync"
"""The last frame before `TRY_AGAIN` on a socket that was too slow: pull after reconnecting."""


class CloseCode(IntEnum):
    """Why the server ends a connection."""

    TOO_BIG = 1009
    UNAVAILABLE = 1011
    RESTARTING = 1012
    TRY_AGAIN = 1013
    UNAUTHORIZED = 4001


class InvokeType(IntEnum):
    """What an event of a call is."""

    SEND = 0
    SEND_ERROR = 1
    SEND_STREAM_END = 2
    SEND_ABORT = 3
    RECEIVE = 4
    RECEIVE_ERROR = 5


Role = Literal["system", "user", "assistant", "tool", "error"]
Id = Annotated[str, StringConstraints(pattern=ID_PATTERN)]
ChatId = Annotated[str, StringConstraints(min_length=1)]


class _Body(BaseModel):
    model_config = ConfigDict(
        strict=True,
        frozen=True,
        alias_generator=to_camel,
        populate_by_name=True,
        from_attributes=True,
    )


class NewMessage(_Body):
    """A message as a client sends it; the id is the client's."""

    id: Id
    role: Role
    content: Annotated[str, Field(description="At most 262,144 bytes of UTF-8, without NUL.")]


class SendMessages(_Body):
    """Append messages to a chat, or edit one's own by sending their ids again."""

    chat_id: ChatId
    messages: Annotated[list[NewMessage], Field(max_length=MAX_MESSAGES)]


class MessagesSent(_Body):
    """The highest number among the messages of the call."""

    seq: int


class PullMessages(_Body):
    """Read what has a number above `afterSeq`; without a usable limit the first 100."""

    chat_id: ChatId
    after_seq: Annotated[int, Field(ge=0)]
    limit: int | None = None


class WireMessage(_Body):
    """A live message; times are milliseconds since the epoch."""

    id: str
    chat_id: str
    sender_id: str | None
    role: Role
    content: str
    seq: int
    created_at: int
    updated_at: int


class Deleted(_Body):
    """A tombstone: the message with this id is gone since `seq`."""

    id: str
    seq: int


class MessagesPulled(_Body):
    """A page. `seq` is the next cursor: the page's last number if there is more, else the head."""

    messages: Sequence[WireMessage]
    seq: int
    deleted: Annotated[
        Sequence[Deleted], Field(description="Tombstones of the page; absent when empty.")
    ] = ()


class NewMessages(_Body):
    """A push: what was numbered from `fromSeq` to `toSeq`."""

    chat_id: str
    messages: Sequence[WireMessage]
    from_seq: int
    to_seq: int
    deleted: Annotated[
        Sequence[Deleted], Field(description="Tombstones of the range; absent when empty.")
    ] = ()


class Authenticate(_Body):
    """The first call on `/ws/v2/chat`: an API key or a one-time ticket."""

    token: Annotated[str, Field(min_length=1, max_length=MAX_TOKEN, repr=False)]


class Authenticated(_Body):
    """Who the socket now belongs to."""

    user_id: str


class APIError(_Body):
    """What a failed call is rejected with."""

    name: Literal["ApiError"] = "ApiError"
    status_code: int
    error_code: str
    message: str
    details: Any = None


@dataclass(frozen=True, slots=True)
class Call:
    """A remote procedure: its tag, and the bodies both ways."""

    tag: str
    request: type[BaseModel]
    response: type[BaseModel]


SEND: Final = Call("chat:send-messages", SendMessages, MessagesSent)
PULL: Final = Call("chat:pull-messages", PullMessages, MessagesPulled)
AUTHENTICATE: Final = Call("chat:authenticate", Authenticate, Authenticated)
CALLS: Final[Mapping[str, Call]] = MappingProxyType(
    {f"{call.tag}-send": call for call in (SEND, PULL, AUTHENTICATE)}
)
"""Every call by the event id of its request."""
