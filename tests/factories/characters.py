"""The ordinary character: Ria's, with one of everything that belongs to a character."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from chats.characters import characters
from chats.characters.models import Character

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
KEY = "sk-somebodys-own-key"

FIELDS: dict[str, Any] = {
    "version": "1",
    "coverUrl": "https://example.com/cover.png",
    "characterId": "my-char",
}
PARTS: dict[str, Any] = {
    "cover": {
        "foregroundUrl": "https://example.com/front.png",
        "backgroundUrl": "https://example.com/back.png",
    },
    "capabilities": [
        {
            "type": "llm",
            "config": {
                "apiKey": KEY,
                "apiBaseUrl": "https://hidden.example.com/v1",
                "llm": {"temperature": 0.7, "model": "secret-model"},
            },
        },
        {
            "type": "tts",
            "config": {
                "apiKey": KEY + "-tts",
                "apiBaseUrl": "",
                "tts": {"ssml": "<speak/>", "voiceId": "v", "speed": 1, "pitch": 1.5},
                "vlm": {"image": "i"},
                "asr": {"audio": "a"},
            },
        },
    ],
    "avatarModels": [
        {
            "name": "body",
            "type": "spine",
            "description": "",
            "config": {"spine": {"urls": ["https://example.com/a.skel"]}},
        }
    ],
    "i18n": [
        {"language": "en", "name": "Airi", "description": "kind", "tags": ["a", "b"]},
        {"language": "ja", "name": "アイリ", "tagline": "t", "description": "", "tags": []},
    ],
    "prompts": [
        {"language": "en", "type": "system", "content": "Be kind."},
        {"language": "en", "type": "greetings", "content": "Hello!"},
    ],
}


def body(**fields: Any) -> dict[str, Any]:
    """Return what a client sends to make a character, with all its parts."""
    return {"character": {**FIELDS, **fields}, **PARTS}


def character(*, owner: str = "ria", at: datetime = NOW, **columns: Any) -> Character:
    """Make a character with a capability and two translations."""
    fields: Any = {"version": "1", "cover_url": "", "character_id": "my-char", **columns}
    given: Any = {
        "capabilities": [{"type": "llm", "config": {"apiKey": KEY, "apiBaseUrl": "https://x"}}],
        "i18n": [
            {"language": name, "name": "Airi", "description": "", "tags": []}
            for name in ("en", "ja")
        ],
    }
    return characters.create(caller=owner, at=at, fields=fields, given=given).character
