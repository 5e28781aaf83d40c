"""Expected schema: constraints, indexes and triggers, held against the database.

Migrations make them, and `schema.json` is what they come to: written by `manage.py export-schema`
from a database that was just migrated, and held to the migrations by a test. The running database
is compared with it, so that a hand, or a restore without them, does not go unnoticed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from django.apps import apps
from django.db import connection

from airi_server.kernel import resources

APPS: Final = ("accounts", "billing", "chats", "llmrouter", "runtime")
FILE: Final = "schema.json"
READ_SCHEMA_SQL: Final = resources.read_text("airi_server.runtime", "sql/read_schema.sql")
STATES: Final = {
    "on": "does not fire always",
    "replica": "fires for replicas only",
    "off": "is switched off",
    "invalid": "is not valid",
}
"""What is wrong with something in this state, where another one is expected."""
UNEXPECTED: Final = ("trigger", "rule")
"""What nobody may add to a table with guards: it could change what is written behind them."""


class SchemaPlace(NamedTuple):
    """Where something stands: a name counts on its own table only."""

    table: str
    kind: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name} of {self.table}"


class Definition(NamedTuple):
    """What something says. `state` is whether it is in force; `body` is what a trigger runs."""

    text: str
    state: str = "on"
    body: str | None = None


def installed(tables: list[str]) -> dict[SchemaPlace, Definition]:
    """Return what the database insists on for these tables."""
    with connection.cursor() as cursor:
        cursor.execute(READ_SCHEMA_SQL, {"tables": tables})
        return {SchemaPlace(*row[:3]): Definition(*row[3:]) for row in cursor.fetchall()}


def document() -> str:
    """Return `schema.json` as the database has it, of every table of ours; a line a thing."""
    tables: dict[str, dict[str, Any]] = {}
    for place, said in installed(_ours()).items():
        text = said.text if said == Definition(said.text) else said._asdict()
        tables.setdefault(place.table, {})[f"{place.kind} {place.name}"] = text
    return json.dumps(tables, indent=1, sort_keys=True) + "\n"


def expected() -> dict[SchemaPlace, Definition]:
    """Return what this release's migrations make."""
    tables = json.loads(resources.read_text("airi_server.runtime", FILE))
    return {
        SchemaPlace(table, *thing.split(" ", 1)): (
            Definition(said) if isinstance(said, str) else Definition(**said)
        )
        for table, things in tables.items()
        for thing, said in things.items()
    }


def drift() -> Iterator[tuple[SchemaPlace, str]]:
    """Yield what the database should insist on and does not, or not as it should, and how."""
    wanted = expected()
    found = installed(sorted({place.table for place in wanted}))
    for place, definition in wanted.items():
        if why := _difference(definition, found.get(place)):
            yield place, why
    guarded = {place.table for place, said in wanted.items() if said.state == "always"}
    for place in found.keys() - wanted.keys():
        if place.kind in UNEXPECTED and place.table in guarded:
            yield place, "is not ours, and could change what is written"


def _difference(wanted: Definition, found: Definition | None) -> str:
    if found is None:
        return "is missing"
    if found.state != wanted.state:
        return STATES.get(found.state, f"is {found.state}")
    if found.text != wanted.text:
        return f"says something else: {found.text}"
    return "" if found.body == wanted.body else "runs something else"


def _ours() -> list[str]:
    return [
        model._meta.db_table  # noqa: SLF001  public in all but name
        for app in APPS
        for model in apps.get_app_config(app).get_models(include_auto_created=True)
    ]
