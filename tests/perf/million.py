"""A console's worst month: a million requests, their entries and as many messages.

    pytestmark = [pytest.mark.django_db, pytest.mark.xdist_group("million"),
                  pytest.mark.usefixtures("million")]

The rows are in a database of their own, beside the worker's, built once a run. Within a module
that uses the fixture Django's default connection leads there. Each test's transaction is rolled
back as ever; a test that commits (`transactional_db`) must not use it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import psycopg
import pytest
from django.db import connection

from tests.perf import talk
from tests.unguarded import unguarded

USERS: Final = 100_000
KEYS: Final = 10_000
"""The first so many users have one each, with `k` and eleven digits as its public id."""
REQUESTS: Final = 1_000_000
DAYS: Final = 30
"""The requests are spread evenly over so many days, the last of which ends now."""
HEAVY: Final = "user-1"
"""Every tenth request is this user's."""
RARE_MODEL: Final = "embed-rare"
"""Ten requests, all of them in the oldest tenth."""
SUFFIX: Final = "million"

# n is the request's place in time. Requests cost one Flux for each 1,000 tokens begun; `short` is
# what could not be debited.
_PLAN: Final = f"""
CREATE TEMP TABLE plan AS
SELECT *, sum((paid > 0)::int) OVER w AS debits, sum(paid) OVER w AS spent
FROM (
    SELECT *, 'user-' || u AS user_id, charge - short AS paid, to_timestamp(ms / 1000.0) AS at,
           (lpad(to_hex(ms), 12, '0') || '7'
            || substr(hash, 1, 3) || '8' || substr(hash, 4, 15))::uuid AS id
    FROM (
        SELECT *, state IN ('settled', 'voided') AS closed, state = 'settled' AS paying,
               CASE state WHEN 'settled' THEN (prompt + completion + 999) / 1000 ELSE 0 END
                   AS charge,
               (n % 10007 = 0 AND state = 'settled' AND prompt > 1000)::int AS short
        FROM (
            SELECT n, md5(n::text) AS hash,
                   CASE WHEN n % 10 = 0 THEN 1
                        ELSE 2 + (n::bigint * 7919 % ({USERS} - 1))::int END AS u,
                   CASE WHEN n % 10000 = 7 AND n <= {REQUESTS} / 10 THEN '{RARE_MODEL}'
                        WHEN n % 20 = 3 THEN 'chat-small'
                        WHEN n % 4 = 1 THEN 'chat-large' ELSE 'chat-default' END AS model,
                   CASE WHEN n > {REQUESTS} - 200 AND n % 2 = 0 THEN 'open'
                        WHEN n > {REQUESTS} - 200 OR n % 200000 = 9 THEN 'streaming'
                        WHEN n % 50 = 17 THEN 'voided' ELSE 'settled' END AS state,
                       now_ms - ({REQUESTS} - n)::bigint * {DAYS * 86_400_000 // REQUESTS} AS ms,
                   100 + n % 3900 AS prompt, 1 + n % 997 AS completion
            FROM generate_series(1, {REQUESTS}) AS n,
                 (SELECT (extract(epoch FROM now()) * 1000)::bigint AS now_ms) AS clock
        ) AS drawn
    ) AS priced
) AS dated
WINDOW w AS (PARTITION BY u ORDER BY n)
ORDER BY n
"""
_PRICE: Final = """
INSERT INTO price_version (model, flux_per_1k_input, flux_per_1k_output, flux_per_1k_cached,
    flux_per_request, minimum_flux, note, created_by, created_at)
VALUES ('', 1, 1, 1, 5, 1, '', 'perf', now() - interval '60 days')
RETURNING id
"""
_PEOPLE: Final = f"""
INSERT INTO "user" (id, name, email, email_verified, banned, ban_reason, is_staff, is_active,
    is_superuser, password, created_at, updated_at)
SELECT 'user-' || u, 'User ' || u, 'user-' || u || '@million.example', true, false, '', false,
    true, false, '!', now() - interval '{DAYS + 1} days', now()
FROM generate_series(1, {USERS}) AS u;
INSERT INTO api_key (public_id, user_id, name, secret_hash, created_at, allowed_models,
    allowed_addresses)
SELECT 'k' || lpad(u::text, 11, '0'), 'user-' || u, 'laptop', sha256(u::text::bytea), now(),
    '{{}}', '{{}}'
FROM generate_series(1, {KEYS}) AS u
"""
_ACCOUNTS: Final = f"""
INSERT INTO user_flux (user_id, flux, held, ledger_seq, frozen, updated_at)
SELECT 'user-' || u, 1000000 - coalesce(p.spent, 0), coalesce(p.held, 0),
       1 + coalesce(p.debits, 0), u % 1000 = 0, now()
FROM generate_series(1, {USERS}) AS u
LEFT JOIN (
    SELECT u, max(spent) AS spent, max(debits) AS debits, 5 * sum((NOT closed)::int) AS held
    FROM plan GROUP BY u
) AS p USING (u)
"""
_REQUESTS: Final = """
INSERT INTO llm_request_log (id, user_id, api_key_id, kind, client_key, state, hold, model,
    upstream, upstream_key_id, attempts, stream, status, prompt_estimate, prompt_tokens,
    completion_tokens, cached_tokens, usage_source, price_version, flux_consumed, unbilled,
    outcome, error_code, instance_id, opened_at, deadline_at, first_byte_at, checkpoint,
    settled_at, duration_ms, ttft_ms)
SELECT id, user_id, CASE WHEN n % 5 = 0 THEN 'k' || lpad(u::text, 11, '0') END, 'chat',
    CASE WHEN n % 25 = 0 THEN 'once-' || n END, state, 5, model,
    CASE WHEN paying THEN 'main' END, CASE WHEN paying THEN 'main-key' END, closed::int,
    n % 2 = 0, CASE WHEN paying THEN 200 WHEN closed THEN 502 END, prompt,
    CASE WHEN paying THEN prompt END, CASE WHEN paying THEN completion END,
    CASE WHEN paying THEN 0 END, CASE WHEN paying THEN 'reported' ELSE 'none' END, $1, paid, short,
    CASE WHEN NOT closed THEN NULL WHEN NOT paying THEN 'failed'
         WHEN n % 97 = 0 THEN 'client_gone' ELSE 'completed' END,
    CASE WHEN closed AND NOT paying THEN 'BAD_GATEWAY' END, 'perf', at,
    at + interval '10 minutes',
    CASE WHEN state = 'streaming' OR n % 2 = 0 AND paying THEN at + interval '400 ms' END, 0,
    CASE WHEN closed THEN at + interval '2 s' END, CASE WHEN closed THEN 900 + n % 3000 END,
    CASE WHEN paying THEN 100 + n % 700 END
FROM plan
"""
_OPENING: Final = f"""
INSERT INTO flux_transaction (user_id, user_seq, type, amount, balance_before, balance_after,
    description, created_at)
SELECT 'user-' || u, 1, 'initial', 1000000, 0, 1000000, 'Opening grant',
    now() - interval '{DAYS + 1} days'
FROM generate_series(1, {USERS}) AS u
"""
_DEBITS: Final = """
INSERT INTO flux_transaction (user_id, user_seq, type, amount, balance_before, balance_after,
    request_id, description, metadata, created_at)
SELECT user_id, 1 + debits, 'debit', paid, 1000000 - spent + paid, 1000000 - spent,
    'llm:' || id, 'llm_request',
    jsonb_build_object('model', model, 'requestId', id),
    at + interval '2 s'
FROM plan WHERE paid > 0
"""
_SPENDING: Final = """
INSERT INTO api_key_spend (user_id, api_key_id, day, flux)
SELECT user_id, api_key_id, (settled_at AT TIME ZONE 'UTC')::date, sum(flux_consumed)
FROM llm_request_log WHERE api_key_id IS NOT NULL AND flux_consumed > 0
GROUP BY 1, 2, 3
"""
_STATEMENTS: Final = (
    _PEOPLE, _PLAN, _ACCOUNTS, _REQUESTS, _OPENING, _DEBITS, _SPENDING, *talk.STATEMENTS
)  # fmt: skip
_TABLES: Final = (
    '"user"', "api_key", "user_flux", "flux_transaction", "llm_request_log", "api_key_spend",
    "price_version", *talk.TABLES,
)  # fmt: skip
_BIG: Final = ("llm_request_log", "flux_transaction", *talk.TABLES)


# Every index of the big tables that is not a primary key, as what makes it again.
_INDEXES: Final = """
SELECT i.indexrelid::regclass::text, c.conname, i.indrelid::regclass::text,
       coalesce(pg_get_constraintdef(c.oid), pg_get_indexdef(i.indexrelid))
FROM pg_index i LEFT JOIN pg_constraint c ON c.conindid = i.indexrelid AND c.contype = 'u'
WHERE i.indrelid = ANY (%s::regclass[])
  AND NOT i.indisprimary
"""


def fill(session: psycopg.Connection[Any]) -> None:
    """Load the rows through a connection in autocommit mode, and have the planner know them."""
    session.execute(
        "SET synchronous_commit = off; SET work_mem = '256MB'; SET jit = off; "
        "SET maintenance_work_mem = '256MB'"
    )
    session.execute(talk.UNCHECKED.encode())
    again = list(_without_indexes(session))
    found = session.execute(_PRICE.encode()).fetchone()
    assert found is not None
    with unguarded(session.cursor()):
        for statement in _STATEMENTS:
            session.execute(statement.replace("$1", str(found[0])).encode())
    for statement in [*again, "DROP TABLE plan"]:
        session.execute(statement.encode())
    for table in _TABLES:
        session.execute(f"VACUUM (ANALYZE) {table}".encode())


def _without_indexes(session: psycopg.Connection[Any]) -> Iterator[str]:
    """Take the indexes off and the tables out of the log; return what puts the indexes back."""
    for index, constraint, table, definition in session.execute(_INDEXES, [list(_BIG)]).fetchall():
        if constraint:
            session.execute(f"ALTER TABLE {table} DROP CONSTRAINT {constraint}".encode())
            yield f"ALTER TABLE {table} ADD CONSTRAINT {constraint} {definition}"
        else:
            session.execute(f"DROP INDEX {index}".encode())
            yield definition
    # Whoever references an unlogged table has to be one, and so goes first.
    for table in ("flux_grant_person", *_BIG, "api_key_spend"):
        session.execute(f"ALTER TABLE {table} SET UNLOGGED".encode())


@pytest.fixture(scope="session")
def _million_rows(django_db_setup, django_db_blocker) -> Iterator[str]:
    """Build the database; return its name."""
    with django_db_blocker.unblock():
        creation = connection.creation
        creation.clone_test_db(SUFFIX, verbosity=0)
        settings = creation.get_test_db_clone_settings(SUFFIX)
        with psycopg.connect(
            dbname=settings["NAME"], user=settings["USER"], password=settings["PASSWORD"],
            host=settings["HOST"], port=settings["PORT"], autocommit=True,
        ) as session:  # fmt: skip
            fill(session)
    yield settings["NAME"]
    with django_db_blocker.unblock(), connection._nodb_cursor() as cursor:
        # By force: a thread of a test may have left its connection open.
        cursor.execute(f'DROP DATABASE "{settings["NAME"]}" WITH (FORCE)')


@pytest.fixture(scope="module")
def million(_million_rows: str, django_db_blocker) -> Iterator[None]:
    """Lead Django's default connection to the million rows until the module ends."""
    ordinary = connection.settings_dict["NAME"]
    with django_db_blocker.unblock():
        connection.close()
        connection.settings_dict["NAME"] = _million_rows
        yield
        connection.close()
        connection.settings_dict["NAME"] = ordinary
