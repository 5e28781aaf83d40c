"""Roles of the database: an owner who migrates, and one that serves and may do what is listed here.

The serving role has no privilege on sequences (ids are identity columns) and needs none on
functions, which run with the privileges of whoever calls them. See docs/roles.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from django.db import connection, transaction
from psycopg import sql

from airi_server.kernel import resources

Privileges = tuple[str, ...]

READ: Final = ("SELECT",)
APPEND: Final = ("SELECT", "INSERT")
KEEP: Final = ("SELECT", "INSERT", "UPDATE")
ALL: Final = ("SELECT", "INSERT", "UPDATE", "DELETE")
PRIVILEGES: Final[dict[str, Privileges]] = {
    # What migrations fill.
    "auth_permission": READ,
    "django_content_type": READ,
    "django_migrations": READ,
    # Evidence: rows come, and stay as they are.
    "audit_entry": APPEND,
    "config_kv": APPEND,
    "django_admin_log": APPEND,
    "flux_grant": APPEND,
    "flux_transaction": APPEND,
    "price_version": APPEND,
    "reconciliation_run": APPEND,
    "router_revision": APPEND,
    # What changes and is never deleted.
    "api_key_spend": KEEP,
    "chat": KEEP,
    "flux_grant_person": KEEP,
    "llm_request_log": KEEP,
    "published_version": KEEP,
    "router_defaults": KEEP,
    "user": KEEP,
    "user_flux": KEEP,
    # The rest.
    "api_key": ALL,
    "auth_group": ALL,
    "auth_group_permissions": ALL,
    "character": ALL,
    "character_avatar_model": ALL,
    "character_bookmark": ALL,
    "character_capability": ALL,
    "character_cover": ALL,
    "character_i18n": ALL,
    "character_like": ALL,
    "character_prompt": ALL,
    "chat_addition": ALL,
    "chat_leaver": ALL,
    "chat_member": ALL,
    "chat_message": ALL,
    "django_session": ALL,
    "llm_request_result": ALL,
    "refusal_hour": ALL,
    "refused_request": ALL,
    "router_key": ALL,
    "router_model": ALL,
    "router_upstream": ALL,
    "used_form": ALL,
    "user_groups": ALL,
    "user_user_permissions": ALL,
}
"""A table that is not listed is not the serving role's business at all."""
READ_PRIVILEGES_SQL: Final = resources.read_text("airi_server", "sql/read_role_privileges.sql")
READ_POWERS_SQL: Final = resources.read_text("airi_server", "sql/read_role_powers.sql")
MASTERS: Final = ("is a superuser", "owns tables")
LOCK: Final = "grant-serving-role"


class NotAServingRole(Exception):
    """A role that cannot serve, with the reason."""


@dataclass(frozen=True, slots=True)
class RoleDrift:
    """How a role differs from a serving role: what it may too much, and what it lacks."""

    surplus: list[str]
    lacking: list[str]


def statements(role: str) -> list[str]:
    """Return the SQL that makes `role` a serving role; its earlier privileges are taken back."""
    names = _names(role)
    lines = [
        "REVOKE CREATE ON SCHEMA {schema} FROM PUBLIC",
        "REVOKE TEMPORARY ON DATABASE {database} FROM PUBLIC",
        "REVOKE ALL ON DATABASE {database} FROM {role}",
        "REVOKE ALL ON SCHEMA {schema} FROM {role}",
        "REVOKE ALL ON ALL TABLES IN SCHEMA {schema} FROM {role}",
        "REVOKE ALL ON ALL SEQUENCES IN SCHEMA {schema} FROM {role}",
        "GRANT CONNECT ON DATABASE {database} TO {role}",
        "GRANT USAGE ON SCHEMA {schema} TO {role}",
    ]
    found = [_composed(line, names) for line in lines]
    here = set(connection.introspection.table_names())
    for privileges in (READ, APPEND, KEEP, ALL):
        # A table that is not there yet, or not any more, is granted after the next migrate.
        listed = {name for name, kind in PRIVILEGES.items() if kind == privileges}
        if tables := [sql.Identifier(name) for name in sorted(listed & here)]:
            line = f"GRANT {', '.join(privileges)} ON {{tables}} TO {{role}}"
            found.append(_composed(line, {**names, "tables": sql.SQL(", ").join(tables)}))
    return found


def grant(role: str) -> None:
    """Make `role` a serving role, in one transaction; the second time changes nothing.

    Raises:
        NotAServingRole: It does not exist, or may do everything anyway.
    """
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtext(%s))", [LOCK])
        cursor.execute(
            "SELECT rolsuper OR rolname = current_user FROM pg_roles WHERE rolname = %s", [role]
        )
        row = cursor.fetchone()
        if row is None:
            raise NotAServingRole(f"There is no role {role}. CREATE ROLE {role} LOGIN makes it.")
        if row[0]:
            raise NotAServingRole(f"{role} may do everything here: let another role serve.")
        for statement in statements(role):
            cursor.execute(statement)


def standing(role: str) -> RoleDrift:
    """Compare what a role may with what it should, wherever it got it from."""
    with connection.cursor() as cursor:
        cursor.execute(READ_POWERS_SQL, {"role": role})
        powers = [str(power) for (power,) in cursor.fetchall()]
        cursor.execute(READ_PRIVILEGES_SQL, {"role": role})
        held = {table: set(privileges) for table, privileges in cursor.fetchall()}
    wanted = {table: set(PRIVILEGES.get(table, ())) for table in held}
    # An owner or a superuser has each privilege on each table, which need not be listed.
    is_master = any(power.startswith(MASTERS) for power in powers)
    surplus = [] if is_master else _listed("may", {t: held[t] - wanted[t] for t in held})
    return RoleDrift(
        [*powers, *surplus], _listed("may not", {t: wanted[t] - held[t] for t in held})
    )


def current() -> str:
    """Return the role with which this process works."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_user")
        return str(cursor.fetchone()[0])


def _listed(verb: str, tables: Mapping[str, set[str]]) -> list[str]:
    return [f"{verb} {', '.join(sorted(each))} {name}" for name, each in tables.items() if each]


def _names(role: str) -> dict[str, sql.Composable]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_database(), current_schema()")
        database, schema = cursor.fetchone()
    return {
        "role": sql.Identifier(role),
        "database": sql.Identifier(database),
        "schema": sql.Identifier(schema),
    }


def _composed(line: str, names: dict[str, Any]) -> str:
    return sql.SQL(line).format(**names).as_string()
