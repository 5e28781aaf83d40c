"""Reach past every guard of the database, as a hand with psql would."""

from __future__ import annotations

from django.db import connection


def corrupt(statements, params):
    with connection.cursor() as cursor:
        # Pending deferred work would stand in the way of ALTER TABLE.
        cursor.execute("SET session_replication_role = replica")
        for statement in statements.split(";"):
            cursor.execute(statement, params)
        cursor.execute("SET session_replication_role = origin")
