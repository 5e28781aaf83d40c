"""What has to be true of the books after every fault."""

from __future__ import annotations

from airi_server.kernel.threads import in_thread
from billing import reconciliation
from billing.models import FluxAccount, FluxTransaction, LLMRequestLog
from tests.factories import billing as make


def in_order() -> None:
    """Assert every invariant that is a query, and that nobody is left with anything open."""
    with reconciliation.snapshot():
        assert make.broken_here() == []
    assert open_rows() == 0
    assert not FluxAccount.objects.exclude(held=0).exists()
    debits = list(FluxTransaction.objects.filter(kind="debit").values_list("request_id", "amount"))
    rows = LLMRequestLog.objects.filter(state="settled", flux_charged__gt=0)
    assert sorted(debits) == sorted((f"llm:{row.pk}", row.flux_charged) for row in rows)


def open_rows() -> int:
    return LLMRequestLog.objects.filter(settled_at__isnull=True).count()


def charges(user_id: str) -> list[int]:
    """Return what every request of a user has cost, in the order they were charged."""
    debits = FluxTransaction.objects.filter(user_id=user_id, kind="debit").order_by("user_seq")
    return [debit.amount for debit in debits]


are_in_order = in_thread(in_order)
charges_of = in_thread(charges)
"""The same for tests that are coroutines."""
