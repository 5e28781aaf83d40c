"""System checks `airi.E001…`: misconfiguration, found by `manage.py check` and at every boot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, register
from django.db import DatabaseError, connection
from django_redis import get_redis_connection
from redis.exceptions import RedisError

from airi_server.kernel import resources

HOT_PATH_FUNCTIONS = (
    ("billing", "open_requests"),
    ("billing", "mark_requests"),
    ("billing", "settle_requests"),
    ("chats", "send_messages"),
)


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
    except DatabaseError:
        hint = "Look at DATABASE_URL."
        return [Error("The database does not answer.", id="airi.E003", hint=hint)]
    return [
        Error(
            f"{app}/sql/{name}.sql is not what the database runs.",
            id="airi.E002",
            hint="Run `manage.py migrate`.",
        )
        for app, name in drifted
    ]


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
