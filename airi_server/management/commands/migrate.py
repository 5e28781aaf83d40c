"""`manage.py migrate`: Django's own, one process at a time."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandError
from django.core.management.commands import migrate
from django.db import connections
from django.db.migrations.exceptions import MigrationSchemaMissing

from airi_server.management import schema_lock


class Command(migrate.Command):
    help = (
        "Bring the database's schema to this release, as the owner of the tables. Instances that "
        "start together may all run it: one migrates, the others wait for it and find nothing to "
        "do. Afterwards run grant-serving-role."
    )

    def handle(self, *args: Any, **options: Any) -> None:
        if options["plan"] or options["check_unapplied"]:
            super().handle(*args, **options)
            return
        try:
            with schema_lock.held(connections[options["database"]], say=self.stderr.write):
                super().handle(*args, **options)
        except MigrationSchemaMissing as refused:
            raise CommandError(f"{str(refused).strip()}. Migrate as the owner.") from None
