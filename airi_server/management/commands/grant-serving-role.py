"""`manage.py grant-serving-role`: give the role that serves what it needs, and nothing else."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any, Final

from django.core.management.base import BaseCommand, CommandError
from django.db import ProgrammingError, connection

from airi_server import roles
from airi_server.management import schema_lock

MAX_NAMED: Final = 5


class Command(BaseCommand):
    help = (
        "Give a role of the database exactly what the server needs to serve, and take back "
        "whatever else it was granted. Run it as the owner of the tables, after each migrate. "
        "Safe to run on every deploy."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("role", help="an existing role, as airi_app")
        parser.add_argument("--dry-run", action="store_true", help="print the SQL, run nothing")

    def handle(self, *args: Any, **options: Any) -> None:
        role = options["role"]
        if options["dry_run"]:
            self.stdout.write("".join(f"{line};\n" for line in roles.statements(role)), ending="")
            return
        try:
            with schema_lock.held(connection, say=self.stderr.write):
                roles.grant(role)
        except roles.NotAServingRole as refused:
            raise CommandError(str(refused)) from None
        except ProgrammingError as refused:
            raise CommandError(
                f"{str(refused).strip()} (run as the owner, after migrate)"
            ) from None
        here = set(connection.introspection.table_names())
        if missing := sorted(set(roles.PRIVILEGES) - here):
            tables = missing if len(missing) <= MAX_NAMED else [*missing[:MAX_NAMED], "…"]
            raise CommandError(
                f"Run `migrate` first: {len(missing)} tables are not there: {', '.join(tables)}",
                returncode=1,
            )
        for table in sorted(here - set(roles.PRIVILEGES)):
            self.stderr.write(f"not listed in airi_server/roles.py, so not granted: {table}")
        standing = roles.standing(role)
        if left := [*standing.surplus, *standing.lacking]:
            raise CommandError("\n".join(f"{role} {each}" for each in left), returncode=1)
        self.stderr.write(f"{role} may serve")
