"""Account state: frozen or deleted. The only writer of `frozen` and `deleted_at`.

Nothing has to be announced: opening a request reads the row it has locked. What is open when
the account freezes or closes is settled as usual. Of an account whose user has left, the balance
stays on the row and the entries in the ledger; no request opens and nobody grants.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

from django.db import transaction

from airi_server.kernel.errors import Conflict
from airi_server.runtime import audit
from billing import ledger
from billing.models import FluxAccount

PERMISSION: Final = "billing.freeze_account"
MAX_REASON: Final = 500


class HoldsNotCovered(Conflict):
    """Open requests hold more than the balance: only a frozen account may be like that."""


def freeze(*, user_id: str, reason: str, by: str, at: datetime) -> bool:
    """Refuse every new request of this account; return whether this call froze it.

    Raises:
        ledger.AccountClosed, NotFound: Deleted, or never opened.
    """
    with transaction.atomic():
        account = ledger.lock(user_id, opens=False)
        if account.frozen:
            return False
        _set(account, frozen=True, at=at)
        _record(account, f"Froze the account: {reason}", by, at)
        return True


def thaw(*, user_id: str, reason: str, by: str, at: datetime) -> bool:
    """Let a frozen account open requests again; return whether this call thawed it.

    Raises:
        HoldsNotCovered: It owes to its open requests. Nothing was changed.
        ledger.AccountClosed, NotFound: Deleted, or never opened.
    """
    with transaction.atomic():
        account = ledger.lock(user_id, opens=False)
        if not account.frozen:
            return False
        if account.balance < account.held:
            raise HoldsNotCovered(
                f"Open requests hold {account.held} Flux and the balance is {account.balance}. "
                "Wait until they have ended, or adjust the balance first."
            )
        _set(account, frozen=False, at=at)
        _record(account, f"Thawed the account: {reason}", by, at)
        return True


def _set(account: FluxAccount, *, frozen: bool, at: datetime) -> None:
    FluxAccount.objects.filter(pk=account.pk).update(frozen=frozen, updated_at=at)


def _record(account: FluxAccount, sentence: str, by: str, at: datetime) -> None:
    subject = audit.Subject.of(account)
    facts = {"balance": account.balance, "held": account.held}
    audit.record(action=PERMISSION, subject=subject, by=by, at=at, sentence=sentence, facts=facts)


def close(*, user_id: str, at: datetime) -> None:
    """Delete a user's account; again, or where there never was one, nothing."""
    account = FluxAccount.objects.filter(user_id=user_id, deleted_at__isnull=True)
    account.update(deleted_at=at, updated_at=at)
