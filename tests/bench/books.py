"""What the database says: how much was written, and whether the money adds up.

Commits are transaction ids handed out and WAL is the insert position, both exact at once, where
PostgreSQL's own statistics come up to ten seconds late. Autovacuum's are among them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import psycopg

_TOTALS: Final = """
SELECT (SELECT count(*) FROM llm_request_log),
       (SELECT count(*) FROM llm_request_log WHERE state = 'settled'),
       (SELECT count(*) FROM flux_transaction WHERE type = 'debit')
"""
_WRITTEN: Final = """
SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint,
       (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint
"""
# Each finds what must not be there; the names are what a broken one is reported as.
_INVARIANTS: Final = {
    "a balance is not the sum of its ledger": """
        SELECT f.user_id FROM user_flux f LEFT JOIN flux_transaction t USING (user_id)
        GROUP BY f.user_id
        HAVING f.flux <> coalesce(sum(t.balance_after - t.balance_before), 0)
            OR f.ledger_seq <> count(t.id) OR f.ledger_seq <> max(t.user_seq)""",
    "Flux is held for nobody": "SELECT user_id FROM user_flux WHERE held <> 0",
    "a request is open": "SELECT id FROM llm_request_log WHERE settled_at IS NULL",
    "a charge and its debit differ": """
        SELECT l.id FROM (SELECT * FROM llm_request_log WHERE flux_consumed > 0) l
        FULL JOIN (SELECT * FROM flux_transaction WHERE type = 'debit') t
               ON t.request_id = 'llm:' || l.id AND t.user_id = l.user_id
        WHERE t.amount IS DISTINCT FROM l.flux_consumed""",
    "a key's spending is not the sum of its debits": """
        SELECT 1 FROM (SELECT sum(flux) AS kept FROM api_key_spend) s,
            (SELECT sum(amount) AS debited FROM flux_transaction WHERE type = 'debit') d
        WHERE s.kept IS DISTINCT FROM d.debited""",
}


@dataclass(frozen=True, slots=True)
class Totals:
    """Rows so far."""

    rows: int
    settled: int
    debits: int

    def __sub__(self, before: Totals) -> Totals:
        return Totals(
            self.rows - before.rows, self.settled - before.settled, self.debits - before.debits
        )


@dataclass(frozen=True, slots=True)
class Written:
    """Positions that only ever grow."""

    commits: int
    wal_bytes: int


class Books:
    """A connection of the benchmark's own."""

    def __init__(self, database_url: str) -> None:
        options = "-c work_mem=256MB -c jit=off"
        self._connection = psycopg.connect(database_url, autocommit=True, options=options)

    @classmethod
    @contextmanager
    def of(cls, database_url: str) -> Iterator[Books]:
        """Open the books of a database for as long as the block lasts."""
        books = cls(database_url)
        try:
            yield books
        finally:
            books.close()

    def close(self) -> None:
        self._connection.close()

    def totals(self) -> Totals:
        return Totals(*self.row(_TOTALS))

    def written(self) -> Written:
        return Written(*self.row(_WRITTEN))

    def faults(self) -> list[str]:
        """Return the invariants that do not hold."""
        broken = {name: len(self._rows(query)) for name, query in _INVARIANTS.items()}
        return [f"{name} ({count})" for name, count in broken.items() if count]

    def settle_down(self) -> None:
        """Bring the tables' statistics up to date, as autovacuum would in the first minutes."""
        self._connection.execute("VACUUM ANALYZE")
        self._connection.execute("CHECKPOINT")

    def durability(self) -> dict[str, str]:
        """Return the settings without which a commit would cost nothing."""
        names = ("server_version", "fsync", "synchronous_commit", "full_page_writes")
        return {name: self.row(f"SHOW {name}")[0] for name in names}

    def _rows(self, query: str) -> list[tuple[Any, ...]]:
        return self._connection.execute(query.encode()).fetchall()

    def row(self, query: str) -> tuple[Any, ...]:
        return self._rows(query)[0]
