"""Adjustments: an operator corrects one balance, having looked at the ledger as it is."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from django.db import transaction

from airi_server.kernel.errors import Conflict
from airi_server.runtime import audit
from billing import ledger
from billing.models import FluxAccount

PERMISSION: Final = "billing.adjust_flux"
MAX_CHANGE: Final = 1_000_000_000
MAX_REASON: Final = 500


class LedgerMoved(Conflict):
    """The account has newer entries than the operator saw. Nothing was posted."""

    def __init__(self, account: FluxAccount) -> None:
        super().__init__(
            f"The ledger moved: the balance is {account.balance} Flux now, of which "
            f"{account.balance - account.held} are free. Nothing was posted; decide again.",
            details={"balance": account.balance, "ledgerSeq": account.ledger_seq},
        )
        self.account = account


class FormUsed(Conflict):
    """The key stands for another adjustment that was posted. Nothing was posted now."""


def adjust(  # noqa: PLR0913  what was seen, what is wanted, who, why and when
    *,
    user_id: str,
    change: int,
    expected_seq: int,
    reason: str,
    key: str,
    by: audit.Actor,
    at: datetime,
) -> ledger.Posting:
    """Move a balance by `change`, up or down, if the ledger is still as the operator saw it.

    Safe to repeat with the same key and change: the first posting comes back, `replayed`. The
    user reads `reason` in their history.

    Args:
        user_id: Whose account; it exists.
        change: Whole Flux, not 0, at most `MAX_CHANGE` either way.
        expected_seq: `ledger_seq` of the account as the operator saw it.
        reason: Why.
        key: Made with the form, so that a double click posts once.
        by: Who.
        at: When.

    Raises:
        LedgerMoved: There are newer entries. Nothing was posted.
        FormUsed: The key was used with another change. Nothing was posted.
        ledger.BalanceTooLow: It would take Flux that is held, or more than there is.
        ledger.AccountClosed, NotFound: Deleted, or never opened.
    """
    request_id = f"adjustment:{key}"
    with transaction.atomic():
        account = ledger.lock(user_id, opens=False)
        if earlier := ledger.find(user_id=user_id, request_id=request_id):
            if earlier.balance_after - earlier.balance_before != change:
                raise FormUsed("This form posted another adjustment before. Open it again.")
            return earlier
        if account.ledger_seq != expected_seq:
            raise LedgerMoved(account)
        posting = ledger.adjust(
            user_id=user_id,
            change=change,
            request_id=request_id,
            description=reason,
            metadata={"description": reason, "issuedByUserId": by.user_id},
            at=at,
        )
        audit.record(
            action=PERMISSION,
            subject=audit.Subject.of(account),
            by=by,
            at=at,
            sentence=f"Adjusted the balance by {change:+d} to {posting.balance_after}: {reason}",
            facts={
                "change": change,
                "balanceBefore": posting.balance_before,
                "balanceAfter": posting.balance_after,
                "entry": posting.entry_id,
            },
        )
        return posting
