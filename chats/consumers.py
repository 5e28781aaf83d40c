"""`/ws/chat` and `/ws/v2/chat`: one connection. Authenticate, read frames, hand on calls."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress
from typing import Any, Final

from channels.exceptions import StopConsumer
from channels.generic.websocket import AsyncWebsocketConsumer

from accounts import addresses
from airi_server.kernel.errors import InvalidRequest
from chats import callers, envelopes, hub, lobby
from chats.calls import Calls, checked
from chats.envelopes import Malformed, Request
from chats.protocol import (
    AUTHENTICATE,
    CALLS,
    MAX_ANONYMOUS_FRAME_BYTES,
    Authenticated,
    CloseCode,
)
from chats.sockets import Socket

logger = logging.getLogger(__name__)

FRAMES_PER_S: Final = 1_000
BURST: Final = 1_000
AUTHENTICATE_S: Final = 15.0


class ChatConsumer(AsyncWebsocketConsumer):  # type: ignore[misc]  # Channels has no types
    """The socket of clients that authenticate with the upgrade.

    The hub listens to the channel layer for all of them, so a consumer has no channel of its own.
    """

    channel_layer_alias = "none"
    _socket: Socket
    _calls: Calls | None = None
    _frames_in = 0
    _code = 1006

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self._task = asyncio.current_task()
        self._was_cut = False
        self._began = time.perf_counter()
        self._allowance, self._refilled = float(BURST), self._began
        self._hub = hub.current()
        self._socket = Socket(send, self._cut)
        self._writing: asyncio.Task[None] | None = None
        try:
            await super().__call__(scope, receive, send)
        except asyncio.CancelledError:
            if not self._was_cut or self._task is None:
                raise
            self._task.uncancel()
        finally:
            await self._end()

    async def dispatch(self, message: dict[str, Any]) -> None:
        """Call the handler directly: nothing here uses a database connection of a thread."""
        match message["type"]:
            case "websocket.receive":
                await self.websocket_receive(message)
            case "websocket.connect":
                await self.connect()
            case "websocket.disconnect":
                self._code = message.get("code", self._code)
                raise StopConsumer

    async def connect(self) -> None:
        """Resolve the caller while the client waits, then accept: refusals have a close code."""
        found = await callers.of_upgrade(self.scope)
        callers.forget_secrets(self.scope)
        await self._open()
        if isinstance(found, callers.Refused):
            self._socket.close(found.code, found.reason)
            return
        self._socket.reply(envelopes.connected())
        self._calls = Calls(self._hub, self._socket, found.user_id)
        await self._hub.join(self._socket, found)

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """Read a frame. Waits while the client sends too fast or does not read its answers."""
        self._frames_in += 1
        if not self._socket.is_closing:
            await self._pace()
            await self._socket.room()
        if self._socket.is_closing:
            return
        try:
            request = _request_in(text_data)
        except Malformed:
            self._socket.reply(envelopes.malformed())
            return
        if request is not None:
            await self._take(request)

    async def _take(self, request: Request) -> None:
        if self._calls is not None and request.call is not AUTHENTICATE:
            await self._calls.start(request)

    async def _open(self) -> None:
        await self.accept()
        self._writing = asyncio.get_running_loop().create_task(self._socket.write())
        self._hub.opened(self._socket)

    async def _pace(self) -> None:
        """Hold a flood back; the client's own socket buffer fills, and nobody else waits."""
        now = time.perf_counter()
        self._allowance = min(BURST, self._allowance + (now - self._refilled) * FRAMES_PER_S) - 1
        self._refilled = now
        if self._allowance < 0:
            await asyncio.sleep(-self._allowance / FRAMES_PER_S)

    def _cut(self) -> None:
        if self._task is not None:
            self._was_cut = True
            self._task.cancel()

    async def _end(self) -> None:
        self._hub.closed(self._socket)
        code = self._socket.close_code or self._code
        self._socket.forget()
        if self._writing is not None:
            self._writing.cancel()
            with suppress(asyncio.CancelledError):
                await self._writing
        logger.info(
            "Socket closed",
            extra={
                "path": self.scope["path"],
                "code": code,
                "seconds": round(time.perf_counter() - self._began, 1),
                "frames_in": self._frames_in,
                "frames_out": self._socket.frames_out,
            },
        )


class LateChatConsumer(ChatConsumer):
    """The socket of clients that authenticate with their first call (contract §16.7)."""

    _address: str | None = None
    _has_greeted = False
    _timer: asyncio.TimerHandle | None = None
    _authenticating: asyncio.Task[None] | None = None

    async def connect(self) -> None:
        address = addresses.of_scope(self.scope)
        callers.forget_secrets(self.scope)
        await self._open()
        if not lobby.current().enter(address):
            self._socket.close(CloseCode.TRY_AGAIN, "too many unauthenticated sockets")
            return
        self._address = address
        self._timer = asyncio.get_running_loop().call_later(
            AUTHENTICATE_S, self._socket.close, CloseCode.TRY_AGAIN, "authentication timeout"
        )
        self._socket.reply(envelopes.connected())

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """Take exactly one call while nobody has authenticated; everything else ends it.

        But for one event of eventa's, which both generations of its adapter send first.
        """
        if self._calls is not None:
            await super().receive(text_data, bytes_data)
            return
        self._frames_in += 1
        if len(bytes_data or (text_data or "").encode()) > MAX_ANONYMOUS_FRAME_BYTES:
            self._socket.close(CloseCode.TOO_BIG, "frame too big")
            return
        with suppress(Malformed):
            if not self._has_greeted and _is_greeting(text_data):
                self._has_greeted = True
                return
            request = _request_in(text_data)
            if request and request.call is AUTHENTICATE and self._authenticating is None:
                work = self._authenticate(request, self._address or "")
                self._authenticating = asyncio.get_running_loop().create_task(work)
                return
        self._refuse(callers.UNAUTHORIZED)

    async def _take(self, request: Request) -> None:
        if request.call is AUTHENTICATE:
            self._refuse(callers.UNAUTHORIZED)
        else:
            await super()._take(request)

    async def _authenticate(self, request: Request, address: str) -> None:
        try:
            token = checked(request).token
        except InvalidRequest:
            self._refuse(callers.UNAUTHORIZED)
            return
        found = await callers.of_token(token, address)
        if isinstance(found, callers.Refused):
            self._refuse(found)
            return
        if self._socket.is_closing:
            return
        await self._hub.join(self._socket, found)
        self._leave_lobby()
        self._calls = Calls(self._hub, self._socket, found.user_id)
        self._socket.reply(envelopes.answer(request, Authenticated(user_id=found.user_id)))

    def _refuse(self, refused: callers.Refused) -> None:
        self._socket.close(refused.code, refused.reason)

    def _leave_lobby(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._address is not None:
            lobby.current().leave(self._address)
            self._address = None

    async def _end(self) -> None:
        self._leave_lobby()
        if self._authenticating is not None:
            self._authenticating.cancel()
            with suppress(asyncio.CancelledError):
                await self._authenticating
        await super()._end()


def _is_greeting(text: str | None) -> bool:
    """Tell whether a frame is what eventa's own adapter sends when its socket opens."""
    if text is None:
        return False
    incoming = envelopes.read(text)
    is_call = incoming.event_id in CALLS
    return not is_call and isinstance(incoming.body, dict) and list(incoming.body) == ["url"]


def _request_in(text: str | None) -> Request | None:
    """Return the call in a frame, if it is one.

    Raises:
        Malformed: It is binary, or no envelope.
    """
    if text is None:
        raise Malformed
    return envelopes.request_in(envelopes.read(text))
