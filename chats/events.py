"""What instances tell each other over the channel layer: the group and the event, spelled once."""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from chats.models import ID_PATTERN

GROUP: Final = "chats"
"""Every instance that has sockets listens to it, and to nothing else."""
TYPE: Final = "chats.sent"

Seq = Annotated[int, Field(ge=1, lt=2**63)]
NotBlank = Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=r"\S")]


class Sent(BaseModel):
    """Numbers were handed out in a chat. A hint: whoever receives it reads the rows.

    Attributes:
        members: User ids at the commit; nobody else is told.
        origin: The socket that sent it, which is not told.
    """

    model_config = ConfigDict(strict=True, frozen=True)

    chat_id: Annotated[str, StringConstraints(pattern=ID_PATTERN)]
    from_seq: Seq
    to_seq: Seq
    members: list[NotBlank]
    origin: str = ""


class Batch(BaseModel):
    """One message on the channel layer: what one instance did lately; nothing is a sign of life."""

    model_config = ConfigDict(strict=True, frozen=True)

    type: str = TYPE
    instance: NotBlank
    events: list[dict[str, Any]]
