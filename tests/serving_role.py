"""The role with which a deployment serves, for whatever the tests have served.

Tests arrange and look with the role that owns everything. A request, by Django's client or over a
socket, a command of ours, and a process of its own have the serving role and are refused what it
may not: a missing grant fails the test of whoever needs it.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any, Final

import psycopg
from asgiref.sync import sync_to_async
from django.core.handlers.base import BaseHandler
from django.core.management.base import BaseCommand
from django.db import connection, connections
from django.db.backends.signals import connection_created
from psycopg.conninfo import make_conninfo

from airi_server import roles
from airi_server.kernel import database

ROLE: Final = "airi_tests_app"
PASSWORD: Final = "of-the-tests"
MAKE: Final = f"""
DO $$
BEGIN
    -- Nobody guesses at it, and each connection would be slower.
    PERFORM set_config('scram_iterations', '1', true);
    CREATE ROLE {ROLE} LOGIN PASSWORD '{PASSWORD}';
EXCEPTION WHEN duplicate_object OR unique_violation THEN
    NULL; -- another worker was here first
END
$$
"""

"""The role belongs to the cluster and has no privileges by itself."""


OURS: Final = ("accounts", "airi_server", "billing", "chats", "llmrouter")


class _Serving(threading.local):
    """Whether this thread has a request under way."""

    is_on = False


_serving = _Serving()
_own_conninfo = database._conninfo
_own_get_response = BaseHandler.get_response
_own_get_response_async = BaseHandler.get_response_async
_own_execute = BaseCommand.execute


def install() -> None:
    """Make the role, let it serve this database, and serve with it from now on."""
    with connection.cursor() as cursor:
        cursor.execute(MAKE)
    roles.grant(ROLE)
    database._conninfo = _conninfo
    BaseHandler.get_response = _get_response  # type: ignore[method-assign]
    BaseHandler.get_response_async = _get_response_async  # type: ignore[method-assign]
    BaseCommand.execute = _execute  # type: ignore[method-assign]
    connection_created.connect(_opened)


def settings() -> dict[str, Any]:
    """Return what a connection of a process differs in from one of the tests."""
    return {"USER": ROLE, "PASSWORD": PASSWORD}


@contextlib.contextmanager
def worn() -> Iterator[None]:
    """Have this thread's own connection work with the role meanwhile."""
    if _serving.is_on:
        yield
        return
    _begin()
    try:
        yield
    finally:
        _end()


def _conninfo() -> str:
    return make_conninfo(_own_conninfo(), user=ROLE, password=PASSWORD)


def _get_response(self: BaseHandler, request: Any) -> Any:
    with worn():
        return _own_get_response(self, request)


async def _get_response_async(self: BaseHandler, request: Any) -> Any:
    await sync_to_async(_begin)()
    try:
        return await _own_get_response_async(self, request)
    finally:
        await sync_to_async(_end)()


def _execute(self: BaseCommand, *args: Any, **options: Any) -> Any:
    app, *_, name = type(self).__module__.split(".")
    if app not in OURS or name == "grant-serving-role":
        return _own_execute(self, *args, **options)
    with worn():
        return _own_execute(self, *args, **options)


def _begin() -> None:
    _serving.is_on = True
    _set(f"SET ROLE {ROLE}")


def _end() -> None:
    _serving.is_on = False
    _set("RESET ROLE")


def _opened(connection: Any, **_: Any) -> None:
    if _serving.is_on:
        connection.connection.execute(f"SET ROLE {ROLE}")


def _set(statement: str) -> None:
    """Say it to a connection that is open, past Django, which counts its statements."""
    raw = connections["default"].connection
    if raw is not None:
        with contextlib.suppress(psycopg.Error):  # it is dead, or its transaction is
            raw.execute(statement)
