"""Grants: Flux that an operator gives to many people, once for each person and key.

The console and the HTTP API call the same two functions: `preview` reads, `apply` reads again
and pays. Each person is paid in a transaction of their own, together with its audit row.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from django.db import transaction

from accounts import users
from airi_server.kernel.errors import Conflict, DomainError
from airi_server.runtime import audit
from billing import ledger
from billing.models import FluxAccount, FluxTransaction

logger = logging.getLogger(__name__)

PERMISSION: Final = "billing.grant_flux"
SOURCE: Final = "admin_promo"
MAX_EMAILS: Final = 200
MAX_AMOUNT: Final = 10_000
MAX_DESCRIPTION: Final = 500
MAX_KEY: Final = 100
MAX_ERROR: Final = 500
BUDGET_S: Final = 40.0
"""After this nobody new is paid: an answer that comes is worth more than one that is complete."""
FAILED: Final = "Unable to credit; the log says why. With the same key, trying again is safe."
NOT_TRIED: Final = "Not tried: this took too long. Send it again with the same key."


class Refusal(StrEnum):
    """Why somebody is not paid, as it is on the wire."""

    DUPLICATE = "duplicate_in_input"
    NOT_FOUND = "not_found"
    DELETED = "user_deleted"


@dataclass(frozen=True, slots=True)
class Order:
    """What an operator asks for: `amount` for each address. Without a key a retry pays again."""

    emails: tuple[str, ...]
    amount: int
    description: str
    key: str | None = None

    def request_id(self, user_id: str) -> str | None:
        return None if self.key is None else f"flux-grant:{self.key}:{user_id}"


@dataclass(frozen=True, slots=True)
class Recipient:
    """One address as it was typed, and who that is. `earlier`: what this key gave them before."""

    email: str
    user_id: str = ""
    refusal: Refusal | None = None
    earlier: ledger.Posting | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """Who would be paid, in the order of the input."""

    order: Order
    recipients: tuple[Recipient, ...]

    @property
    def will_grant(self) -> list[Recipient]:
        return [each for each in self.recipients if each.refusal is None]

    @property
    def to_pay(self) -> list[Recipient]:
        """Who would really be paid: of those, whoever has nothing by this key."""
        return [each for each in self.will_grant if each.earlier is None]

    @property
    def paid_before(self) -> list[Recipient]:
        return [each for each in self.recipients if each.earlier is not None]

    def refused(self, refusal: Refusal) -> list[Recipient]:
        return [each for each in self.recipients if each.refusal is refusal]

    @property
    def total_flux(self) -> int:
        """What the order comes to, as if its key were new (contract §10)."""
        return len(self.will_grant) * self.order.amount

    @property
    def flux_to_move(self) -> int:
        """What applying it now would really add."""
        return len(self.to_pay) * self.order.amount


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one recipient: refused, paid (now or before), or failed."""

    recipient: Recipient
    posting: ledger.Posting | None = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class Result:
    """What applying an order did, in the order of the input."""

    plan: Plan
    outcomes: tuple[Outcome, ...]

    @property
    def granted(self) -> list[tuple[Recipient, ledger.Posting]]:
        return [(each.recipient, each.posting) for each in self.outcomes if each.posting]

    @property
    def failed(self) -> list[Outcome]:
        return [each for each in self.outcomes if each.error]

    @property
    def flux_moved(self) -> int:
        return sum(posting.amount for _, posting in self.granted if not posting.replayed)


def preview(order: Order) -> Plan:
    """Find out who would be paid, in three statements; write nothing."""
    found = users.with_emails(order.emails)
    ids = [user.pk for user in found.values()]
    closed = set(
        FluxAccount.objects.filter(user_id__in=ids, deleted_at__isnull=False).values_list(
            "user_id", flat=True
        )
    )
    keys = {user_id: key for user_id in ids if (key := order.request_id(user_id)) is not None}
    earlier = ledger.find_all(keys) if keys else {}
    seen: set[str] = set()
    recipients = []
    for email in order.emails:
        lower = email.lower()
        user_id = found[lower].pk if lower in found else ""
        if lower in seen:
            recipients.append(Recipient(email, refusal=Refusal.DUPLICATE))
        elif not user_id:
            recipients.append(Recipient(email, refusal=Refusal.NOT_FOUND))
        elif user_id in closed:
            recipients.append(Recipient(email, user_id, Refusal.DELETED))
        else:
            recipients.append(Recipient(email, user_id, earlier=earlier.get(user_id)))
        seen.add(lower)
    return Plan(order, tuple(recipients))


def apply(order: Order, *, by: audit.Actor, at: datetime) -> Result:
    """Pay everybody who can be paid, one after the other, each in one transaction.

    Safe to repeat with the same key, also at the same instant: whoever has an entry under it
    gets that entry back, even if the amount differs by now. A failure concerns one recipient.
    Call it outside of a transaction.
    """
    plan = preview(order)
    return Result(plan, tuple(_outcomes(plan, by, at)))


def _outcomes(plan: Plan, by: audit.Actor, at: datetime) -> Iterator[Outcome]:
    stop_at = time.monotonic() + BUDGET_S
    for recipient in plan.recipients:
        if recipient.refusal is not None:
            yield Outcome(recipient)
        elif time.monotonic() > stop_at:
            yield Outcome(recipient, error=NOT_TRIED)
        else:
            yield _pay(plan.order, recipient, by, at)


def _pay(order: Order, recipient: Recipient, by: audit.Actor, at: datetime) -> Outcome:
    try:
        with transaction.atomic():
            posting = _credit(order, recipient.user_id, by, at)
            if not posting.replayed:
                _record(order, recipient.user_id, posting, by, at)
    except DomainError as refused:
        return Outcome(recipient, error=refused.message[:MAX_ERROR])
    except Exception:
        # To stop here would tell nobody who of the others was paid.
        logger.exception("Unable to grant", extra={"user": recipient.user_id})
        return Outcome(recipient, error=FAILED)
    return Outcome(recipient, posting)


def _credit(order: Order, user_id: str, by: audit.Actor, at: datetime) -> ledger.Posting:
    request_id = order.request_id(user_id)
    metadata: dict[str, Any] = {"description": order.description, "issuedByUserId": by.user_id}
    if order.key is not None:
        metadata["idempotencyKey"] = order.key
    try:
        return ledger.credit(
            user_id=user_id,
            amount=order.amount,
            request_id=request_id,
            description=order.description,
            at=at,
            kind=FluxTransaction.Kind.PROMO,
            metadata=metadata,
        )
    except Conflict:
        # The ledger refuses a key with another amount; of grants the contract (§10) wants the
        # first one back instead. Nothing but grants has keys of this namespace.
        earlier = ledger.find(user_id=user_id, request_id=request_id or "")
        if earlier is None:
            raise
        return earlier


def _record(
    order: Order, user_id: str, posting: ledger.Posting, by: audit.Actor, at: datetime
) -> None:
    audit.record(
        action=PERMISSION,
        subject=audit.Subject(FluxAccount._meta.label_lower, user_id),  # noqa: SLF001  public in all but name
        by=by,
        at=at,
        sentence=f"Granted {order.amount} Flux: {order.description}",
        facts={
            "amount": order.amount,
            "balanceAfter": posting.balance_after,
            "entry": posting.entry_id,
            "key": order.key,
            "source": SOURCE,
        },
    )
