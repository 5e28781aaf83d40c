"""System checks `airi.E001…`: misconfiguration, found by `manage.py check` and at every boot."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Final

import psycopg
from django.conf import settings
from django.core.checks import WARNING, CheckMessage, Error, Tags, register, run_checks
from django.db import DatabaseError, connection
from django_redis import get_redis_connection
from redis.exceptions import RedisError

from airi_server import boot, roles
from airi_server.kernel import resources
from airi_server.settings import hardening
from airi_server.web import serve

logger = logging.getLogger(__name__)
SERVER: Final = "server"
"""The tag of checks of the process that serves."""

HOT_PATH_FUNCTIONS = (
    ("billing", "open_requests"),
    ("billing", "mark_requests"),
    ("billing", "settle_requests"),
    ("chats", "send_messages"),
)
FAULT_IDS = {
    "SECRET_KEY": "airi.E010",
    "LLM_ROUTER_MASTER_KEY": "airi.E011",
    "ALLOWED_HOSTS": "airi.E012",
    "TRUSTED_PROXIES": "airi.E013",
    "ADMIN_PATH": "airi.E014",
    "ADDITIONAL_TRUSTED_ORIGINS": "airi.E015",
    "CSRF_TRUSTED_ORIGINS": "airi.E016",
    "DATABASE_URL": "airi.E017",
}


@register(Tags.security, deploy=True)
def redis_reachable(app_configs: Sequence[Any] | None, **_: Any) -> list[CheckMessage]:
    """E001: Redis answers."""
    try:
        get_redis_connection("default").ping()
    except RedisError:
        return [Error("Redis does not answer.", id="airi.E001", hint="Look at REDIS_URL.")]
    return []


@register(Tags.database, deploy=True)  # not before the migration that would mend it
def statements_installed(
    app_configs: Sequence[Any] | None,
    databases: Sequence[str] | None = None,
    **_: Any,
) -> list[CheckMessage]:
    """E002: the functions of the hot path in the database are those of this code."""
    if not databases:
        return []
    try:
        drifted = [place for place in HOT_PATH_FUNCTIONS if not _is_installed(*place)]
    except DatabaseError as away:
        return [_database_away(away)]
    return [
        Error(
            f"{app}/sql/{name}.sql is not what the database runs.",
            id="airi.E002",
            hint="Run `manage.py migrate`.",
        )
        for app, name in drifted
    ]


def _database_away(away: DatabaseError) -> CheckMessage:
    """E003: the database does not answer, or refuses."""
    fault = away.__cause__
    said = boot.database_fault(fault) if isinstance(fault, psycopg.Error) else None
    return Error(said or f"The database failed: {away}", id="airi.E003")


def _is_installed(app: str, name: str) -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT prosrc FROM pg_proc WHERE proname = %s", [f"{app}_{name}"])
        row = cursor.fetchone()
    body = resources.read_text(app, f"sql/{name}.sql").split("AS $$", 1)[1]
    return row is not None and row[0].strip() == body.rpartition("$$")[0].strip()


@register(Tags.security, deploy=True)
def origins_are_https(app_configs: Sequence[Any] | None, **_: Any) -> list[CheckMessage]:
    """E004: what clients are told our address is cannot be read on the way."""
    if settings.API_SERVER_URL.startswith("https://"):
        return []
    return [Error("API_SERVER_URL is not https.", id="airi.E004", hint="Set API_SERVER_URL.")]


@register(Tags.security, deploy=True)
def settings_are_hardened(app_configs: Sequence[Any] | None, **_: Any) -> list[CheckMessage]:
    """E010 to E017: secrets that can be guessed, and trust that no setting names."""
    given = {name: getattr(settings, name) for name in hardening.RULES}
    return [
        Error(f"{fault.variable} {fault.wrong}.", id=FAULT_IDS[fault.variable], hint=fault.remedy)
        for fault in hardening.faults(given)
    ]


@register(Tags.security, deploy=True)
def role_only_serves(app_configs: Sequence[Any] | None, **_: Any) -> list[CheckMessage]:
    """W001 and E018: the role we work with may what the server does, and no more."""
    try:
        role = roles.current()
        standing = roles.standing(role)
    except DatabaseError as away:
        return [_database_away(away)]
    found: list[CheckMessage] = []
    if standing.surplus:
        found.append(
            CheckMessage(
                WARNING,
                f"The database role {role} {'; '.join(standing.surplus)}.",
                id="airi.W001",
                hint="Serve with a role made by `manage.py grant-serving-role` (docs/roles.md).",
            )
        )
    if standing.lacking:
        found.append(
            Error(
                f"The database role {role} {'; '.join(standing.lacking)}.",
                id="airi.E018",
                hint="Run `manage.py grant-serving-role` as the owner, after each migrate.",
            )
        )
    return found


@register(SERVER)
def server_is_ours(app_configs: Sequence[Any] | None, **_: Any) -> list[CheckMessage]:
    """W002: the process that serves the application is one of `manage.py serve`."""
    if serve.Process.is_configured or not serve.Process.is_server:
        return []
    return [
        CheckMessage(
            WARNING,
            "The application is served by another server than its own, without its bounds on "
            "what a connection may cost and where a request ends.",
            id="airi.W002",
            hint="Start it with `manage.py serve` (docs/deploy.md).",
        )
    ]


def warn_of_server() -> None:
    """Write to the log what the checks of the process that serves find in this one."""
    for found in run_checks(tags=[SERVER]):
        logger.warning(found.msg, extra={"check": found.id, "hint": found.hint})
