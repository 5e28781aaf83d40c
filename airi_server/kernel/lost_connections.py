"""If one pooled ORM connection is dead, discard the whole pool.

After a restart of PostgreSQL each of them would fail a request. The pool's own check would not, but
it waits for twice as long after each dead one that it meets, half a minute for five.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
from django.db import OperationalError
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created

from airi_server.kernel import database


def drain_when_one_is_met() -> None:
    """Have every connection that views get empty its pool when it turns out to be dead."""
    connection_created.connect(_watch)


def _watch(connection: BaseDatabaseWrapper, **_: Any) -> None:
    if _drain not in connection.execute_wrappers:
        connection.execute_wrappers.append(_drain)


def _drain(
    execute: Callable[..., Any],
    sql: str,
    params: Any,
    many: bool,  # noqa: FBT001  Django's signature
    context: dict[str, Any],
) -> Any:
    try:
        return execute(sql, params, many, context)
    except OperationalError as failed:
        cause = failed.__cause__
        pool = getattr(context["connection"], "pool", None)
        if pool is not None and isinstance(cause, psycopg.Error) and database.was_lost(cause):
            pool.drain()
        raise
