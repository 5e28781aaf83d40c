"""Finds rows of the books by what an operator has in hand. Each answer comes through an index."""

from __future__ import annotations

from typing import Final
from uuid import UUID

from billing.models import (
    FluxAccount,
    FluxGrant,
    FluxTransaction,
    LLMRequestLog,
    PriceVersion,
    RefusedRequest,
)

OF_REQUEST: Final = "llm:"
"""What the ledger key of a request begins with; the request's id follows."""
OPENINGS: Final = 1_000
"""Opening grants that are looked at for Flux: most are of none, and there is one an account."""


def as_request_id(term: str) -> UUID | None:
    """Read an id of a request as people paste it."""
    try:
        return UUID("".join(term.split()))
    except ValueError:
        return None


def is_request(request_id: UUID) -> bool:
    return LLMRequestLog.objects.filter(pk=request_id).exists()


def is_refused(request_id: UUID) -> bool:
    """Return whether a request of that id was refused in the last days, before it was opened."""
    return RefusedRequest.objects.filter(pk=request_id).exists()


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


def grant_keyed(key: str) -> int | None:
    """Return the grant that was made by this key."""
    return FluxGrant.objects.filter(key=key).order_by("pk").values_list("pk", flat=True).first()


def has_prices() -> bool:
    """Return whether anybody has ever set a price."""
    return PriceVersion.objects.exists()


def has_flux() -> bool:
    """Return whether anybody was ever given Flux, as far as the newest opening grants tell."""
    kinds = FluxTransaction.Kind
    given = FluxTransaction.objects.exclude(kind=kinds.DEBIT)  # what the index is of
    later = set(kinds.values) - {kinds.DEBIT, kinds.INITIAL}
    if given.filter(kind__in=sorted(later)).exists():
        return True
    # A range, not an equation: that would have the planner walk the primary key instead.
    opening = given.filter(kind__gte=kinds.INITIAL, kind__lte=kinds.INITIAL).order_by("kind", "-id")
    return any(opening.values_list("amount", flat=True)[:OPENINGS])


def _owner_of(key: str) -> str | None:
    kind, _, rest = key.partition(":")
    if f"{kind}:" != OF_REQUEST:
        return rest.rpartition(":")[2] or None
    try:
        request = LLMRequestLog.objects.filter(pk=UUID(rest))
    except ValueError:
        return None
    return request.order_by("pk").values_list("user_id", flat=True).first()
