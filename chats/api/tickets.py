"""`POST /api/v1/ws-tickets`: a one-time ticket for a socket."""

from __future__ import annotations

from typing import Any

from django.http import HttpResponse
from django.utils import timezone
from ninja import Router, Status
from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

from accounts import auth
from accounts.auth import AuthedRequest
from accounts.revalidation import Caller
from airi_server.kernel.errors import Forbidden
from airi_server.kernel.schemas import ErrorBody
from chats import tickets

router = Router(tags=["Chats"], by_alias=True)


class TicketOut(BaseModel):
    """Good for one socket; `expiresIn` is in seconds."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)

    ticket: str
    expires_in: int


@router.post("", response={201: TicketOut, **dict.fromkeys((401, 403, 429, 503), ErrorBody)})
def create_ticket(request: AuthedRequest, response: HttpResponse) -> Any:
    """Make a ticket for `/ws/chat?ticket=` or `chat:authenticate`, good once and for 30 s."""
    key_id = request.auth.api_key_id
    if key_id is None:
        raise Forbidden("Tickets are made with an API key.")
    caller = Caller(request.auth.user_id, key_id, auth.address_of(request))
    response["Cache-Control"] = "no-store"
    ticket = tickets.issue(caller, at=timezone.now())
    return Status(201, TicketOut(ticket=ticket, expires_in=tickets.KEEP_S))
