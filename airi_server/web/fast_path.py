"""Chat completions past Django: the one operation that carries the load, under every path it has.

Django's request, its URL resolver, ninja's operation and Django's response cost as much as the
rest of what we do for a completion. The operation in `llmrouter.api.openai` stays, for the document
of the API and for whoever calls it through Django, as everybody does with `AIRI_FAST_PATH=off`.
Both ways hand the same `Call` to the gateway, and a test holds their answers against each other.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Final

from django.conf import settings

from accounts import addresses, auth
from accounts.auth import Principal
from airi_server.kernel import context
from airi_server.kernel.disconnects import ClientConnection
from airi_server.kernel.errors import DomainError
from airi_server.runtime import published
from airi_server.web import bodies
from airi_server.web.bodies import IncomingBody, Scope
from llmrouter.completions import operation
from llmrouter.completions.operation import Call
from llmrouter.completions.stream_buffer import Pour, Write
from llmrouter.completions.streaming import StreamedCompletion

PATHS: Final = frozenset(
    {
        "/v1/chat/completions",
        "/api/v1/openai/chat/completions",
        "/api/v1/openai/chat/completion",  # some clients in the field ask in the singular
    }
)
TAKEN = PATHS if settings.AIRI_FAST_PATH == "on" else frozenset()
READ: Final = frozenset({b"authorization", b"idempotency-key", b"traceparent", b"x-airi-hops"})


def takes(scope: Scope) -> bool:
    """Return whether a request goes this way."""
    return scope["path"] in TAKEN and scope["method"] == "POST"


async def complete(
    scope: Scope, receive: IncomingBody
) -> tuple[list[tuple[bytes, bytes]], bytes | Pour]:
    """Answer a completion: its headers as ASGI sends them, and its body or what writes it.

    Raises:
        DomainError: Refused; with `closes_connection` if the body was not read.
        ClientLeft: Nobody is there any more.
    """
    await published.refresh()
    headers = _headers(scope)
    principal: Principal | None = None
    try:
        principal = await auth.authenticate(
            headers.get(b"authorization"), address=addresses.of_scope(scope)
        )
        body = await bodies.read(receive, owner_of(principal))
        client = ClientConnection(receive)
        call = Call(
            principal=principal,
            body=body,
            client_key=headers.get(b"idempotency-key"),
            traceparent=headers.get(b"traceparent"),
            hops=headers.get(b"x-airi-hops"),
            client=client,
        )
    except DomainError as refused:
        refused.closes_connection = True
        if principal is not None:
            context.refused().is_of(principal.user_id, principal.api_key_id)
        raise
    try:
        reply = await operation.chat(call)
    except Exception:
        context.refused().is_of(principal.user_id, principal.api_key_id)
        raise
    sent = [
        (b"content-type", reply.content_type.encode()),
        *((name.encode(), value.encode()) for name, value in reply.headers),
    ]
    return sent, reply.body if reply.stream is None else partial(_pour, reply.stream, client)


async def _pour(stream: StreamedCompletion, client: ClientConnection, write: Write) -> None:
    """Write a stream; whoever stops writing it has left."""
    try:
        await stream.relay.pour(write)
    finally:
        stream.leave()
        client.close()


def owner_of(principal: Principal) -> str:
    """Return whose budget a body counts against: the key's, or the user's without one."""
    return principal.api_key_id or principal.user_id


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
