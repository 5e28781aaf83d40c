"""Every message of the protocol as it travels: the model of its frame, made of its body's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, Field, RootModel, create_model
from pydantic.alias_generators import to_camel

from chats.sockets import protocol
from chats.sockets.documents.schemas import Models
from chats.sockets.protocol import InvokeType, Procedure

SUMMARIES: Final = {
    protocol.CONNECTED: "The first frame on every socket that is not refused.",
    protocol.MALFORMED: "A frame could not be read, or its call answered. The connection stays.",
    protocol.NEW_MESSAGES: "Numbers were handed out in a chat of the caller's.",
    protocol.RESYNC: "The last frame before 1013 to a client that was too slow: reconnect, pull.",
}
_literal: Any = Literal


@dataclass(frozen=True, slots=True)
class Message:
    """One message: its event's id, its name in the document, and the model of its frame."""

    event_id: str
    name: str
    summary: str
    frame: type[BaseModel]


def events() -> dict[str, Message]:
    """Return what is no answer, by event id."""
    return {event_id: _event(event_id) for event_id in protocol.EVENTS}


def request(call: Procedure) -> Message:
    """Return what a call is asked with, in either generation's envelope."""
    title, event_id = call.request.__name__, _literal[f"{call.tag}-send"]
    body = create_model(f"{title}Invocation", __base__=protocol.Invocation, content=call.request)
    event_a = create_model(f"{title}EventA", __base__=protocol.EventA, body=body)
    event_b = create_model(f"{title}EventB", __base__=protocol.EventB, id=event_id, body=body)
    older = create_model(
        f"{title}FrameA", __base__=protocol.EnvelopeA, type=event_id, payload=event_a
    )
    newer = create_model(f"{title}FrameB", __base__=protocol.EnvelopeB, eventa=event_b)
    either: Any = older | newer
    frame = create_model(f"{title}Frame", __base__=RootModel[either])
    return Message(f"{call.tag}-send", _lowered(title), _summary(call.request), frame)


def replies(call: Procedure) -> list[Message]:
    """Return how a call is answered: its response, then its rejection if there is one."""
    title = call.response.__name__
    body = create_model(f"{title}Answer", __base__=protocol.Answer, content=call.response)
    response = _reply(
        f"{call.tag}-receive-", title, _summary(call.response), body, InvokeType.RECEIVE
    )
    rejection = _reply(
        f"{call.tag}-receive-error-",
        f"{call.request.__name__}Rejected",
        _summary(protocol.ChatError),
        protocol.Rejection,
        InvokeType.RECEIVE_ERROR,
    )
    return [response, rejection] if call.is_rejected else [response]


def models() -> Models:
    """Return the models of all frames."""
    calls = protocol.CALLS.values()
    sent = [*events().values(), *(reply for call in calls for reply in replies(call))]
    return {
        **{request(call).frame: "validation" for call in calls},
        **{message.frame: "serialization" for message in sent},
    }


def _event(event_id: str) -> Message:
    name = to_camel(event_id.rpartition(":")[2].replace("-", "_"))
    frame = _merged(f"{name[0].upper()}{name[1:]}", _literal[event_id], protocol.EVENTS[event_id])
    return Message(event_id, name, SUMMARIES[event_id], frame)


def _reply(
    prefix: str, title: str, summary: str, body: type[BaseModel], kind: InvokeType
) -> Message:
    event_id: Any = Annotated[str, Field(pattern=f"^{prefix}")]
    frame = _merged(title, event_id, body, invoke_type=_literal[int(kind)])
    return Message(f"{prefix}{{invokeId}}", _lowered(title), summary, frame)


def _merged(title: str, event_id: Any, body: type[BaseModel], **more: Any) -> type[BaseModel]:
    event = create_model(
        f"{title}Event", __base__=protocol.EventMerged, id=event_id, body=body, **more
    )
    return create_model(
        f"{title}Frame", __base__=protocol.EnvelopeMerged, type=event_id, payload=event,
        eventa=event,
    )  # fmt: skip


def _summary(model: type[Any]) -> str:
    return (model.__doc__ or "").partition("\n")[0]


def _lowered(name: str) -> str:
    return name[0].lower() + name[1:]
