"""What is broken, and which tests are asked. Nothing here is a page, a command or a migration."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

GOAL: Final = 0.9
"""The share of mutants that have to be noticed."""

_BILLING: Final = (
    "tests/airi_server/test_departures.py",
    "tests/billing/test_adjustments.py",
    "tests/billing/test_api.py",
    "tests/billing/test_balances.py",
    "tests/billing/test_constraints.py",
    "tests/billing/test_freezes.py",
    "tests/billing/test_grants.py",
    "tests/billing/test_grants_api.py",
    "tests/billing/test_group_commit.py",
    "tests/billing/test_ledger.py",
    "tests/billing/test_lost_connections.py",
    "tests/billing/test_machine.py",
    "tests/billing/test_mutants.py",
    "tests/billing/test_open_requests_sql.py",
    "tests/billing/test_orphans.py",
    "tests/billing/test_prices.py",
    "tests/billing/test_pricing.py",
    "tests/billing/test_reconcile_command.py",
    "tests/billing/test_reconciliation.py",
    "tests/billing/test_request_page.py",
    "tests/billing/test_requests.py",
    "tests/billing/test_settle_requests_sql.py",
    "tests/billing/test_settlements.py",
)
_GATEWAY: Final = (
    "tests/flows/test_paid_stream.py",
    "tests/llmrouter/test_attempts.py",
    "tests/llmrouter/test_completions.py",
    "tests/llmrouter/test_connections.py",
    "tests/llmrouter/test_counted.py",
    "tests/llmrouter/test_errors.py",
    "tests/llmrouter/test_explanation.py",
    "tests/llmrouter/test_failover.py",
    "tests/llmrouter/test_gateway.py",
    "tests/llmrouter/test_health.py",
    "tests/llmrouter/test_hot_path.py",
    "tests/llmrouter/test_hurry.py",
    "tests/llmrouter/test_idempotency.py",
    "tests/llmrouter/test_limits.py",
    "tests/llmrouter/test_orders.py",
    "tests/llmrouter/test_owners.py",
    "tests/llmrouter/test_paid.py",
    "tests/llmrouter/test_planning.py",
    "tests/llmrouter/test_provoked.py",
    "tests/llmrouter/test_relay.py",
    "tests/llmrouter/test_resting.py",
    "tests/llmrouter/test_routes.py",
    "tests/llmrouter/test_slots.py",
    "tests/llmrouter/test_sse.py",
    "tests/llmrouter/test_stream_ends.py",
    "tests/llmrouter/test_streams.py",
    "tests/llmrouter/test_untrusted_bodies.py",
    "tests/llmrouter/test_upstream_answers.py",
    "tests/llmrouter/test_upstream_places.py",
    "tests/llmrouter/test_upstream_pool.py",
    "tests/llmrouter/test_usage.py",
    "tests/llmrouter/test_walk_ends.py",
    "tests/llmrouter/test_windows.py",
)
FILES: Final = (*_BILLING, *_GATEWAY)
"""The tests that are asked: those with a process of their own take too long to ask each time."""
LEFT_OUT: Final = ("TestSequentialMutants::test_is_noticed", "TestRacingMutants::test_is_noticed")
"""They install broken statements themselves, and refuse a statement that is broken already."""

PYTHON: Final = (
    *(
        f"billing/{name}.py"
        for name in (
            "adjustments", "balances", "charges", "closures", "freezes", "grants", "ledger",
            "prices", "pricing", "queries", "reconciliation", "requests", "settlements",
        )
    ),
    "llmrouter/gateway.py",
    "llmrouter/limits.py",
    "llmrouter/owners.py",
    *(
        f"llmrouter/completions/{name}.py"
        for name in (
            "completion", "orders", "paid", "relay", "reports", "sse", "streaming", "tokenizers",
            "usage",
        )
    ),
    *(
        f"llmrouter/routing/{name}.py"
        for name in (
            "attempts", "connections", "failures", "health", "planning", "pool", "responses",
            "upstream",
        )
    ),
)  # fmt: skip

_HOT_PATH: Final = (
    "tests/billing/test_lost_connections.py",
    "tests/billing/test_open_requests_sql.py",
    "tests/billing/test_settle_requests_sql.py",
    "tests/billing/test_requests.py",
    "tests/billing/test_mutants.py",
    "tests/billing/test_orphans.py",
)
_BOOKS: Final = (
    "tests/billing/test_reconciliation.py",
    "tests/billing/test_orphans.py",
    "tests/billing/test_reconcile_command.py",
)
SQL: Final = {
    "billing/sql/open_requests.sql": _HOT_PATH,
    "billing/sql/mark_requests.sql": _HOT_PATH,
    "billing/sql/settle_requests.sql": _HOT_PATH,
    "billing/sql/open_account.sql": (
        "tests/billing/test_ledger.py", "tests/billing/test_balances.py",
    ),
    "billing/sql/find_request.sql": ("tests/billing/test_requests.py",),
    "billing/sql/load_prices.sql": ("tests/billing/test_prices.py",),
    "billing/sql/find_orphans.sql": _BOOKS,
    "billing/sql/lock_orphan.sql": _BOOKS,
    "billing/sql/prune_results.sql": _BOOKS,
    **{
        f"billing/sql/check_{name}.sql": _BOOKS
        for name in (
            "append_only", "bounds", "chain", "charges", "conservation", "constraints", "debits",
            "effects", "holds", "key_spend", "reversals", "sequence",
        )
    },
}  # fmt: skip
"""Coverage sees no SQL: the tests that run each statement, by hand."""


def chosen(paths: Iterable[str], root: Path) -> list[str]:
    """Return the files of the scope that `paths` name: all of them, a file, or a directory.

    Raises:
        LookupError: One of them names nothing that is in scope.
    """
    everything = [*PYTHON, *SQL]
    wanted: list[str] = []
    for path in paths:
        name = Path(path).as_posix().rstrip("/")
        found = [each for each in everything if each == name or each.startswith(f"{name}/")]
        if not found:
            raise LookupError(f"{path} is not in the scope; tests/mutants/scope.py has it.")
        wanted += found
    return [
        each for each in everything if each in (wanted or everything) and (root / each).exists()
    ]
