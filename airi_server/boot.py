"""Start-up mistakes in one line: which variable, its value, what is wrong, what to do.

Shared by the ASGI application, `manage.py` and `./run`. The lines go to whoever typed the command
or reads the first page of a log; a traceback is for what is a bug of ours. Imported before the
settings are.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Iterator
from typing import Final

import django
import psycopg
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.management import execute_from_command_line
from django.db import DatabaseError, connection
from redis import Redis
from redis.exceptions import RedisError

from airi_server import env

SETTINGS: Final = "DJANGO_SETTINGS_MODULE"
CONNECT_S: Final = 5
_LONGEST: Final = 300
_REMEDIES: Final = {
    "42P01": "The schema is not this release's: run `migrate` as the owner",
    "42703": "The schema is not this release's: run `migrate` as the owner",
    "42883": "The schema is not this release's: run `migrate` as the owner",
    "42501": "Work with the role that may (docs/roles.md): `migrate` and the like are the owner's",
    "25006": "Connect to the primary: this one is a standby",
    "55P03": "Somebody else holds what it waited for; run it again",
    "57014": "It took longer than it may; run it again when there is less to do",
    "53100": "The disk of the database is full: make room there, and run it again",
    "53300": "Close other connections, or raise max_connections",
}
"""What to do about errors of the database that are no bug of ours, by SQLSTATE."""


def set_up() -> None:
    """Read the settings and fill the app registry.

    Raises:
        SystemExit: With one line for each variable that is missing or cannot be used.
    """
    try:
        django.setup()
    except ImproperlyConfigured as wrong:
        raise SystemExit(str(wrong)) from None
    except ModuleNotFoundError as missing:
        named = os.environ.get(SETTINGS, "")  # noqa: TID251  Django's own variable, none of ours
        if missing.name is None or not f"{named}.".startswith(f"{missing.name}."):
            raise
        remedy = "airi_server.settings.production is for deployments, airi_server.settings.dev not"
        raise SystemExit(f"{SETTINGS} is {named!r}: there is no such module. {remedy}.") from None


def run_command(argv: list[str]) -> None:
    """Run one of the commands of `manage.py`; with --traceback, faults have theirs.

    Raises:
        SystemExit: As `set_up`; or the database or Redis is not there, or refuses.
    """
    set_up()
    unpool()
    with contextlib.nullcontext() if "--traceback" in argv else explained():
        execute_from_command_line(argv)


def unpool() -> None:
    """Let the ORM of a process with one thread connect without a pool, before it has connected.

    A pool would say only after 30 s that it has no connection, and never why.
    """
    options = settings.DATABASES["default"]["OPTIONS"]
    options.pop("pool", None)
    options.setdefault("connect_timeout", CONNECT_S)


def check_servers() -> None:
    """See that PostgreSQL and Redis let us in.

    Raises:
        SystemExit: One does not; the line says which and why.
    """
    with explained():
        connection.ensure_connection()
        with Redis.from_url(settings.REDIS_URL, socket_connect_timeout=CONNECT_S) as client:
            client.ping()


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """Make one line of it if a server of ours is away or refuses, or the disk does.

    Raises:
        SystemExit: With that line.
    """
    try:
        yield
    except BrokenPipeError:  # the reading end of a pipe, as head's, has closed
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None
    except (DatabaseError, RedisError, OSError) as fault:
        line = _line_of(fault)
        if line is None:
            raise
        raise SystemExit(line) from None


def _line_of(fault: DatabaseError | RedisError | OSError) -> str | None:
    """Return what to say of a fault; None if it is a bug and wants its traceback."""
    if isinstance(fault, RedisError):
        return redis_fault(fault)
    if isinstance(fault, DatabaseError):
        causes = (each for each in _chain(fault) if isinstance(each, psycopg.Error))
        cause = next(causes, None)
        return None if cause is None else database_fault(cause)
    return None if fault.filename is None else f"{fault.filename}: {fault.strerror}."


def _chain(fault: BaseException | None) -> Iterator[BaseException]:
    while fault is not None:
        yield fault
        fault = fault.__cause__


def redis_fault(fault: RedisError) -> str:
    """Say that Redis does not answer or refuses, and what to do."""
    given = env.without_secrets(settings.REDIS_URL)
    remedy = "Start Redis or Valkey there, or correct the URL"
    return f"REDIS_URL is {given}: {_flat(fault)}. {remedy}."


def database_fault(fault: psycopg.Error) -> str | None:
    """Say why the database does not let us in or refuses, and what to do; None: that is a bug."""
    if fault.sqlstate in _REMEDIES:
        return f"The database refuses: {_flat(fault)}. {_REMEDIES[fault.sqlstate]}."
    if not isinstance(fault, psycopg.OperationalError):
        return None
    named = connection.settings_dict
    given = f"{named['USER']}@{named['HOST']}:{named['PORT']}/{named['NAME']}"
    remedy = "Start PostgreSQL there, or correct host, port, user, password and database"
    return f"DATABASE_URL leads to {given}: {_flat(fault)}. {remedy}."


def _flat(fault: Exception) -> str:
    """Return what a server said, on one line and once: of several attempts the first."""
    said = str(fault).strip().partition("Multiple connection attempts failed")[0]
    said = re.sub(r"\s+", " ", said).strip().removeprefix("connection failed: ")
    said = said.partition(" LINE 1:")[0].partition(" Is the server running")[0]
    return said[:_LONGEST].rstrip(".?")
