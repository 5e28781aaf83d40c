"""The frames of `/ws/chat` and `/ws/v2/chat`: names, bodies, envelopes, errors and close codes.

The one source of the protocol: what is published of it is made from here (`documents`).
`envelopes` reads and writes envelopes without these models, faster; tests hold it to them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from pydantic.alias_generators import to_camel
from pydantic.json_schema import SkipJsonSchema

from chats.models import ID_PATTERN, MAX_MESSAGES

MAX_FRAME_BYTES: Final = 1_048_576
MAX_ANONYMOUS_FRAME_BYTES: Final = 8_192
"""Of a socket that has not authenticated yet."""
MAX_INVOKE_ID: Final = 256
MAX_TOKEN: Final = 4_096
MAX_SAFE_INTEGER: Final = 2**53 - 1
"""The highest whole number that every client reads as it was written."""

CONNECTED: Final = "eventa:adapters:hono-ws:connected"
"""The first frame the server sends."""
MALFORMED: Final = "eventa:adapters:hono-ws:error"
"""The answer to a frame that cannot be read, or named no `invokeId`; the connection stays."""
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
    """A live message. Times are milliseconds since the epoch.

    `senderId` is who sent it if the role is `user`, else null.
    """

    id: str
    chat_id: str
    sender_id: str | None
    role: Role
    content: str
    seq: int
    created_at: int
    updated_at: int


class Deleted(_Body):
    """A tombstone: the message that had this id was deleted, and that took the number `seq`."""

    id: str
    seq: int


class MessagesPulled(_Body):
    """A page. `seq` is the next cursor: the page's last number if there is more, else the head."""

    messages: tuple[WireMessage, ...]
    seq: int
    deleted: Annotated[
        tuple[Deleted, ...], Field(description="Tombstones of the page; absent when empty.")
    ] = ()


class NewMessages(_Body):
    """A push: what was numbered from `fromSeq` to `toSeq`. Empty after a gap: the chat is gone."""

    chat_id: str
    messages: tuple[WireMessage, ...]
    from_seq: int
    to_seq: int
    deleted: Annotated[
        tuple[Deleted, ...], Field(description="Tombstones of the range; absent when empty.")
    ] = ()


class Authenticate(_Body):
    """The first call on `/ws/v2/chat`: an API key or a one-time ticket."""

    token: Annotated[str, Field(min_length=1, max_length=MAX_TOKEN, repr=False)]


class Authenticated(_Body):
    """Who the socket now belongs to."""

    user_id: str


class ChatError(_Body):
    """What a failed call is rejected with."""

    name: Literal["ApiError"]
    status_code: Annotated[int, Field(description="As in HTTP: 4xx is the client's to mend.")]
    error_code: Annotated[str, Field(description="For programs.")]
    message: Annotated[str, Field(description="For people.")]
    details: Annotated[Any, Field(description="More for programs; absent when there is none.")] = (
        None
    )


class Nothing(_Body):
    """An empty object."""


class Unreadable(_Body):
    """The answer to a frame that cannot be read, or to a call that no answer could be found by.

    Only of a call is it said why.
    """

    error: ChatError | Nothing


class Invocation(_Body):
    """The body of a call. The client chooses `invokeId`; whatever answers repeats it."""

    invoke_id: Annotated[str, Field(min_length=1, max_length=MAX_INVOKE_ID)]
    content: Annotated[Any, Field(description="The request.")] = None


class Answer(_Body):
    """The body of an answer."""

    invoke_id: str
    content: Annotated[Any, Field(description="The response.")]


class Failure(_Body):
    """Why a call was rejected."""

    error: ChatError


class Rejection(_Body):
    """The body of an answer to a call that failed."""

    invoke_id: str
    content: Failure


class EventA(_Body):
    """The event in an envelope of the older generation; its id is the envelope's `type`."""

    body: Any = None


class EnvelopeA(_Body):
    """A frame of the older generation of clients. What is not named here is ignored."""

    type: Annotated[str, Field(description="The event's id.")]
    payload: EventA


class EventB(_Body):
    """The event in an envelope of the newer generation."""

    id: str
    body: Any = None


class EnvelopeB(_Body):
    """A frame of the newer generation of clients. What is not named here is ignored."""

    delivery_id: Annotated[str, Field(min_length=1)]
    hops_remaining: Annotated[int, Field(ge=0, le=MAX_SAFE_INTEGER)]
    eventa: EventB


class EventMerged(_Body):
    """An event as the server writes it."""

    id: str
    type: Literal["event"]
    flow_direction: Annotated[Literal["outbound"], Field(alias="_flowDirection")]
    invoke_type: Annotated[
        Literal[4, 5] | SkipJsonSchema[None],
        Field(description="4 of an answer, 5 of a rejection, else absent."),
    ] = None
    body: Any


class EnvelopeMerged(_Body):
    """Every frame of the server: both generations in one, so that either kind of client reads it.

    `payload` and `eventa` are the same event; `type` and its `id` are the same name.
    """

    id: str
    type: str
    payload: EventMerged
    timestamp: Annotated[int, Field(description="Milliseconds since the epoch.")]
    delivery_id: Annotated[str, Field(min_length=1, description="Never the same twice.")]
    hops_remaining: Annotated[int, Field(ge=0, le=MAX_SAFE_INTEGER)]
    eventa: EventMerged


@dataclass(frozen=True, slots=True)
class Procedure:
    """A remote procedure: its tag, the bodies both ways, and whether it can fail and go on."""

    tag: str
    request: type[BaseModel]
    response: type[BaseModel]
    is_rejected: bool = True
    """False: instead of a rejection the connection is closed."""


SEND: Final = Procedure("chat:send-messages", SendMessages, MessagesSent)
PULL: Final = Procedure("chat:pull-messages", PullMessages, MessagesPulled)
AUTHENTICATE: Final = Procedure("chat:authenticate", Authenticate, Authenticated, is_rejected=False)
CALLS: Final[Mapping[str, Procedure]] = MappingProxyType(
    {f"{call.tag}-send": call for call in (SEND, PULL, AUTHENTICATE)}
)
"""Every call by the event id of its request."""
EVENTS: Final[Mapping[str, type[BaseModel]]] = MappingProxyType(
    {CONNECTED: Nothing, MALFORMED: Unreadable, NEW_MESSAGES: NewMessages, RESYNC: Nothing}
)
"""The bodies of what is no answer, by event id."""
SOCKETS: Final[Mapping[str, tuple[Procedure, ...]]] = MappingProxyType(
    {"/ws/chat": (SEND, PULL), "/ws/v2/chat": (AUTHENTICATE, SEND, PULL)}
)
"""Which calls each address takes."""


def calls_of(path: str) -> Mapping[str, Procedure]:
    """Return the calls that an address takes, by the event id of the request."""
    return MappingProxyType({f"{call.tag}-send": call for call in SOCKETS[path]})
