"""Closures: an account whose user leaves for good. The only writer of `deleted_at`.

The balance stays on the row and the entries in the ledger. From then on no request opens and
nobody grants; what is open is settled as usual.
"""

from __future__ import annotations

from datetime import datetime

from billing.models import FluxAccount


def close(*, user_id: str, at: datetime) -> None:
    """Delete a user's account; again, or where there never was one, nothing."""
    account = FluxAccount.objects.filter(user_id=user_id, deleted_at__isnull=True)
    account.update(deleted_at=at, updated_at=at)
