"""The sockets as an AsyncAPI 3 document, from the server's point of view: it receives calls."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from chats.sockets import protocol
from chats.sockets.documents import frames, schemas
from chats.sockets.documents.frames import Message
from chats.sockets.documents.schemas import MODELS, Schema
from chats.sockets.protocol import CloseCode

REF: Final = "#/components/schemas/{model}"
CLOSINGS: Final = {
    CloseCode.TOO_BIG: "A frame was too big. Reconnect, and do not send it again.",
    CloseCode.UNAVAILABLE: "It could not be found out who is calling, or a ping was not answered. "
    "Reconnect with backoff.",
    CloseCode.RESTARTING: "This instance stops. Reconnect with backoff; another one answers.",
    CloseCode.TRY_AGAIN: "The client read too slowly or authenticated too late, too many wait to "
    "authenticate, or the key or its user has too many sockets. Reconnect with backoff, and pull.",
    CloseCode.UNAUTHORIZED: "The token or ticket does not stand, or not any more. Do not reconnect "
    "before there is another one.",
}
CHANNELS: Final = {"/ws/chat": "chat", "/ws/v2/chat": "chatV2"}
DESCRIPTIONS: Final = {
    "/ws/chat": "Authenticates with the upgrade: `token` or `ticket` in the query, or a header.",
    "/ws/v2/chat": "Authenticates with its first call, `chat:authenticate`.",
}
SECURITY: Final = {
    "token": {
        "type": "httpApiKey", "in": "query", "name": "token", "description": "An API key.",
    },
    "ticket": {
        "type": "httpApiKey", "in": "query", "name": "ticket",
        "description": "Made by POST /api/v1/ws-tickets; good once, for 30 s.",
    },
    "bearer": {"type": "http", "scheme": "bearer", "description": "Either of them, in a header."},
}  # fmt: skip


def document() -> Schema:
    """Return the whole document."""
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "AIRI server: chat sockets",
            "version": "1",
            "description": "How a client stays in step with its chats is in docs/websocket.md.",
        },
        "defaultContentType": "application/json",
        "servers": _servers(),
        "channels": {CHANNELS[path]: _channel(path) for path in protocol.SOCKETS},
        "operations": dict(_operations()),
        "components": {
            "messages": dict(_messages()),
            "schemas": schemas.definitions({**MODELS, **frames.models()}, ref=REF),
            "securitySchemes": SECURITY,
            "correlationIds": {
                "invokeId": {
                    "description": "Chosen by the caller, repeated by the answer.",
                    "location": "$message.payload#/payload/body/invokeId",
                }
            },
        },
    }


def _servers() -> Schema:
    host = {"default": "airi.example", "description": "The host of `API_SERVER_URL`."}
    return {
        "deployment": {"host": "{host}", "protocol": "wss", "variables": {"host": host}},
        "local": {"host": "127.0.0.1:8000", "protocol": "ws"},
    }


def _channel(path: str) -> Schema:
    messages = list(frames.events().values())
    for call in protocol.SOCKETS[path]:
        messages += [frames.request(call), *frames.replies(call)]
    binding: Schema = {"method": "GET"}
    if _authenticates_with_upgrade(path):
        fields = {name: {"type": "string"} for name in ("token", "ticket")}
        binding["query"] = {"type": "object", "properties": fields}
    return {
        "address": path,
        "description": DESCRIPTIONS[path],
        "messages": {
            message.name: {"$ref": f"#/components/messages/{message.name}"} for message in messages
        },
        "bindings": {"ws": binding},
        "x-close-codes": [
            {"code": int(code), "meaning": CLOSINGS[code]} for code in protocol.CloseCode
        ],
        "x-max-frame-bytes": protocol.MAX_FRAME_BYTES,
    }


def _operations() -> Iterator[tuple[str, Schema]]:
    for path, calls in protocol.SOCKETS.items():
        channel = CHANNELS[path]
        for call in calls:
            request = frames.request(call)
            asked = _operation("receive", channel, request)
            answers = _of_channel(channel, frames.replies(call))
            reply = {"channel": asked["channel"], "messages": answers}
            yield f"{channel}.{request.name}", {**asked, "reply": reply, **_security(path)}
        for event in frames.events().values():
            yield f"{channel}.{event.name}", _operation("send", channel, event)


def _operation(action: str, channel: str, message: Message) -> Schema:
    return {
        "action": action,
        "summary": message.summary,
        "channel": {"$ref": f"#/channels/{channel}"},
        "messages": _of_channel(channel, [message]),
    }


def _of_channel(channel: str, messages: Iterable[Message]) -> list[Schema]:
    return [{"$ref": f"#/channels/{channel}/messages/{message.name}"} for message in messages]


def _messages() -> Iterator[tuple[str, Schema]]:
    """Yield AsyncAPI's message objects by name."""
    correlation = {"correlationId": {"$ref": "#/components/correlationIds/invokeId"}}
    for event in frames.events().values():
        yield event.name, _message(event)
    for call in protocol.CALLS.values():
        for message in (frames.request(call), *frames.replies(call)):
            yield message.name, {**_message(message), **correlation}


def _message(message: Message) -> Schema:
    return {
        "name": message.event_id,
        "title": message.name,
        "summary": message.summary,
        "payload": {"$ref": REF.format(model=message.frame.__name__)},
    }


def _security(path: str) -> Schema:
    if not _authenticates_with_upgrade(path):
        return {}
    return {"security": [{"$ref": f"#/components/securitySchemes/{name}"} for name in SECURITY]}


def _authenticates_with_upgrade(path: str) -> bool:
    return protocol.AUTHENTICATE not in protocol.SOCKETS[path]
