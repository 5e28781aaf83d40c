"""Which instances are running now, as PostgreSQL knows it (ADR 0012)."""

from __future__ import annotations

from typing import Final

from django.db import connection

from airi_server.kernel import instance, resources

LIVE_INSTANCES_SQL: Final = resources.read_text("airi_server", "runtime/sql/live_instances.sql")


def live() -> list[str]:
    """Return the ids of the instances that have a session, cut off where PostgreSQL does so."""
    with connection.cursor() as cursor:
        cursor.execute(LIVE_INSTANCES_SQL, {"prefix": instance.PREFIX})
        return [str(row[0]) for row in cursor.fetchall()]


def shown(instance_id: str) -> str:
    """Return the id of an instance as `live` spells it."""
    return f"{instance.PREFIX}{instance_id}"[: instance.MAX_NAME].removeprefix(instance.PREFIX)
