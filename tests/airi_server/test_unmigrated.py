"""A database without our schema: each command that meets one says in a line what to do."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from psycopg import sql

from tests import serving_role
from tests.lab.server import database_url, manage
from tests.processes.test_serve import Serving

NAME = "airi_unmigrated"
pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def empty() -> Iterator[str]:
    """Return the name of a database with nothing in it."""
    with psycopg.connect(database_url(), autocommit=True) as owner:
        name = f"{NAME}_{owner.info.dbname[-3:]}"
        dropping = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
        owner.execute(dropping)
        owner.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        yield name
        owner.execute(dropping)


def url(name: str, *role: str) -> str:
    return f"{database_url(*role).rpartition('/')[0]}/{name}"


def test_nobody_is_said_to_be_able_to_serve_it(empty):
    ran = manage("grant-serving-role", serving_role.ROLE, DATABASE_URL=url(empty))

    assert ran.returncode == 1
    assert "may serve" not in ran.stderr
    assert "Run `migrate` first" in ran.stderr


def test_is_not_migrated_by_the_role_that_serves(empty):
    as_server = url(empty, serving_role.ROLE, serving_role.PASSWORD)
    ran = manage("migrate", DATABASE_URL=as_server)

    assert ran.returncode == 1
    assert "Migrate as the owner." in ran.stderr
    assert "Traceback" not in ran.stderr


def test_is_not_served(empty, tmp_path):
    as_server = url(empty, serving_role.ROLE, serving_role.PASSWORD)
    with Serving(tmp_path / "log", DATABASE_URL=as_server) as serving:
        assert serving.status(within_s=60) != 0

    assert "run `migrate` as the owner" in serving.log
    assert "Traceback" not in serving.log
