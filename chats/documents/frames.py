"""Every message of the protocol as it travels: its body, in the envelopes it may come in."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from pydantic.alias_generators import to_camel

from chats import protocol
from chats.documents.schemas import Schema
from chats.protocol import Call, InvokeType

REF: Final = "#/components/schemas/{model}"
SUMMARIES: Final = {
    protocol.CONNECTED: "The first frame on every socket that is not refused.",
    protocol.MALFORMED: "A frame could not be read. The connection stays.",
    protocol.NEW_MESSAGES: "Numbers were handed out in a chat of the caller's.",
    protocol.RESYNC: "The last frame before 1013 to a client that was too slow: reconnect, pull.",
}


@dataclass(frozen=True, slots=True)
class Reply:
    """One way in which a call is answered."""

    name: str
    prefix: str
    body: Schema
    invoke_type: InvokeType
    summary: str


def request_name(call: Call) -> str:
    return _lowered(call.request.__name__)


def replies(call: Call) -> list[Reply]:
    """Return how a call is answered: its response, then its rejection if there is one."""
    response = Reply(
        _lowered(call.response.__name__),
        f"{call.tag}-receive-",
        _filled("Answer", call.response.__name__),
        InvokeType.RECEIVE,
        summary_of(call.response),
    )
    rejection = Reply(
        f"{request_name(call)}Rejected",
        f"{call.tag}-receive-error-",
        _ref(protocol.Rejection.__name__),
        InvokeType.RECEIVE_ERROR,
        summary_of(protocol.ChatError),
    )
    return [response, rejection] if call.is_rejected else [response]


def event_names() -> dict[str, str]:
    """Return the names of what is no answer, by event id."""
    last_words = {event_id: event_id.rpartition(":")[2] for event_id in protocol.EVENTS}
    return {event_id: to_camel(word.replace("-", "_")) for event_id, word in last_words.items()}


def summary_of(model: type[Any]) -> str:
    return (model.__doc__ or "").partition("\n")[0]


def messages() -> Schema:
    """Return AsyncAPI's message objects by name."""
    made: Schema = {}
    for event_id, name in event_names().items():
        made[name] = _message(event_id, name, SUMMARIES[event_id])
    for event_id, call in protocol.CALLS.items():
        asked = request_name(call)
        of_call = {asked: _message(event_id, asked, summary_of(call.request))}
        for reply in replies(call):
            its_id = f"{reply.prefix}{{invokeId}}"
            of_call[reply.name] = _message(its_id, reply.name, reply.summary)
        for message in of_call.values():
            message["correlationId"] = {"$ref": "#/components/correlationIds/invokeId"}
        made.update(of_call)
    return made


def schemas() -> Iterator[tuple[str, Schema]]:
    """Yield the schema of each message's frame, by name."""
    for event_id, name in event_names().items():
        body = _ref(protocol.EVENTS[event_id].__name__)
        yield _frame_of(name), _merged({"const": event_id}, body)
    for event_id, call in protocol.CALLS.items():
        asked = _filled("Invocation", call.request.__name__)
        either = {"anyOf": [_older(event_id, asked), _newer(event_id, asked)]}
        yield _frame_of(request_name(call)), either
        for reply in replies(call):
            kind = {"invokeType": {"const": int(reply.invoke_type)}}
            its_id = {"pattern": f"^{reply.prefix}"}
            yield _frame_of(reply.name), _merged(its_id, reply.body, kind)


def _message(event_id: str, name: str, summary: str) -> Schema:
    payload = _ref(_frame_of(name))
    return {"name": event_id, "title": name, "summary": summary, "payload": payload}


def _filled(body: str, content: str) -> Schema:
    return _narrowed(body, {"content": _ref(content)})


def _older(event_id: str, body: Schema) -> Schema:
    event = {"properties": {"body": body}, "required": ["body"]}
    return _narrowed("EnvelopeA", {"type": {"const": event_id}, "payload": event})


def _newer(event_id: str, body: Schema) -> Schema:
    event = {"properties": {"id": {"const": event_id}, "body": body}, "required": ["body"]}
    return _narrowed("EnvelopeB", {"eventa": event})


def _merged(event_id: Schema, body: Schema, more: Schema | None = None) -> Schema:
    properties = {"id": event_id, "body": body, **(more or {})}
    event = {"properties": properties, "required": list(properties)}
    return _narrowed("EnvelopeMerged", {"type": event_id, "payload": event, "eventa": event})


def _narrowed(model: str, properties: Schema) -> Schema:
    return {"allOf": [_ref(model), {"properties": properties, "required": list(properties)}]}


def _ref(model: str) -> Schema:
    return {"$ref": REF.format(model=model)}


def _lowered(name: str) -> str:
    return name[0].lower() + name[1:]


def _frame_of(name: str) -> str:
    return f"{name[0].upper()}{name[1:]}Frame"
