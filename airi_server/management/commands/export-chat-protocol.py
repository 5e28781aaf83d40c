"""`manage.py export-chat-protocol`: write what is published of the chat sockets to docs/."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand

from chats.sockets.documents import files


class Command(BaseCommand):
    help = (
        "Write docs/asyncapi.json, websocket.schema.json and websocket.d.ts from"
        " chats/sockets/protocol.py. A test fails when they are out of date."
    )

    def handle(self, *_args: Any, **_options: Any) -> None:
        for name, text in files.by_name().items():
            path = Path(settings.BASE_DIR) / "docs" / name
            path.write_text(text, encoding="utf-8")
            self.stdout.write(f"wrote {path.relative_to(settings.BASE_DIR)}")
