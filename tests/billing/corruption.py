"""Reach past every guard of the database, as a hand with psql would."""

from __future__ import annotations

from contextlib import nullcontext

from django.db import connection

from tests.unguarded import unguarded

ROWS = ("UPDATE", "DELETE", "INSERT")
"""What guards look at; what is done to the guards themselves is done to them as they are."""


def corrupt(statements, params):
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        # Pending deferred work would stand in the way of ALTER TABLE.
        cursor.execute("SET session_replication_role = replica")
        for statement in statements.split(";;" if ";;" in statements else ";"):
            writes = statement.split()[0] in ROWS
            with unguarded(cursor) if writes else nullcontext():
                cursor.execute(statement, params)
        cursor.execute("SET session_replication_role = origin")
