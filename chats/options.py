"""Operator settings of chats: who may put whom into them, and how many sockets are open."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import Field

from airi_server.runtime.options import Option, define

MAX_MEMBERS: Final = 1000
"""The most that any setting allows in one chat."""
Limit = Annotated[int, Field(ge=0, le=1_000_000_000)]

CHAT_MEMBERS: Final[Option[int]] = define(
    "CHAT_MEMBERS",
    Annotated[int, Field(ge=2, le=MAX_MEMBERS)],
    default=MAX_MEMBERS,
    help="Members a chat may have, characters included.",
)
CHAT_ADDITIONS_PER_MINUTE: Final[Option[int]] = define(
    "CHAT_ADDITIONS_PER_MINUTE",
    Limit,
    default=60,
    help="People a user may put into chats in a minute; 0 means no limit.",
)
CHAT_STRANGERS: Final[Option[bool]] = define(
    "CHAT_STRANGERS",
    bool,
    default=True,
    help="Whether people may be put into a chat by somebody they share none with.",
)
CHAT_ADDITIONS_BY_STRANGERS_PER_DAY: Final[Option[int]] = define(
    "CHAT_ADDITIONS_BY_STRANGERS_PER_DAY",
    Limit,
    default=20,
    help="How often in a day strangers may put one user into chats; 0 means no limit.",
)
CHAT_SOCKETS_PER_KEY: Final[Option[int]] = define(
    "CHAT_SOCKETS_PER_KEY",
    Limit,
    default=500,
    help="Chat sockets that one API key may have open on one process; 0 means no limit.",
)
CHAT_SOCKETS_PER_USER: Final[Option[int]] = define(
    "CHAT_SOCKETS_PER_USER",
    Limit,
    default=1000,
    help="Chat sockets that one user may have open on one process; 0 means no limit.",
)
