"""Who opens a socket: by API key or one-time ticket, in the URL, a header or the first call."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import parse_qs

from accounts import addresses, auth, revalidation
from accounts.revalidation import Caller
from airi_server.kernel import database
from airi_server.kernel.errors import Forbidden, Unauthorized
from airi_server.runtime import published
from chats import tickets
from chats.sockets.protocol import CloseCode
from chats.tickets import TicketsAway

logger = logging.getLogger(__name__)

MAX_FIELDS: Final = 20

Scope = dict[str, Any]


@dataclass(frozen=True, slots=True)
class SocketRefusal:
    """Why a socket is closed instead of served."""

    code: CloseCode
    reason: str


UNAUTHORIZED: Final = SocketRefusal(CloseCode.UNAUTHORIZED, "unauthorized")
UNAVAILABLE: Final = SocketRefusal(CloseCode.UNAVAILABLE, "authentication unavailable")


async def of_upgrade(scope: Scope) -> Caller | SocketRefusal:
    """Return who opens `/ws/chat`: `?token=`, `?ticket=`, or the `Authorization` header."""
    authorization = _authorization_of(scope)
    if authorization is None:
        return UNAUTHORIZED
    return await _resolved(authorization, addresses.of_scope(scope))


async def of_token(token: str, address: str) -> Caller | SocketRefusal:
    """Return who presents an API key or a ticket."""
    return await _resolved(f"Bearer {token}", address)


def forget_secrets(scope: Scope) -> None:
    """Drop what the scope of a socket would otherwise keep for as long as it is open."""
    scope["query_string"] = b""
    scope["headers"] = [header for header in scope["headers"] if header[0] != b"authorization"]


def _authorization_of(scope: Scope) -> str | None:
    try:
        query = parse_qs(scope["query_string"].decode("latin-1"), max_num_fields=MAX_FIELDS)
    except ValueError:
        return None
    for name in ("token", "ticket"):
        if name in query:
            return f"Bearer {query[name][0]}"
    return next(
        (value.decode("latin-1") for name, value in scope["headers"] if name == b"authorization"),
        None,
    )


async def _resolved(authorization: str, address: str) -> Caller | SocketRefusal:
    try:
        return await _caller(authorization, address)
    except (Unauthorized, Forbidden):
        return UNAUTHORIZED
    except (TicketsAway, *database.AWAY):
        return UNAVAILABLE
    except Exception:
        logger.exception("A caller could not be resolved")
        return UNAVAILABLE


async def _caller(authorization: str, address: str) -> Caller:
    token = authorization.partition(" ")[2]
    await published.refresh()
    if tickets.is_ticket(token):
        caller = await tickets.redeem(token, address=address)
        if caller is None or await revalidation.fallen({caller}, at=datetime.now(UTC)):
            raise Unauthorized("Unauthorized")
        return caller
    principal = await auth.authenticate(authorization, address=address)
    if principal.api_key_id is None:
        raise Unauthorized("Unauthorized")  # nothing to look at again later
    return Caller(principal.user_id, principal.api_key_id, address)
