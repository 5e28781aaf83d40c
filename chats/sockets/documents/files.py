"""The published protocol as files: what is committed under docs/."""

from __future__ import annotations

import json
from typing import Any

from chats.sockets.documents import asyncapi, schemas, typescript


def by_name() -> dict[str, str]:
    """Return the text of each file by its name."""
    return {
        "asyncapi.json": _json(asyncapi.document()),
        "websocket.schema.json": _json(schemas.document()),
        "websocket.d.ts": typescript.text(),
    }


def _json(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"
