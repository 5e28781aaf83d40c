"""`/ws/chat` and `/ws/v2/chat`: one connection. Authenticate, read frames, hand on calls."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

from channels.exceptions import StopConsumer
from channels.generic.websocket import AsyncWebsocketConsumer

from accounts import addresses
from accounts.revalidation import Caller
from airi_server.kernel.errors import InvalidRequest
from airi_server.kernel.loops import PerLoop
from chats import telemetry
from chats.sockets import authentication, envelopes, hub, seats
from chats.sockets.authentication import SocketRefusal
from chats.sockets.calls import Calls, checked
from chats.sockets.envelopes import CallRequest, MalformedFrame, Uncallable
from chats.sockets.outbox import Outbox
from chats.sockets.protocol import (
    AUTHENTICATE,
    CALLS,
    MAX_ANONYMOUS_FRAME_BYTES,
    Authenticated,
    CloseCode,
    Procedure,
    calls_of,
)

logger = logging.getLogger(__name__)

FRAMES_PER_S: Final = 1_000
BURST: Final = 1_000
AUTHENTICATE_S: Final = 15.0
MAX_UNAUTHENTICATED: Final = 100
MAX_PER_ADDRESS: Final = 20
TOO_MANY: Final = SocketRefusal(CloseCode.TRY_AGAIN, "too many sockets")
TOO_MANY_WAITING: Final = SocketRefusal(CloseCode.TRY_AGAIN, "too many unauthenticated sockets")


class ChatConsumer(AsyncWebsocketConsumer):  # type: ignore[misc]  # Channels has no types
    """The socket of clients that authenticate with the upgrade.

    The hub listens to the channel layer for all of them, so a consumer has no channel of its own.
    """

    channel_layer_alias = "none"
    _served = calls_of("/ws/chat")
    _socket: Outbox
    _seated: Caller | None = None
    _calls: Calls | None = None
    _frames_in = 0
    _code = 1006

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self._task = asyncio.current_task()
        self._was_cut = False
        self._began = time.perf_counter()
        self._allowance, self._refilled = float(BURST), self._began
        self._hub = hub.current()
        self._socket = Outbox(send, self._cut)
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
        found = self._seat(await authentication.of_upgrade(self.scope))
        authentication.forget_secrets(self.scope)
        await self._open()
        if isinstance(found, SocketRefusal):
            self._refuse(found)
            return
        self._socket.reply(envelopes.connected())
        self._calls = Calls(self._hub, self._socket, found.user_id)
        await self._hub.join(self._socket, found)

    def _seat(self, found: Caller | SocketRefusal) -> Caller | SocketRefusal:
        """Give a caller one of the sockets that they may have open; it is theirs until the end."""
        if isinstance(found, SocketRefusal):
            return found
        if not seats.current().take(found):
            return TOO_MANY
        self._seated = found
        return found

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """Read a frame. Waits while the client sends too fast or does not read its answers."""
        self._frames_in += 1
        if not self._socket.is_closing:
            await self._pace()
            await self._socket.room()
        if self._socket.is_closing:
            return
        try:
            request = _request_in(text_data, self._served)
        except MalformedFrame:
            self._socket.reply(envelopes.malformed())
            return
        except Uncallable as event:
            self._socket.reply(envelopes.uncallable(event))
            return
        if request is not None:
            await self._take(request)

    async def _take(self, request: CallRequest) -> None:
        if self._calls is not None:
            await self._calls.start(request)

    def _refuse(self, refused: SocketRefusal) -> None:
        self._socket.close(refused.code, refused.reason)

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
        if self._seated is not None:
            seats.current().give_back(self._seated)
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


class Unauthenticated:
    """Counts the sockets that have not authenticated yet: few, and few from one address.

    For one event loop. An IPv6 address stands for its /64.
    """

    def __init__(self) -> None:
        self.count = 0
        self._by_address: Counter[str] = Counter()

    def enter(self, address: str) -> bool:
        """Let a socket wait, unless too many do."""
        place = addresses.caller_of(address)
        is_full = self.count >= MAX_UNAUTHENTICATED
        if is_full or self._by_address[place] >= MAX_PER_ADDRESS:
            telemetry.socket_refused("waiting")
            return False
        self.count += 1
        self._by_address[place] += 1
        return True

    def leave(self, address: str) -> None:
        """Make room; once for each time a socket was let in."""
        place = addresses.caller_of(address)
        self.count -= 1
        self._by_address[place] -= 1
        if not self._by_address[place]:
            del self._by_address[place]


_unauthenticated = PerLoop(Unauthenticated)


def unauthenticated() -> Unauthenticated:
    return _unauthenticated.get()


class LateChatConsumer(ChatConsumer):
    """The socket of clients that authenticate with their first call (contract §16.7)."""

    _served = calls_of("/ws/v2/chat")
    _address = ""
    _is_waiting = False
    _has_greeted = False
    _timer: asyncio.TimerHandle | None = None
    _authenticating: asyncio.Task[None] | None = None

    async def connect(self) -> None:
        self._address = addresses.of_scope(self.scope)
        authentication.forget_secrets(self.scope)
        await self._open()
        self._is_waiting = unauthenticated().enter(self._address)
        if not self._is_waiting:
            self._refuse(TOO_MANY_WAITING)
            return
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
        with suppress(MalformedFrame, Uncallable):
            if not self._has_greeted and _is_greeting(text_data):
                self._has_greeted = True
                return
            request = _request_in(text_data, self._served)
            if request and request.call is AUTHENTICATE and self._authenticating is None:
                work = self._authenticate(request)
                self._authenticating = asyncio.get_running_loop().create_task(work)
                return
        self._refuse(authentication.UNAUTHORIZED)

    async def _take(self, request: CallRequest) -> None:
        if request.call is AUTHENTICATE:
            self._refuse(authentication.UNAUTHORIZED)
        else:
            await super()._take(request)

    async def _authenticate(self, request: CallRequest) -> None:
        """Let the caller in, or go: whatever happens here, nobody waits for an answer."""
        try:
            await self._admit(request)
        except Exception:
            logger.exception("An authentication crashed")
            self._refuse(authentication.UNAVAILABLE)

    async def _admit(self, request: CallRequest) -> None:
        try:
            token = checked(request).token
        except InvalidRequest:
            self._refuse(authentication.UNAUTHORIZED)
            return
        found = await authentication.of_token(token, self._address)
        if self._socket.is_closing:
            return
        found = self._seat(found)
        if isinstance(found, SocketRefusal):
            self._refuse(found)
            return
        await self._hub.join(self._socket, found)
        self._stop_waiting()
        self._calls = Calls(self._hub, self._socket, found.user_id)
        self._socket.reply(envelopes.answer(request, Authenticated(user_id=found.user_id)))

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._is_waiting:
            unauthenticated().leave(self._address)
            self._is_waiting = False

    async def _end(self) -> None:
        self._stop_waiting()
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


def _request_in(text: str | None, calls: Mapping[str, Procedure]) -> CallRequest | None:
    """Return the call in a frame, if it is one of those.

    Raises:
        Malformed: It is binary, or no envelope.
        Uncallable: It is another one, or has no usable `invokeId`.
    """
    if text is None:
        raise MalformedFrame
    return envelopes.request_in(envelopes.read(text), calls)
