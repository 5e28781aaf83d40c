"""A ledger of any length, made inside PostgreSQL from one request that the server itself paid.

Every row is that request again, with an id, a user and a time of its own, and so is its entry:
whatever columns there are, they say what the server says. Half of the rows belong to those who
have called so far, the other half to a crowd.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

import psycopg

from tests.unguarded import unguarded

_DAYS: Final = 30
_CROWD_SHARE: Final = 100
"""One person of the crowd for so many rows."""
_FLUX: Final = 1_000_000

# Who owns the rows: what each has and spent before, and how many debits they are given.
_OWNERS: Final = """
CREATE TEMP TABLE owner AS
SELECT true AS calls, (row_number() OVER (ORDER BY f.user_id) - 1)::int AS place, f.user_id,
       k.api_key_id, f.ledger_seq AS seq, f.flux
FROM user_flux f
JOIN (SELECT DISTINCT user_id, api_key_id FROM llm_request_log) k USING (user_id)
UNION ALL
SELECT false, u, 'crowd-' || u, 'c' || lpad(u::text, 11, '0'), 1, {flux}
FROM generate_series(0, {crowd} - 1) AS u;
CREATE TEMP TABLE model_request AS SELECT * FROM llm_request_log WHERE flux_consumed > 0 LIMIT 1;
CREATE TEMP TABLE model_entry AS
SELECT t.* FROM flux_transaction t JOIN model_request l ON t.request_id = 'llm:' || l.id;
CREATE TEMP TABLE due AS
SELECT o.*, (SELECT flux_consumed FROM model_request) AS charge,
       (({rows} + (o.calls)::int) / 2 + size - 1 - place) / size AS debits
FROM owner o JOIN (SELECT calls, count(*) AS size FROM owner GROUP BY calls) s USING (calls);
CREATE INDEX ON due (calls, place);
ANALYZE due
"""
# s counts the rows of a half from 0; k counts the debits of one owner from 0.
_PLACES: Final = """
(
    SELECT d.*, n, k, d.flux - d.charge * k AS before, at,
           (lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') || '7'
            || substr(hash, 1, 3) || '8' || substr(hash, 4, 15))::uuid AS new_id
    FROM (
        SELECT n, n % 2 = 1 AS calls, s % size AS place, s / size AS k, md5(n::text) AS hash,
               timestamptz '{now}' - interval '{days} days' * (1 - n / ({rows} + 1.0)) AS at
        FROM (SELECT n, (n - 1) / 2 AS s FROM generate_series(1, {rows}) AS n) AS counted
        JOIN (SELECT calls, count(*)::int AS size FROM owner GROUP BY calls) AS halves
          ON halves.calls = (n % 2 = 1)
    ) AS placed JOIN due d USING (calls, place)
) AS p
"""
_REQUEST: Final = {
    "id": "new_id", "user_id": "p.user_id", "api_key_id": "p.api_key_id",
    "opened_at": "at", "deadline_at": "at + (m.deadline_at - m.opened_at)",
    "first_byte_at": "at + (m.first_byte_at - m.opened_at)",
    "settled_at": "at + (m.settled_at - m.opened_at)",
}  # fmt: skip
_ENTRY: Final = {
    "user_id": "p.user_id", "user_seq": "p.seq + k + 1", "balance_before": "before",
    "balance_after": "before - charge", "request_id": "'llm:' || new_id",
    "metadata": "jsonb_set(m.metadata, '{requestId}', to_jsonb(new_id))",
    "created_at": "at + interval '1 s'",
}  # fmt: skip
_REST: Final = """
INSERT INTO flux_transaction (user_id, user_seq, type, amount, balance_before, balance_after,
    description, created_at)
SELECT user_id, 1, 'initial', flux, 0, flux, 'Opening grant', now() - interval '{days} days'
FROM owner WHERE NOT calls;
INSERT INTO user_flux (user_id, flux, held, ledger_seq, frozen, updated_at)
SELECT user_id, flux - charge * debits, 0, seq + debits, false, now() FROM due
ON CONFLICT (user_id) DO UPDATE SET flux = excluded.flux, ledger_seq = excluded.ledger_seq;
INSERT INTO api_key_spend AS s (user_id, api_key_id, day, flux)
SELECT user_id, api_key_id, (at AT TIME ZONE 'UTC')::date, sum(charge) FROM {places}
GROUP BY 1, 2, 3
ON CONFLICT (user_id, api_key_id, day) DO UPDATE SET flux = s.flux + excluded.flux
"""
_COLUMNS: Final = """
SELECT column_name FROM information_schema.columns
WHERE table_schema = current_schema() AND table_name = %s AND is_identity = 'NO'
  AND is_generated = 'NEVER' ORDER BY ordinal_position
"""
# Every index but the primary key, and what makes it again.
_INDEXES: Final = """
SELECT i.indexrelid::regclass::text, c.conname,
       coalesce(pg_get_constraintdef(c.oid), pg_get_indexdef(i.indexrelid))
FROM pg_index i LEFT JOIN pg_constraint c ON c.conindid = i.indexrelid AND c.contype = 'u'
WHERE i.indrelid = %s::regclass AND NOT i.indisprimary
"""


def fill(database_url: str, rows: int) -> None:
    """Add so many settled requests and their debits; every row is logged as any other."""
    options = "-c synchronous_commit=off -c jit=off -c work_mem=512MB -c maintenance_work_mem=1GB"
    with psycopg.connect(database_url, autocommit=True, options=options) as session:
        facts = {
            "rows": rows,
            "crowd": max(1, rows // _CROWD_SHARE),
            "flux": _FLUX,
            "days": _DAYS,
            # One for all statements: the ids are made of it.
            "now": datetime.now(UTC).isoformat(),
        }
        places = _PLACES.format(**facts)
        session.execute(_OWNERS.format(**facts).encode())
        _multiply(session, "llm_request_log", "model_request", _REQUEST, places)
        # Without its indexes nobody can look for the entry before.
        with unguarded(session.cursor()):
            _multiply(session, "flux_transaction", "model_entry", _ENTRY, places)
        session.execute(_REST.format(**facts, places=places).encode())


def _multiply(
    session: psycopg.Connection[Any], table: str, model: str, own: dict[str, str], places: str
) -> None:
    found = session.execute(_COLUMNS.encode(), [table]).fetchall()
    values = {name: own.get(name, f"m.{name}") for (name,) in found}
    again = _drop_indexes(session, table)
    session.execute(
        f"INSERT INTO {table} ({', '.join(values)}) "
        f"SELECT {', '.join(values.values())} FROM {places}, {model} AS m".encode()
    )
    for statement in again:
        session.execute(statement.encode())


def _drop_indexes(session: psycopg.Connection[Any], table: str) -> list[str]:
    again = []
    for index, constraint, definition in session.execute(_INDEXES.encode(), [table]).fetchall():
        if constraint:
            session.execute(f"ALTER TABLE {table} DROP CONSTRAINT {constraint}".encode())
            again.append(f"ALTER TABLE {table} ADD CONSTRAINT {constraint} {definition}")
        else:
            session.execute(f"DROP INDEX {index}".encode())
            again.append(definition)
    return again
