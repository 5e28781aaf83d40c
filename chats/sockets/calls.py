"""The calls of `/ws/chat`: check the request, call the domain, always answer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ValidationError

from airi_server.kernel import database, validation
from airi_server.kernel.errors import DomainError, InvalidRequest, ServerError, Unavailable
from chats import messages
from chats.sockets import envelopes
from chats.sockets.envelopes import CallRequest
from chats.sockets.hub import Hub
from chats.sockets.outbox import Outbox
from chats.sockets.protocol import (
    PULL,
    SEND,
    MessagesPulled,
    MessagesSent,
    PullMessages,
    SendMessages,
)

logger = logging.getLogger(__name__)

Body = TypeVar("Body", bound=BaseModel)

SENDS_AT_ONCE: Final = 16
PULLS_AT_ONCE: Final = 4


class Calls:
    """What one authenticated socket asks for.

    Sends reach the database in the order of their frames; pulls may overtake.
    """

    __slots__ = ("_handlers", "_hub", "_slots", "_socket", "_user_id")

    def __init__(self, hub: Hub, socket: Outbox, user_id: str) -> None:
        self._hub = hub
        self._socket = socket
        self._user_id = user_id
        self._slots = {
            SEND: asyncio.Semaphore(SENDS_AT_ONCE),
            PULL: asyncio.Semaphore(PULLS_AT_ONCE),
        }
        self._handlers: Mapping[Any, Callable[[Any], Awaitable[BaseModel]]] = {
            SEND: self._send,
            PULL: self._pull,
        }

    async def start(self, request: CallRequest) -> None:
        """Take on a call; waits while this socket has too many of its kind under way."""
        slot = self._slots[request.call]
        await slot.acquire()
        answering = self._hub.own(self._answer(request))
        answering.add_done_callback(lambda _: slot.release())

    async def _answer(self, request: CallRequest) -> None:
        try:
            content = checked(request)
            response = await self._handlers[request.call](content)
            self._socket.reply(envelopes.answer(request, response))
        except DomainError as refused:
            self._socket.reply(envelopes.refusal(request, refused))
        except database.AWAY:
            away = Unavailable("The service is not available right now.")
            self._socket.reply(envelopes.refusal(request, away))
        except Exception:
            logger.exception("A call crashed", extra={"call": request.call.tag})
            bug = ServerError("Internal Server Error")
            self._socket.reply(envelopes.refusal(request, bug))

    async def _send(self, asked: SendMessages) -> MessagesSent:
        new = [messages.MessageDraft(m.id, m.role, m.content) for m in asked.messages]
        chat_id, knowledge = asked.chat_id, self._socket.knowledge
        sent = await messages.send(
            caller=self._user_id, chat_id=chat_id, messages=new, known=knowledge.of(chat_id)
        )
        if sent.seen is not None:
            knowledge.learn(chat_id, *sent.seen)
        self._hub.sent(chat_id, sent, origin=self._socket.id)
        return MessagesSent(seq=sent.seq)

    async def _pull(self, asked: PullMessages) -> MessagesPulled:
        page = await messages.pull(
            caller=self._user_id,
            chat_id=asked.chat_id,
            after_seq=asked.after_seq,
            limit=asked.limit,
        )
        # Whoever asks from a cursor says that they know what is before it.
        self._socket.knowledge.learn(asked.chat_id, 1, page.seq)
        return MessagesPulled.model_validate(page)


def checked(request: CallRequest) -> Any:
    """Return the request's content as its model.

    Raises:
        InvalidRequest: It does not fit; `details` lists where and why, without repeating it.
    """
    try:
        return request.call.request.model_validate(request.content)
    except ValidationError as invalid:
        details = validation.details_of(invalid.errors(include_input=False, include_url=False))
        raise InvalidRequest(validation.sentence(details), details=details) from None
