"""The ledger: with the statements of `billing.requests`, the only writer of balances.

Every function posts exactly one entry and the matching balance in one transaction, takes the
account's lock before it reads, and is safe to retry with the same `request_id`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from django.db import connection, transaction

from airi_server.kernel import resources
from airi_server.kernel.errors import Conflict, DomainError, NotFound
from airi_server.runtime import audit
from billing import options
from billing.models import FluxAccount, FluxGrant, FluxGrantPerson, FluxTransaction

OPEN_ACCOUNT_SQL = resources.read_text("billing", "sql/open_account.sql")
GRANT: Final = "billing.grant_flux"
"""The permission that a grant needs, and its action in the audit log."""
TOO_MUCH: Final = "More would be taken than is free."
Kind = FluxTransaction.Kind


class AccountClosed(DomainError):
    """The account was deleted; its ledger stays."""

    code = "FORBIDDEN"
    status = 403


class BalanceTooLow(DomainError):
    """This would take more than is free."""

    code = "CONFLICT"
    status = 409


@dataclass(frozen=True, slots=True)
class Posting:
    """What one call did to an account. `replayed`: an earlier call with the same key did it."""

    entry_id: int
    user_seq: int
    amount: int
    balance_before: int
    balance_after: int
    posted_at: datetime
    replayed: bool = False


def open_account(*, user_id: str) -> bool:
    """Create the account with its opening grant; return whether this call did."""
    with connection.cursor() as cursor:
        cursor.execute(
            OPEN_ACCOUNT_SQL, {"user_id": user_id, "flux": options.INITIAL_USER_FLUX.read()}
        )
        return cursor.fetchone() is not None


def credit(  # noqa: PLR0913  an entry has this many facts
    *,
    user_id: str,
    amount: int,
    request_id: str | None,
    description: str,
    at: datetime,
    kind: str = Kind.CREDIT,
    metadata: dict[str, Any] | None = None,
) -> Posting:
    """Add `amount` whole Flux to an account, opening it if need be.

    Raises:
        Conflict: `request_id` was used for another entry. Nothing was posted.
        AccountClosed: The account was deleted. Nothing was posted.
        ValueError: `amount` is not positive.
    """
    if amount <= 0:
        raise ValueError("a credit must be at least 1 flux")
    with transaction.atomic():
        account = lock(user_id)
        if earlier := _replay(user_id, request_id, kind, amount):
            return earlier
        return _post(
            account,
            kind=kind,
            change=amount,
            request_id=request_id,
            description=description,
            metadata=metadata,
            at=at,
        )


def grant(
    *, user_id: str, amount: int, request_id: str, description: str, by: str, at: datetime
) -> Posting:
    """Credit Flux an operator decided on; entry, audit log and grant say by whom and why."""
    with transaction.atomic():
        posting = credit(
            user_id=user_id,
            amount=amount,
            request_id=request_id,
            description=description,
            at=at,
            kind=Kind.PROMO,
            metadata={"description": description, "issuedByUserId": by},
        )
        if not posting.replayed:
            record_grant(user_id, posting, description=description, by=by, at=at)
            _name_grant(user_id, posting, description=description, by=by, at=at)
        return posting


def record_grant(
    user_id: str, posting: Posting, *, description: str, by: str, at: datetime, **facts: Any
) -> None:
    """Write down in the audit log what a grant has just posted, in its transaction."""
    audit.record(
        action=GRANT,
        subject=audit.Subject(FluxAccount._meta.label_lower, user_id),  # noqa: SLF001  public in all but name
        by=by,
        at=at,
        sentence=f"Granted {posting.amount} Flux: {description}",
        facts={
            "amount": posting.amount,
            "balanceAfter": posting.balance_after,
            "entry": posting.entry_id,
            **facts,
        },
    )


def _name_grant(user_id: str, posting: Posting, *, description: str, by: str, at: datetime) -> None:
    """Write the grant's own rows. No address was given, and `request_id` is no key of a grant."""
    grant = FluxGrant.objects.create(
        description=description, amount=posting.amount, granted_by=by, granted_at=at
    )
    FluxGrantPerson.objects.create(
        grant=grant, position=0, user_id=user_id, amount=posting.amount,
        result=FluxGrantPerson.Result.GRANTED, entry_id=posting.entry_id, at=at,
    )  # fmt: skip


def adjust(
    *,
    user_id: str,
    change: int,
    request_id: str,
    description: str,
    at: datetime,
    metadata: dict[str, Any] | None = None,
) -> Posting:
    """Move a balance by `change`, up or down, because an operator says so.

    Raises:
        NotFound: There is no such account.
        Conflict: `request_id` was used for another entry. Nothing was posted.
        BalanceTooLow: More would be taken than is free. Nothing was posted.
        ValueError: `change` is 0.
    """
    if change == 0:
        raise ValueError("an adjustment must move something")
    with transaction.atomic():
        account = lock(user_id, opens=False)
        if earlier := _replay(user_id, request_id, Kind.ADMIN_SET, abs(change)):
            if earlier.balance_after - earlier.balance_before != change:
                raise Conflict("The key was used before with other contents.")
            return earlier
        if change < 0 and account.balance - account.held + change < 0:
            raise BalanceTooLow(TOO_MUCH)
        return _post(
            account,
            kind=Kind.ADMIN_SET,
            change=change,
            request_id=request_id,
            description=description,
            metadata=metadata,
            at=at,
        )


def reverse(
    *, user_id: str, user_seq: int, request_id: str, description: str, at: datetime
) -> Posting:
    """Undo one entry by appending another that names it; an entry is reversed at most once.

    Raises:
        NotFound: There is no such entry.
        Conflict: It was reversed before, or the key was used for something else.
        BalanceTooLow: A credit's Flux is spent or held. Nothing was posted.
    """
    with transaction.atomic():
        account = lock(user_id, opens=False)
        original = FluxTransaction.objects.filter(user_id=user_id, user_seq=user_seq).first()
        if original is None:
            raise NotFound("There is no such entry.")
        change = original.balance_before - original.balance_after
        if earlier := _replay(user_id, request_id, Kind.REVERSAL, abs(change), of=user_seq):
            return earlier
        reversed_before = FluxTransaction.objects.filter(user_id=user_id, reverses_seq=user_seq)
        if change == 0 or reversed_before.exists():
            raise Conflict("The entry moved nothing, or was reversed before.")
        if account.balance - account.held + change < 0:
            raise BalanceTooLow("The Flux to take back is spent or held.")
        return _post(
            account,
            kind=Kind.REVERSAL,
            change=change,
            request_id=request_id,
            description=description,
            metadata={"reverses": user_seq},
            at=at,
            reverses_seq=user_seq,
        )


def find(*, user_id: str, request_id: str) -> Posting | None:
    """Return what a key did before, whatever that was."""
    entry = FluxTransaction.objects.filter(user_id=user_id, request_id=request_id).first()
    return None if entry is None else _posting(entry, replayed=True)


def find_all(request_ids: Mapping[str, str]) -> dict[str, Posting]:
    """Return what keys did before, by user; in one statement, of a key for each user."""
    keys = {"user_id__in": request_ids.keys(), "request_id__in": request_ids.values()}
    entries = FluxTransaction.objects.filter(**keys)
    return {entry.user_id: _posting(entry, replayed=True) for entry in entries}


def lock(user_id: str, *, opens: bool = True) -> FluxAccount:
    """Return the account, locked until the transaction ends, opening it if need be.

    Raises:
        NotFound: There is none, and it is not to be opened.
        AccountClosed: It was deleted.
    """
    rows = FluxAccount.objects.select_for_update(no_key=True).filter(user_id=user_id)
    account = rows.first()
    if account is None:
        if not opens:
            raise NotFound("There is no such account.")
        open_account(user_id=user_id)
        account = rows.get()
    if account.deleted_at is not None:
        raise AccountClosed("The account was deleted.")
    return account


def _replay(
    user_id: str, request_id: str | None, kind: str, amount: int, *, of: int | None = None
) -> Posting | None:
    """Return what `request_id` did before, if it did exactly this. Needs the account's lock."""
    if request_id is None:
        return None
    entry = FluxTransaction.objects.filter(user_id=user_id, request_id=request_id).first()
    if entry is None:
        return None
    if (entry.kind, entry.amount, entry.reverses_seq) != (kind, amount, of):
        raise Conflict("The key was used before with other contents.")
    return _posting(entry, replayed=True)


def _post(account: FluxAccount, *, change: int, at: datetime, **columns: Any) -> Posting:
    entry = FluxTransaction.objects.create(
        user_id=account.user_id,
        user_seq=account.ledger_seq + 1,
        amount=abs(change),
        balance_before=account.balance,
        balance_after=account.balance + change,
        created_at=at,
        **columns,
    )
    FluxAccount.objects.filter(user_id=account.user_id).update(
        balance=entry.balance_after, ledger_seq=entry.user_seq, updated_at=at
    )
    return _posting(entry, replayed=False)


def _posting(entry: FluxTransaction, *, replayed: bool) -> Posting:
    return Posting(
        entry_id=entry.pk,
        user_seq=entry.user_seq,
        amount=entry.amount,
        balance_before=entry.balance_before,
        balance_after=entry.balance_after,
        posted_at=entry.created_at,
        replayed=replayed,
    )
