"""The lists of people and keys open without walking their tables."""

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from tests.accounts.console import url

pytestmark = pytest.mark.django_db

USERS = """
INSERT INTO "user" (
    id, password, name, email, email_verified, banned, ban_reason, is_staff, is_active,
    is_superuser, created_at, updated_at
) SELECT
    'user-' || n, '!', '', 'user-' || n || '@example.com', n % 3 = 0, n % 20000 = 0, '',
    n % 50000 = 0, n % 20000 <> 7, false, now() - n * interval '1 minute', now()
FROM generate_series(1, 100000) AS n
"""
KEYS = """
INSERT INTO api_key (
    public_id, user_id, name, secret_hash, created_at, allowed_models, allowed_addresses
) SELECT
    substr(md5(n::text), 1, 12), 'user-' || n, 'laptop', sha256(n::text::bytea), now(), '{}', '{}'
FROM generate_series(1, 100000) AS n
ON CONFLICT DO NOTHING
"""
LISTS = [
    ("user", {}),
    ("user", {"p": "50"}),
    ("user", {"q": "USER-77777@example.com"}),
    ("user", {"q": "user-77777"}),
    ("user", {"q": "sk-airi-1f3"}),
    *(
        ("user", {f"{name}__exact": value})
        for name in ("banned", "email_verified", "is_staff", "is_active")
        for value in "01"
    ),
    ("apikey", {}),
    ("apikey", {"q": "sk-airi-1f3"}),
    ("apikey", {"q": "user-77777"}),
    ("apikey", {"q": "user-77777@example.com"}),
]


@pytest.fixture(scope="module")
def crowd(django_db_setup, django_db_blocker):
    """A hundred thousand people with a key each, for all tests of this file."""
    with django_db_blocker.unblock(), connection.cursor() as cursor:
        cursor.execute(USERS)
        # Else this session may check each key's owner with the plan it made for an empty table.
        cursor.execute('ANALYZE "user"')
        cursor.execute(KEYS)
        cursor.execute('ANALYZE "user", api_key')
    yield
    with django_db_blocker.unblock(), connection.cursor() as cursor:
        cursor.execute('TRUNCATE "user" CASCADE')
        cursor.execute('ANALYZE "user", api_key')


def plans_of(queries):
    """Return the plan of each statement that reads one of the tables."""
    for query in queries:
        if query["sql"].startswith("SELECT"):
            with connection.cursor() as cursor:
                cursor.execute("EXPLAIN " + query["sql"].replace("%", "%%"), ())
                yield "\n".join(row[0] for row in cursor.fetchall())


@pytest.mark.xdist_group("perf")
@pytest.mark.usefixtures("crowd", "root")
@pytest.mark.parametrize(("model", "query"), LISTS)
def test_no_list_walks_a_table(client, model, query):
    with CaptureQueriesContext(
        connection,
    ) as captured:
        answer = client.get(url(model, "changelist"), query)

    assert answer.status_code == 200
    assert answer.context["cl"].result_list
    assert len(captured) <= 12
    walks = [
        plan
        for plan in plans_of(captured.captured_queries)
        if 'Seq Scan on "user"' in plan or "Seq Scan on api_key" in plan
    ]
    assert walks == []
