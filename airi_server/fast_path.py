"""Chat completions past Django: the one route that carries the load.

Django's request, its URL resolver, ninja's operation and Django's response cost as much as the
rest of what we do for a completion. The operation in `llmrouter.api` stays, for the document of
the API and for whoever calls it through Django; both ways hand the same `Call` to the gateway,
and a test holds their answers against each other.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Final

from accounts import addresses, auth
from airi_server import bodies
from airi_server.bodies import Receive, Scope
from airi_server.kernel.client import ClientConnection
from airi_server.kernel.errors import DomainError
from airi_server.runtime import published
from llmrouter import gateway
from llmrouter.completions.relay import Pour, Write
from llmrouter.completions.streaming import Streaming
from llmrouter.gateway import Call

PATHS: Final = frozenset({"/v1/chat/completions", "/api/v1/openai/chat/completions"})
READ: Final = frozenset({b"authorization", b"idempotency-key", b"traceparent"})


def takes(scope: Scope) -> bool:
    """Return whether a request goes this way."""
    return scope["path"] in PATHS and scope["method"] == "POST"


async def complete(
    scope: Scope, receive: Receive
) -> tuple[list[tuple[bytes, bytes]], bytes | Pour]:
    """Answer a completion: its headers as ASGI sends them, and its body or what writes it.

    Raises:
        DomainError: Refused; with `closes_connection` if the body was not read.
        ClientLeft: Nobody is there any more.
    """
    await published.refresh()
    headers = _headers(scope)
    try:
        principal = await auth.authenticate(
            headers.get(b"authorization"), address=addresses.of_scope(scope)
        )
        body = await bodies.read(receive)
    except DomainError as refused:
        refused.closes_connection = True
        raise
    client = ClientConnection(receive)
    reply = await gateway.chat(
        Call(
            principal=principal,
            body=body,
            client_key=headers.get(b"idempotency-key"),
            traceparent=headers.get(b"traceparent"),
            client=client,
        )
    )
    sent = [
        (b"content-type", reply.content_type.encode()),
        *((name.encode(), value.encode()) for name, value in reply.headers),
    ]
    return sent, reply.body if reply.stream is None else partial(_pour, reply.stream, client)


async def _pour(stream: Streaming, client: ClientConnection, write: Write) -> None:
    """Write a stream; whoever stops writing it has left."""
    try:
        await stream.relay.pour(write)
    finally:
        stream.leave()
        client.close()


def _headers(scope: Scope) -> dict[bytes, str]:
    """Return the headers that count here; one that came twice is joined, as Django does."""
    found: dict[bytes, str] = {}
    pair: tuple[bytes, Any]
    for pair in scope["headers"]:
        name = pair[0]
        if name in READ:
            value = pair[1].decode("latin-1")
            found[name] = f"{found[name]},{value}" if name in found else value
    return found
