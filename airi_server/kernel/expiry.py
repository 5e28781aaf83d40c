"""Deletion of what has expired, a batch at a time: no statement is long, and none waits for a row.

A table belongs to an app, which says which column is its age and how long it keeps a row.
"""

from __future__ import annotations

from typing import Any, Final

from django.db import connection
from psycopg import sql

PAGE: Final = 1_000
_CLEAR: Final = sql.SQL(
    "DELETE FROM {table} WHERE ctid = ANY (ARRAY("
    "SELECT ctid FROM {table} WHERE {column} < %s ORDER BY {column} LIMIT %s "
    "FOR UPDATE SKIP LOCKED))"
)


def clear(*, table: str, column: str, before: Any, page: int = PAGE) -> int:
    """Delete the rows below a bound, committing each batch; return how many there were.

    A row that somebody has locked is left for the next run.
    """
    statement = _CLEAR.format(table=sql.Identifier(table), column=sql.Identifier(column))
    cleared = 0
    while True:
        with connection.cursor() as cursor:
            cursor.execute(statement, [before, page])
            deleted: int = cursor.rowcount
        cleared += deleted
        if deleted < page:
            return cleared
