"""Finds rows of the books by what an operator has in hand. Each answer comes through an index."""

from __future__ import annotations

from typing import Final
from uuid import UUID

from billing.models import FluxAccount, FluxTransaction, LLMRequestLog, PriceVersion

OF_REQUEST: Final = "llm:"
"""What the ledger key of a request begins with; the request's id follows."""


def is_request(request_id: UUID) -> bool:
    return LLMRequestLog.objects.filter(pk=request_id).exists()


def is_account(user_id: str) -> bool:
    return FluxAccount.objects.filter(pk=user_id).exists()


def entry_keyed(key: str) -> int | None:
    """Return the row of the ledger entry with this key.

    Keys are unique for each user, and every kind of key we make names its user: in its last part,
    or by the request it belongs to.
    """
    owner = _owner_of(key)
    if owner is None:
        return None
    entries = FluxTransaction.objects.filter(user_id=owner, request_id=key)
    return entries.order_by("pk").values_list("pk", flat=True).first()


def has_prices() -> bool:
    """Return whether anybody has ever set a price."""
    return PriceVersion.objects.exists()


def has_flux() -> bool:
    """Return whether anybody has any Flux."""
    return FluxAccount.objects.filter(balance__gt=0).exists()


def _owner_of(key: str) -> str | None:
    kind, _, rest = key.partition(":")
    if f"{kind}:" != OF_REQUEST:
        return rest.rpartition(":")[2] or None
    try:
        request = LLMRequestLog.objects.filter(pk=UUID(rest))
    except ValueError:
        return None
    return request.order_by("pk").values_list("user_id", flat=True).first()
