"""Both generations of eventa's envelope are read; the merged one is always written. Pure.

Generation A is `{type, payload: {body}}`, B is `{deliveryId, hopsRemaining, eventa: {id, body}}`.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any, Final, NoReturn

import orjson
from pydantic import BaseModel

from airi_server.kernel import ids
from airi_server.kernel.errors import DomainError
from chats import protocol
from chats.protocol import Call, InvokeType

HOPS: Final = 31


class Malformed(ValueError):
    """The frame is no envelope of either generation."""


@dataclass(frozen=True, slots=True)
class Incoming:
    """One event as a client sent it, whatever it came in."""

    event_id: str
    body: Any


@dataclass(frozen=True, slots=True)
class Request:
    """A call to be answered. `content` is unchecked."""

    call: Call
    invoke_id: str
    content: Any


def read(text: str) -> Incoming:
    """Return the event in a frame.

    Raises:
        Malformed: It is not JSON, not an object, or carries no event.
    """
    frame = _parsed(text)
    if not isinstance(frame, dict):
        raise Malformed
    eventa = frame.get("eventa")
    if isinstance(eventa, dict) and _is_delivery(frame, eventa):
        return Incoming(eventa["id"], eventa.get("body"))
    payload = frame.get("payload")
    if not isinstance(payload, dict):
        raise Malformed
    event_id = frame.get("type")
    return Incoming(event_id if isinstance(event_id, str) else "", payload.get("body"))


def request_in(incoming: Incoming) -> Request | None:
    """Return the call an event asks for; None for everything that gets no answer.

    Raises:
        Malformed: Its id cannot be repeated in an answer.
    """
    call = protocol.CALLS.get(incoming.event_id)
    if call is None or not isinstance(incoming.body, dict):
        return None
    invoke_id = incoming.body.get("invokeId")
    if not isinstance(invoke_id, str) or not invoke_id:
        return None
    if len(invoke_id) > protocol.MAX_INVOKE_ID or not _is_text(invoke_id):
        raise Malformed
    return Request(call, invoke_id, incoming.body.get("content"))


def connected() -> str:
    return _merged(protocol.CONNECTED, b"{}")


def malformed() -> str:
    return _merged(protocol.MALFORMED, b'{"error":{}}')


def resync() -> str:
    return _merged(protocol.RESYNC, b"{}")


def push(new: protocol.NewMessages) -> str:
    return _merged(protocol.NEW_MESSAGES, _dumped(new))


def answer(request: Request, response: BaseModel) -> str:
    invoke_id = orjson.dumps(request.invoke_id)
    body = b'{"invokeId":%b,"content":%b}' % (invoke_id, _dumped(response))
    event_id = f"{request.call.tag}-receive-{request.invoke_id}"
    return _merged(event_id, body, InvokeType.RECEIVE)


def refusal(request: Request, refused: DomainError) -> str:
    """Return the frame a call is rejected with."""
    error = protocol.ChatError(
        name="ApiError",
        status_code=refused.status,
        error_code=refused.code,
        message=refused.message,
        details=refused.details,
    )
    invoke_id = orjson.dumps(request.invoke_id)
    body = b'{"invokeId":%b,"content":{"error":%b}}' % (invoke_id, _dumped(error))
    event_id = f"{request.call.tag}-receive-error-{request.invoke_id}"
    return _merged(event_id, body, InvokeType.RECEIVE_ERROR)


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
            raise Malformed from None
    # Half of a surrogate pair is JSON all the same: its call is refused, not left unanswered.
    try:
        return json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise Malformed from None


def _refuse(constant: str) -> NoReturn:
    raise Malformed(constant)


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
