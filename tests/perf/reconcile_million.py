"""Fill the database with a million ledger rows and time `reconcile-usage` over them.

    DATABASE_URL=… REDIS_URL=… … python tests/perf/reconcile_million.py [ROWS]

Makes and drops a database of its own, `airi_reconcile_perf`, beside the one in `DATABASE_URL`.
Prints the seconds of each check, of the whole command, and its peak memory.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import psycopg

NAME = "airi_reconcile_perf"
LIMIT_S = 20.0
LIMIT_MIB = 200

FILL_SQL = """
INSERT INTO price_version (id, model, flux_per_1k_input, flux_per_1k_output, flux_per_1k_cached,
    flux_per_request, minimum_flux, note, created_by, created_at)
VALUES (0, '', 1, 1, 1, 5, 1, '', 'perf', now());
INSERT INTO user_flux (user_id, flux, held, ledger_seq, frozen, updated_at)
SELECT 'user-' || u, 1000000 - 3 * (%(each)s - 1), 2, %(each)s, false, now()
FROM generate_series(1, %(users)s) AS u;
INSERT INTO llm_request_log (id, user_id, api_key_id, kind, state, hold, model, attempts, stream,
    status, prompt_estimate, prompt_tokens, completion_tokens, cached_tokens, usage_source,
    price_version, flux_consumed, unbilled, outcome, instance_id, opened_at, deadline_at,
    checkpoint, settled_at, duration_ms)
SELECT md5(u || ' ' || s)::uuid, 'user-' || u, 'key-' || u, 'chat', 'settled', 9, 'chat-default',
    1, true, 200, 100, 1500, 1500, 0, 'reported', 0, 3, 0, 'completed', 'perf',
    now(), now(), 0, now(), 900
FROM generate_series(1, %(users)s) AS u, generate_series(2, %(each)s) AS s;
INSERT INTO llm_request_log (id, user_id, kind, state, hold, model, attempts, stream,
    prompt_estimate, usage_source, price_version, flux_consumed, unbilled, instance_id, opened_at,
    deadline_at, checkpoint)
SELECT md5('open ' || u)::uuid, 'user-' || u, 'chat', 'open', 2, 'chat-default', 0, true, 100,
    'none', 0, 0, 0, 'perf', now(), now() + interval '1 hour', 0
FROM generate_series(1, %(users)s) AS u;
INSERT INTO flux_transaction (user_id, user_seq, type, amount, balance_before, balance_after,
    request_id, description, metadata, created_at)
SELECT 'user-' || u, s, CASE WHEN s = 1 THEN 'initial' ELSE 'debit' END,
    CASE WHEN s = 1 THEN 1000000 ELSE 3 END,
    CASE WHEN s = 1 THEN 0 ELSE 1000000 - 3 * (s - 2) END, 1000000 - 3 * (s - 1),
    CASE WHEN s > 1 THEN 'llm:' || md5(u || ' ' || s)::uuid END, 'llm_request',
    '{"model": "chat-default", "promptTokens": 1500, "completionTokens": 1500}', now()
FROM generate_series(1, %(each)s) AS s, generate_series(1, %(users)s) AS u;
INSERT INTO api_key_spend (user_id, api_key_id, day, flux)
SELECT 'user-' || u, 'key-' || u, (now() AT TIME ZONE 'UTC')::date, 3 * (%(each)s - 1)
FROM generate_series(1, %(users)s) AS u;
"""


def main(rows: int) -> int:
    """Return 0 if the command agreed within its limits."""
    admin_url = os.environ["DATABASE_URL"]
    url = urlsplit(admin_url)._replace(path=f"/{NAME}").geturl()
    with psycopg.connect(admin_url, autocommit=True) as admin:
        admin.execute(f"DROP DATABASE IF EXISTS {NAME} WITH (FORCE)")
        admin.execute(f"CREATE DATABASE {NAME}")
        try:
            return measure(url, rows)
        finally:
            admin.execute(f"DROP DATABASE IF EXISTS {NAME} WITH (FORCE)")


def measure(url: str, rows: int) -> int:
    environment = {**os.environ, "DATABASE_URL": url}
    manage = [sys.executable, "manage.py"]
    subprocess.run([*manage, "migrate", "--verbosity", "0"], env=environment, check=True)
    with psycopg.connect(url, autocommit=True, cursor_factory=psycopg.ClientCursor) as session:
        session.execute(FILL_SQL, {"users": rows // 200, "each": 200})
        session.execute("VACUUM ANALYZE")
        (found,) = session.execute("SELECT count(*) FROM flux_transaction").fetchone() or (0,)
    print(f"{found} ledger rows, {found // 200} users")
    began = time.monotonic()
    command = [*manage, "reconcile-usage"]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=False)
    seconds = time.monotonic() - began
    peak_mib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    orphans = done.stdout.count(b"\n")
    print(f"exit {done.returncode}, {orphans} orphans listed")
    print(f"{seconds:.1f} s (limit {LIMIT_S:.0f}), peak {peak_mib:.0f} MiB (limit {LIMIT_MIB})")
    subprocess.run([sys.executable, __file__, "--checks"], env=environment, check=True)
    return int(done.returncode != 0 or seconds > LIMIT_S or peak_mib > LIMIT_MIB)


def time_checks() -> None:
    """Print how long each check takes, in this process."""
    import django

    django.setup()
    from billing import reconciliation

    with reconciliation.snapshot():
        params = reconciliation.EVERYTHING.params()
        for invariant, sql in reconciliation.CHECKS:
            began = time.monotonic()
            list(reconciliation._stream(sql, params))
            name = sql.split(".sql", 1)[0].removeprefix("-- ")
            print(f"  {invariant:10} {name:22} {time.monotonic() - began:5.2f} s")


if __name__ == "__main__":
    if "--checks" in sys.argv:
        sys.path.insert(0, str(Path.cwd()))
        time_checks()
    else:
        sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000))
