"""A small client of the chat socket: calls with answers, and what was pushed."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from typing import Any

import aiohttp
import orjson

from airi_server.kernel import ids
from chats.sockets import protocol

_numbers = itertools.count(1)


class Rejected(Exception):
    """A call was answered with an error, which is the first argument."""


def envelope_a(event_id: str, body: Any) -> str:
    event = {"id": event_id, "type": "event", "_flowDirection": "outbound", "body": body}
    return text({"id": ids.nanoid(16), "type": event_id, "payload": event, "timestamp": 1})


def envelope_b(event_id: str, body: Any) -> str:
    event = {"id": event_id, "type": "event", "_flowDirection": "outbound", "body": body}
    return text({"deliveryId": ids.nanoid(16), "hopsRemaining": 31, "eventa": event})


def minimal(event_id: str, body: Any) -> str:
    return text({"type": event_id, "payload": {"body": body}})


def text(frame: Any) -> str:
    return orjson.dumps(frame).decode()


class Client:
    """One open socket; reads by itself until it is closed or told to `pause`."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, envelope=envelope_a) -> None:
        self.socket = socket
        self.envelope = envelope
        self.frames: list[dict[str, Any]] = []
        self.pushes: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.events: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._calls: dict[str, asyncio.Future[Any]] = {}
        self._reading = asyncio.create_task(self._read())

    async def call(self, tag: str, content: Any = None, *, within_s: float = 10) -> Any:
        """Call and return what is answered.

        Raises:
            Rejected: With the error of the server.
        """
        invoke_id = f"call-{next(_numbers)}"
        answer = self._calls[invoke_id] = asyncio.get_running_loop().create_future()
        body = {"invokeId": invoke_id, "content": content}
        await self.socket.send_str(self.envelope(f"{tag}-send", body))
        async with asyncio.timeout(within_s):
            return await answer

    async def send(self, chat_id: str, *contents: str, role: str = "user") -> Any:
        new = [{"id": ids.nanoid(), "role": role, "content": text} for text in contents]
        return (await self.call("chat:send-messages", {"chatId": chat_id, "messages": new}))["seq"]

    async def pull(self, chat_id: str, after_seq: int = 0, **more: Any) -> Any:
        content = {"chatId": chat_id, "afterSeq": after_seq, **more}
        return await self.call("chat:pull-messages", content)

    async def hears_others(self) -> None:
        """Wait until its instance hears the others: calls are taken from then on, as pulls are."""
        with contextlib.suppress(Rejected):
            await self.pull("there is no such chat")

    async def pushed(self, *, within_s: float = 5) -> dict[str, Any]:
        """Return the next push."""
        async with asyncio.timeout(within_s):
            return await self.pushes.get()

    async def event(self, *, within_s: float = 5) -> dict[str, Any]:
        """Return the next frame that is neither an answer nor a push."""
        async with asyncio.timeout(within_s):
            return await self.events.get()

    async def closed(self, *, within_s: float = 5) -> int | None:
        """Wait until the server has closed, and return its code."""
        async with asyncio.timeout(within_s):
            await asyncio.wait([self._reading])
        return self.socket.close_code

    async def quiet(self) -> bool:
        """Return whether nothing was pushed; a call has passed through since."""
        await asyncio.sleep(0.15)
        return self.pushes.empty()

    def pause(self) -> None:
        self._reading.cancel()

    def resume(self) -> None:
        self._reading = asyncio.create_task(self._read())

    def drop(self) -> None:
        """Be gone without a word: nobody has to read a goodbye, or what was sent before it."""
        connection = self.socket._response.connection
        assert connection is not None
        assert connection.transport is not None
        connection.transport.abort()

    async def close(self) -> None:
        await self.socket.close()
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)

    async def _read(self) -> None:
        async for message in self.socket:
            assert message.type is aiohttp.WSMsgType.TEXT
            self._take(orjson.loads(message.data))

    def _take(self, frame: dict[str, Any]) -> None:
        self.frames.append(frame)
        assert frame["payload"] == frame["eventa"]
        kind, body = frame["type"], frame["payload"].get("body")
        if kind == protocol.NEW_MESSAGES:
            protocol.NewMessages.model_validate_json(orjson.dumps(body))
            self.pushes.put_nowait(body)
        elif "-receive-" in kind:
            self._answered(kind, body)
        else:
            self.events.put_nowait(frame)

    def _answered(self, kind: str, body: dict[str, Any]) -> None:
        future = self._calls.pop(body["invokeId"], None)
        if future is None or future.done():
            self.events.put_nowait({"type": kind, "body": body})
        elif "error" in body["content"] and "-receive-error-" in kind:
            future.set_exception(Rejected(body["content"]["error"]))
        else:
            future.set_result(body["content"])
