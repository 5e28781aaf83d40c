"""Grants: Flux that an operator gives to many people, once for each person and key.

The console and the HTTP API call the same two functions: `preview` reads, `apply` reads again
and pays. The grant and whoever is refused are written first; then each person is paid in a
transaction of their own, together with the audit row and the row that says so of the grant.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from django.db import DatabaseError, transaction
from django.db.models import Q
from django.db.models.functions import Lower

from accounts import users
from airi_server.kernel.errors import Conflict, DomainError
from airi_server.runtime import audit
from billing import grant_rows, ledger
from billing.models import FluxAccount, FluxGrant, FluxGrantPerson, FluxTransaction

logger = logging.getLogger(__name__)

PERMISSION: Final = ledger.GRANT
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


class GrantRefusal(StrEnum):
    """Why somebody is not paid, as it is on the wire."""

    DUPLICATE = "duplicate_in_input"
    NOT_FOUND = "not_found"
    DELETED = "user_deleted"


@dataclass(frozen=True, slots=True)
class Named:
    """One address as it was read, what it is to get, and how it was pasted if not just so."""

    email: str
    amount: int
    pasted: str = ""


@dataclass(frozen=True, slots=True)
class GrantOrder:
    """What an operator asks for. Without a key a retry pays again."""

    people: tuple[Named, ...]
    description: str
    key: str | None = None

    @classmethod
    def of(
        cls, emails: Iterable[str], amount: int, description: str, key: str | None = None
    ) -> GrantOrder:
        """Order the same for everybody."""
        return cls(tuple(Named(email, amount) for email in emails), description, key)

    @property
    def amount(self) -> int | None:
        """What each person gets; None if they differ."""
        amounts = {each.amount for each in self.people}
        return amounts.pop() if len(amounts) == 1 else None

    def request_id(self, user_id: str) -> str | None:
        return None if self.key is None else f"flux-grant:{self.key}:{user_id}"


@dataclass(frozen=True, slots=True)
class Recipient:
    """One address, and who that is. `earlier`: what this key gave them before."""

    named: Named
    user_id: str = ""
    refusal: GrantRefusal | None = None
    earlier: ledger.Posting | None = None

    @property
    def email(self) -> str:
        return self.named.email


@dataclass(frozen=True, slots=True)
class GrantPlan:
    """Who would be paid, in the order of the input."""

    order: GrantOrder
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

    def refused(self, refusal: GrantRefusal) -> list[Recipient]:
        return [each for each in self.recipients if each.refusal is refusal]

    @property
    def total_flux(self) -> int:
        """What the order comes to, as if its key were new (contract §10)."""
        return sum(each.named.amount for each in self.will_grant)

    @property
    def flux_to_move(self) -> int:
        """What applying it now would really add."""
        return sum(each.named.amount for each in self.to_pay)


@dataclass(frozen=True, slots=True)
class GrantOutcome:
    """What became of one recipient: refused, paid (now or before), or failed."""

    recipient: Recipient
    posting: ledger.Posting | None = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class GrantResult:
    """What applying an order did, in the order of the input. `grant_id` is where it is kept."""

    plan: GrantPlan
    grant_id: int
    outcomes: tuple[GrantOutcome, ...]

    @property
    def granted(self) -> list[tuple[Recipient, ledger.Posting]]:
        return [(each.recipient, each.posting) for each in self.outcomes if each.posting]

    @property
    def failed(self) -> list[GrantOutcome]:
        return [each for each in self.outcomes if each.error]

    @property
    def flux_moved(self) -> int:
        return sum(posting.amount for _, posting in self.granted if not posting.replayed)


def preview(order: GrantOrder) -> GrantPlan:
    """Find out who would be paid, in three statements; write nothing."""
    found = users.with_emails([each.email for each in order.people])
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
    for named in order.people:
        lower = named.email.lower()
        user_id = found[lower].pk if lower in found else ""
        if lower in seen:
            recipients.append(Recipient(named, user_id, GrantRefusal.DUPLICATE))
        elif not user_id:
            recipients.append(Recipient(named, refusal=GrantRefusal.NOT_FOUND))
        elif user_id in closed:
            recipients.append(Recipient(named, user_id, GrantRefusal.DELETED))
        else:
            recipients.append(Recipient(named, user_id, earlier=earlier.get(user_id)))
        seen.add(lower)
    return GrantPlan(order, tuple(recipients))


def apply(order: GrantOrder, *, by: audit.Actor, at: datetime) -> GrantResult:
    """Pay everybody who can be paid, one after the other, each in one transaction.

    Safe to repeat with the same key, also at the same instant: whoever has an entry under it
    gets that entry back, even if the amount differs by now. A failure concerns one recipient.
    Call it outside of a transaction.
    """
    plan = preview(order)
    grant = _opened(plan, by, at)
    outcomes = tuple(_outcomes(plan, grant, by, at))
    _keep_failures(grant, outcomes, at)
    return GrantResult(plan, grant.pk, outcomes)


def again(grant_id: int) -> GrantOrder:
    """Return the order that pays whoever failed in a grant and has nothing by it so far.

    Without a key nobody is in it: trying again could pay twice.
    """
    grant = FluxGrant.objects.get(pk=grant_id)
    rows = [] if grant.key is None else grant_rows.missing(grant)
    people = [Named(row.email or "", row.amount, row.pasted or "") for row in rows]
    return GrantOrder(tuple(people), grant.description, grant.key)


def erase_addresses(*, user_id: str, at: datetime) -> None:
    """Forget how a user who leaves for good was addressed; who got what and why stays.

    Call it while the user's row is there: refusals from before they signed up have no id.
    """
    theirs = Q(user_id=user_id)
    if email := users.emails_of([user_id]).get(user_id):
        theirs |= Q(lower_email=email.lower())
    rows = FluxGrantPerson.objects.alias(lower_email=Lower("email")).filter(theirs)
    rows.filter(email__isnull=False).update(email=None, pasted=None)


def _opened(plan: GrantPlan, by: audit.Actor, at: datetime) -> FluxGrant:
    """Return the grant of the order's key, made by the first call, with whoever is refused."""
    order = plan.order
    facts = {
        "description": order.description,
        "amount": order.amount,
        "granted_by": by.user_id or str(by),
        "granted_at": at,
    }
    with transaction.atomic():
        if order.key is None:
            grant = FluxGrant.objects.create(**facts)
        else:
            grant, _ = FluxGrant.objects.get_or_create(key=order.key, defaults=facts)
        refused = [
            _person(grant, position, each, each.refusal, at)
            for position, each in enumerate(plan.recipients)
            if each.refusal is not None
        ]
        # A retry finds them there.
        FluxGrantPerson.objects.bulk_create(refused, ignore_conflicts=True)
    return grant


def _outcomes(
    plan: GrantPlan, grant: FluxGrant, by: audit.Actor, at: datetime
) -> Iterator[GrantOutcome]:
    stop_at = time.monotonic() + BUDGET_S
    for position, recipient in enumerate(plan.recipients):
        if recipient.refusal is not None:
            yield GrantOutcome(recipient)
        elif time.monotonic() > stop_at:
            yield GrantOutcome(recipient, error=NOT_TRIED)
        else:
            paid = _person(grant, position, recipient, FluxGrantPerson.Result.GRANTED, at)
            yield _pay(plan.order, recipient, paid, by, at)


def _pay(
    order: GrantOrder, recipient: Recipient, paid: FluxGrantPerson, by: audit.Actor, at: datetime
) -> GrantOutcome:
    try:
        with transaction.atomic():
            posting = _credit(order, recipient, by, at)
            if not posting.replayed:
                ledger.record_grant(
                    recipient.user_id, posting, description=order.description, by=by, at=at,
                    key=order.key, source=SOURCE,
                )  # fmt: skip
                paid.entry_id = posting.entry_id
                paid.save(force_insert=True)
    except DomainError as refused:
        return GrantOutcome(recipient, error=refused.message[:MAX_ERROR])
    except Exception:
        # To stop here would tell nobody who of the others was paid.
        logger.exception("Unable to grant", extra={"user": recipient.user_id})
        return GrantOutcome(recipient, error=FAILED)
    return GrantOutcome(recipient, posting)


def _credit(
    order: GrantOrder, recipient: Recipient, by: audit.Actor, at: datetime
) -> ledger.Posting:
    user_id = recipient.user_id
    request_id = order.request_id(user_id)
    metadata: dict[str, Any] = {"description": order.description, "issuedByUserId": by.user_id}
    if order.key is not None:
        metadata["idempotencyKey"] = order.key
    try:
        return ledger.credit(
            user_id=user_id,
            amount=recipient.named.amount,
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


def _keep_failures(grant: FluxGrant, outcomes: tuple[GrantOutcome, ...], at: datetime) -> None:
    """Write down who failed and why, outside of the transactions that were undone."""
    failed = [
        _person(grant, position, each.recipient, FluxGrantPerson.Result.FAILED, at, each.error)
        for position, each in enumerate(outcomes)
        if each.error
    ]
    try:
        FluxGrantPerson.objects.bulk_create(failed)
    except DatabaseError:
        # Who was paid is known and has to be said; what failed is in the log.
        logger.exception("Unable to write down who failed", extra={"grant": grant.pk})


def _person(
    grant: FluxGrant,
    position: int,
    recipient: Recipient,
    result: str,
    at: datetime,
    error: str = "",
) -> FluxGrantPerson:
    named = recipient.named
    return FluxGrantPerson(
        grant=grant,
        position=position,
        pasted=named.pasted or named.email,
        email=named.email,
        user_id=recipient.user_id or None,
        amount=named.amount,
        result=result,
        error=error,
        at=at,
    )
