"""Frames and events held against the models: nothing missing, nothing that no model names."""

from __future__ import annotations

from typing import Any

import orjson
from pydantic import BaseModel

from chats.sockets import protocol


def check(frame: dict[str, Any]) -> str:
    """Hold a frame in any envelope, or an event as the server writes it, to the models.

    Returns:
        The event's id, that of an answer without its `invokeId`.
    """
    if "payload" in frame and "eventa" in frame:
        exact(protocol.EnvelopeMerged, frame)
        assert frame["payload"] == frame["eventa"]
        assert frame["type"] == frame["payload"]["id"]
        return written(frame["payload"])
    if "payload" in frame:
        exact(protocol.EnvelopeA, frame)
        asked(frame["type"], frame["payload"]["body"])
        return str(frame["type"])
    if "eventa" in frame:
        exact(protocol.EnvelopeB, frame)
        asked(frame["eventa"]["id"], frame["eventa"]["body"])
        return str(frame["eventa"]["id"])
    return written(frame)


def asked(event_id: str, body: Any) -> None:
    call = protocol.CALLS[event_id]
    exact(protocol.Invocation, body)
    exact(call.request, body["content"])


def written(event: dict[str, Any]) -> str:
    exact(protocol.EventMerged, event)
    event_id, body = str(event["id"]), event["body"]
    if event_id in protocol.EVENTS:
        assert "invokeType" not in event
        exact(protocol.EVENTS[event_id], body)
        return event_id
    prefix = event_id.removesuffix(body["invokeId"])
    kind = protocol.InvokeType(event["invokeType"])
    tag, _, last_word = prefix.partition("-receive-")
    call = protocol.CALLS[f"{tag}-send"]
    if kind is protocol.InvokeType.RECEIVE_ERROR:
        assert (last_word, call.is_rejected) == ("error-", True)
        exact(protocol.Rejection, body)
    else:
        assert last_word == ""
        exact(protocol.Answer, body)
        exact(call.response, body["content"])
    return prefix


def exact(model: type[BaseModel], value: Any) -> None:
    """Let the model read the value, and find in it what was there and nothing else."""
    made = model.model_validate_json(orjson.dumps(value))
    assert orjson.loads(made.model_dump_json(by_alias=True, exclude_unset=True)) == value
