"""`manage.py export-openapi`: write the HTTP API's document to docs/openapi.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand

from airi_server.api import api


class Command(BaseCommand):
    help = "Write docs/openapi.json from the routes. A test fails when it is out of date."

    def handle(self, *_args: Any, **_options: Any) -> None:
        path = Path(settings.BASE_DIR) / "docs" / "openapi.json"
        schema = json.dumps(api.get_openapi_schema(), indent=2, sort_keys=True, default=str)
        path.write_text(schema + "\n", encoding="utf-8")
        self.stdout.write(f"wrote {path.relative_to(settings.BASE_DIR)}")
