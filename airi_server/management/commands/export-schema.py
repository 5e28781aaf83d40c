"""`manage.py export-schema`: write down what the database insists on, as migrations make it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand

from airi_server.runtime import schema


class Command(BaseCommand):
    help = (
        "Write airi_server/runtime/schema.json from this database, which has just been migrated "
        "and that nobody has changed by hand. A test fails when it is out of date."
    )

    def handle(self, *_args: Any, **_options: Any) -> None:
        path = Path(settings.BASE_DIR) / "airi_server" / "runtime" / schema.FILE
        path.write_text(schema.document(), encoding="utf-8")
        self.stdout.write(f"wrote {path.relative_to(settings.BASE_DIR)}")
