"""Both generations of eventa's envelope are read; the merged one is always written. Pure.

Generation A is `{type, payload: {body}}`, B is `{deliveryId, hopsRemaining, eventa: {id, body}}`.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NoReturn

import orjson
from pydantic import BaseModel

from airi_server.kernel import ids
from airi_server.kernel.errors import DomainError, InvalidRequest
from chats.sockets import protocol
from chats.sockets.protocol import InvokeType, Procedure

HOPS: Final = 31
SEND: Final = "-send"
"""What the id of a call's event ends with."""


class MalformedFrame(ValueError):
    """The frame is no envelope of either generation."""


class Uncallable(Exception):
    """An event asks for an answer and is no call of ours.

    Args:
        message: What is wrong, for people.
        tag: Of what was called; None if it cannot be repeated.
        invoke_id: As it was sent, of any type, for the answer to repeat; None if it cannot.
    """

    def __init__(self, message: str, tag: str | None, invoke_id: _Repeated | None) -> None:
        super().__init__(message)
        self.refused = InvalidRequest(message)
        self.tag = tag
        self.invoke_id = invoke_id


@dataclass(frozen=True, slots=True)
class _Repeated:
    """An `invokeId` of a caller: as the end of an event's id, and as JSON in its body."""

    word: str
    text: bytes


@dataclass(frozen=True, slots=True)
class IncomingEvent:
    """One event as a client sent it, whatever it came in."""

    event_id: str
    body: Any


@dataclass(frozen=True, slots=True)
class CallRequest:
    """A call to be answered. `content` is unchecked."""

    call: Procedure
    invoke_id: str
    content: Any


def read(text: str) -> IncomingEvent:
    """Return the event in a frame.

    Raises:
        Malformed: It is not JSON, not an object, or carries no event.
    """
    frame = _parsed(text)
    if not isinstance(frame, dict):
        raise MalformedFrame
    eventa = frame.get("eventa")
    if isinstance(eventa, dict) and _is_delivery(frame, eventa):
        return IncomingEvent(eventa["id"], eventa.get("body"))
    payload = frame.get("payload")
    if not isinstance(payload, dict):
        raise MalformedFrame
    event_id = frame.get("type")
    return IncomingEvent(event_id if isinstance(event_id, str) else "", payload.get("body"))


def request_in(incoming: IncomingEvent, calls: Mapping[str, Procedure]) -> CallRequest | None:
    """Return the call of `calls` that an event asks for; None for what gets no answer.

    Raises:
        Uncallable: It asks for a call that is not served, or cannot be answered by its `invokeId`.
    """
    body = incoming.body if isinstance(incoming.body, dict) else {}
    call = calls.get(incoming.event_id)
    if call is None and not (incoming.event_id.endswith(SEND) and "invokeId" in body):
        return None
    invoke_id = body.get("invokeId")
    repeated = _repeated(invoke_id) if "invokeId" in body else None
    if call is None:
        tag = incoming.event_id.removesuffix(SEND)
        if len(tag) > protocol.MAX_INVOKE_ID or not _is_text(tag):
            raise Uncallable("There is no such call here.", None, None)
        raise Uncallable(f"There is no call {tag} here.", tag, repeated)
    if not isinstance(invoke_id, str) or not invoke_id or repeated is None:
        raise Uncallable(
            f"A call needs an invokeId: a string of 1 to {protocol.MAX_INVOKE_ID} characters.",
            call.tag,
            repeated,
        )
    return CallRequest(call, invoke_id, body.get("content"))


def connected() -> str:
    return _merged(protocol.CONNECTED, b"{}")


def malformed() -> str:
    return _merged(protocol.MALFORMED, b'{"error":{}}')


def resync() -> str:
    return _merged(protocol.RESYNC, b"{}")


def push(new: protocol.NewMessages) -> str:
    return _merged(protocol.NEW_MESSAGES, _dumped(new))


def answer(request: CallRequest, response: BaseModel) -> str:
    invoke_id = orjson.dumps(request.invoke_id)
    body = b'{"invokeId":%b,"content":%b}' % (invoke_id, _dumped(response))
    event_id = f"{request.call.tag}-receive-{request.invoke_id}"
    return _merged(event_id, body, InvokeType.RECEIVE)


def refusal(request: CallRequest, refused: DomainError) -> str:
    """Return the frame a call is rejected with."""
    invoke_id = orjson.dumps(request.invoke_id)
    return _rejected(request.call.tag, request.invoke_id, invoke_id, _error(refused))


def uncallable(event: Uncallable) -> str:
    """Return the answer to an event that is no call: a rejection, if its caller can find it."""
    error = _error(event.refused)
    if event.tag is None or event.invoke_id is None:
        return _merged(protocol.MALFORMED, b'{"error":%b}' % error)
    return _rejected(event.tag, event.invoke_id.word, event.invoke_id.text, error)


def _rejected(tag: str, word: str, invoke_id: bytes, error: bytes) -> str:
    body = b'{"invokeId":%b,"content":{"error":%b}}' % (invoke_id, error)
    return _merged(f"{tag}-receive-error-{word}", body, InvokeType.RECEIVE_ERROR)


def _error(refused: DomainError) -> bytes:
    return _dumped(
        protocol.ChatError(
            name="ApiError",
            status_code=refused.status,
            error_code=refused.code,
            message=refused.message,
            details=refused.details,
        )
    )


def _repeated(invoke_id: Any) -> _Repeated | None:
    """Return an `invokeId` for an answer to repeat, unless no answer could be found by it."""
    match invoke_id:
        case str():
            is_short = len(invoke_id) <= protocol.MAX_INVOKE_ID and _is_text(invoke_id)
            return _Repeated(invoke_id, orjson.dumps(invoke_id)) if is_short else None
        case None | bool():
            pass
        case int() | float():
            if not math.isfinite(invoke_id) or abs(invoke_id) > protocol.MAX_SAFE_INTEGER:
                return None
        case _:
            return None
    text = orjson.dumps(invoke_id)
    return _Repeated(text.decode(), text)


def _merged(event_id: str, body: bytes, invoke_type: InvokeType | None = None) -> str:
    """Return a frame that peers of either generation read; its body is serialized once."""
    event: dict[str, Any] = {"id": event_id, "type": "event", "_flowDirection": "outbound"}
    if invoke_type is not None:
        event["invokeType"] = int(invoke_type)
    event["body"] = orjson.Fragment(body)
    # A delivery id that was seen before is dropped as a duplicate.
    fresh = str(ids.uuid7())
    return orjson.dumps(
        {
            "id": fresh,
            "type": event_id,
            "payload": event,
            "timestamp": time.time_ns() // 1_000_000,
            "deliveryId": fresh,
            "hopsRemaining": HOPS,
            "eventa": event,
        }
    ).decode()


def _dumped(body: BaseModel) -> bytes:
    """Return a body as JSON: what is optional and empty is left out."""
    optional = {"deleted", "details"} & type(body).model_fields.keys()
    empty = {name for name in optional if not getattr(body, name)}
    return body.model_dump_json(by_alias=True, exclude=empty).encode()


def _parsed(text: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        if r"\ud" not in text and r"\uD" not in text:
            raise MalformedFrame from None
    # Half of a surrogate pair is JSON all the same: its call is refused, not left unanswered.
    try:
        return json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise MalformedFrame from None


def _refuse(constant: str) -> NoReturn:
    raise MalformedFrame(constant)


def _is_delivery(frame: dict[str, Any], eventa: dict[str, Any]) -> bool:
    delivery_id, hops = frame.get("deliveryId"), frame.get("hopsRemaining")
    return (
        isinstance(delivery_id, str)
        and bool(delivery_id)
        and type(hops) is int
        and 0 <= hops <= protocol.MAX_SAFE_INTEGER
        and isinstance(eventa.get("id"), str)
    )


def _is_text(text: str) -> bool:
    return not any("\ud800" <= letter <= "\udfff" for letter in text)
