"""`manage.py check --deploy` says in a line what keeps a deployment from its database."""

from __future__ import annotations

import pytest

from tests.airi_server.test_unmigrated import empty, url
from tests.lab.server import manage

pytestmark = pytest.mark.django_db(transaction=True)
__all__ = ["empty"]


def checked(database_url: str) -> str:
    ran = manage("check", "--deploy", "--database", "default", DATABASE_URL=database_url)
    assert ran.returncode == 1
    assert "Traceback" not in ran.stderr
    return ran.stderr


def test_that_nobody_listens():
    said = checked("postgresql://airi@127.0.0.1:9/airi")

    assert "(airi.E003) DATABASE_URL leads to airi@127.0.0.1:9/airi: " in said
    assert "Connection refused" in said
    assert "Start PostgreSQL there, or correct host, port, user, password and database." in said


def test_that_it_was_not_migrated(empty):
    said = checked(url(empty))

    assert "(airi.E002) billing/sql/open_requests.sql is not what the database runs." in said
    assert "Run `manage.py migrate`." in said
