"""Tables as they are after a good month, in a transaction that is rolled back.

Loading is the slow part, so a module shares one load, and all of them run in one worker.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import psycopg
import pytest
from django.db import connection

# Imported once, here: two imports would be two fixtures, and build everything twice.
from tests.perf.million import _million_rows, million  # noqa: F401  fixtures
from tests.unguarded import unguarded

ROWS: Final = 50_000
"""At first; `Tables.grow` makes it four times as many."""
GROWTH: Final = 4
USER: Final = "user-1"
_USERS: Final = 100
_HOT_TABLES: Final = (
    "llm_request_log", "flux_transaction", "api_key_spend", "user_flux", "refused_request",
    "refusal_hour",
)  # fmt: skip

# Every second row belongs to one user, so that a page of the listing can be deep in it.
_REQUESTS: Final = """
INSERT INTO llm_request_log (
    id, user_id, api_key_id, kind, state, hold, model, attempts, stream, prompt_estimate,
    usage_source, price_version, flux_consumed, unbilled, instance_id, opened_at, deadline_at,
    checkpoint, settled_at, outcome, client_key
) SELECT
    lpad(to_hex(n), 32, '0')::uuid,
    'user-' || CASE WHEN n % 2 = 0 THEN 1 ELSE n % %(users)s END, 'key-' || n % 7, 'chat',
    'settled', 5, 'chat-default', 1, false, 100, 'reported', 1, 1, 0, 'perf', now(), now(), 0,
    now(), 'completed', CASE WHEN n % 3 = 0 THEN 'once-' || n END
FROM generate_series(%(first)s::int, %(last)s::int) AS n
"""
_ENTRIES: Final = """
INSERT INTO flux_transaction (
    user_id, user_seq, type, amount, balance_before, balance_after, request_id, description,
    created_at
) SELECT
    CASE WHEN n % 2 = 0 THEN 'user-1' ELSE 'another-' || n % %(users)s END, n / 2 + 1,
    CASE WHEN n % 100 = 0 THEN 'credit' ELSE 'debit' END, 1, 1000000,
    CASE WHEN n % 100 = 0 THEN 1000001 ELSE 999999 END, 'llm:' || n, 'llm_request', now()
FROM generate_series(%(first)s::int, %(last)s::int) AS n
"""
# Every sixteenth id of a request, and a half.
_REFUSALS: Final = """
INSERT INTO refused_request (id, user_id, api_key_id, model, kind, status, code, message, at)
SELECT (lpad(to_hex(n), 31, '0') || '8')::uuid,
       'user-' || CASE WHEN n % 2 = 0 THEN 1 ELSE n % %(users)s END, 'key-' || n % 7,
       'chat-default', 'chat', 402, 'PAYMENT_REQUIRED', 'Insufficient flux', now()
FROM generate_series(%(first)s::int, %(last)s::int) AS n
"""
_REFUSAL_HOURS: Final = """
INSERT INTO refusal_hour (
    user_id, hour, api_key_id, model, code, status, count, first_at, last_at
) SELECT 'user-' || n % %(users)s, timestamptz '2026-01-01' + n / 100 * interval '1 hour',
         'key-' || n % 7, 'chat-default', 'PAYMENT_REQUIRED', 402, 1, now(), now()
FROM generate_series(%(first)s::int, %(last)s::int) AS n
"""
_SPENDING: Final = """
INSERT INTO api_key_spend (user_id, api_key_id, day, flux)
SELECT 'user-' || n % %(users)s, 'key-' || n / 365, date '2020-01-01' + n % 365, 1
FROM generate_series(%(first)s::int, %(last)s::int) AS n
"""
_ACCOUNTS: Final = """
INSERT INTO user_flux (user_id, flux, held, ledger_seq, frozen, updated_at)
SELECT 'user-' || n, 1000000, 0, 1, false, now() FROM generate_series(1, 5000) AS n;
INSERT INTO flux_transaction (
    user_id, user_seq, type, amount, balance_before, balance_after, description, created_at
) SELECT user_id, 1, 'initial', flux, 0, flux, 'opening', now() FROM user_flux
"""
# The next entry begins where the newest ended.
_NEWEST: Final = """
UPDATE user_flux f SET ledger_seq = t.user_seq, flux = t.balance_after
FROM (
    SELECT DISTINCT ON (user_id) user_id, user_seq, balance_after FROM flux_transaction
    ORDER BY user_id, user_seq DESC
) AS t WHERE t.user_id = f.user_id
"""


@dataclass
class Tables:
    """One open transaction with the rows in it."""

    session: psycopg.Connection[Any]
    rows: int = 0
    _statements: dict[str, str] = field(default_factory=dict)

    def grow(self, rows: int) -> None:
        """Add rows until every table has so many, and have them known to the planner."""
        params = {"users": _USERS, "first": self.rows + 1, "last": rows}
        with unguarded(self.session.cursor()):
            for statement in (
                _REQUESTS,
                _ENTRIES,
                _SPENDING,
                _REFUSALS,
                _REFUSAL_HOURS,
            ):
                # The modulo sign of SQL is not psycopg's.
                escaped = re.sub(r"%(?!\()", "%%", statement)
                self.session.execute(escaped.encode(), params)
        self.rows = rows
        self.session.execute(_NEWEST.encode())
        for table in _HOT_TABLES:
            self.session.execute(f"ANALYZE {table}".encode())

    def explain(self, sql: str, params: Mapping[str, Any], *, after: int = 0) -> Plan:
        """Run a statement as the server does, prepared, and return what it did.

        Args:
            sql: With named parameters.
            params: Their values.
            after: Calls to make before: from the sixth on PostgreSQL may choose a plan that
                knows no values.
        """
        names = list(dict.fromkeys(re.findall(r"%\((\w+)\)s", sql)))
        values = [psycopg.sql.Literal(params[name]) for name in names]
        arguments = psycopg.sql.SQL(", ").join(values)
        call = psycopg.sql.SQL("EXECUTE {}({})").format(self._prepared(sql, names), arguments)
        for _ in range(after):
            self.session.execute(call)
        options = psycopg.sql.SQL("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) ")
        found = self.session.execute(options + call).fetchone()
        assert found is not None
        return Plan(found[0][0]["Plan"])

    def _prepared(self, sql: str, names: list[str]) -> psycopg.sql.Identifier:
        numbered = re.sub(r"%\((\w+)\)s", lambda found: f"${names.index(found[1]) + 1}", sql)
        if numbered not in self._statements:
            self._statements[numbered] = f"perf_{len(self._statements)}"
            self.session.execute(f"PREPARE {self._statements[numbered]} AS {numbered}".encode())
        return psycopg.sql.Identifier(self._statements[numbered])

    def sequential_scans(self) -> dict[str, int]:
        """Return how often this transaction has read a table from end to end, by table."""
        rows = self.session.execute(
            b"SELECT relname, seq_scan FROM pg_stat_xact_user_tables WHERE relname = ANY (%s)",
            [list(_HOT_TABLES)],
        )
        return dict(rows.fetchall())


@dataclass(frozen=True)
class Plan:
    """An executed plan."""

    tree: dict[str, Any]

    @property
    def buffers(self) -> int:
        """Pages touched, in the cache or not: what work costs, without a clock."""
        return int(self.tree["Shared Hit Blocks"] + self.tree["Shared Read Blocks"])

    @property
    def nodes(self) -> list[str]:
        return [f"{node['Node Type']} {node.get('Relation Name', '')}" for node in _walk(self.tree)]


def _walk(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for child in node.get("Plans", []):
        yield from _walk(child)


@pytest.fixture(scope="module")
def tables(django_db_setup, django_db_blocker) -> Iterator[Tables]:
    settings = connection.settings_dict
    with psycopg.connect(
        dbname=settings["NAME"], user=settings["USER"], password=settings["PASSWORD"],
        host=settings["HOST"], port=settings["PORT"], options="-c jit=off",
    ) as session:  # fmt: skip
        # psycopg's own preparing would deallocate ours with every rollback.
        session.prepare_threshold = None
        session.execute(_ACCOUNTS.encode())
        loaded = Tables(session)
        loaded.grow(ROWS)
        yield loaded
        session.rollback()
