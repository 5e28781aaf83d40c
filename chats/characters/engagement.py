"""Liking and keeping characters. The counters follow the rows by themselves, in the database."""

from __future__ import annotations

from datetime import datetime

from django.db import transaction

from chats.characters import ownership, portraits, telemetry
from chats.characters.models import Bookmark, Like
from chats.characters.portraits import Portrait


def toggle_like(*, caller: str, character_id: str, at: datetime) -> tuple[Portrait, bool]:
    """Like a character, or stop liking it; the second value is what holds now.

    Two at once come one after the other, so they undo each other and neither fails.

    Raises:
        CharacterNotFound: There is none.
    """
    portrait, liked = _toggle(Like, caller, character_id, at)
    telemetry.ENGAGEMENT.add(1, {"action": "like" if liked else "unlike"})
    return portrait, liked


def toggle_bookmark(*, caller: str, character_id: str, at: datetime) -> tuple[Portrait, bool]:
    """Keep a character, or let go of it; otherwise like `toggle_like`.

    Raises:
        CharacterNotFound: There is none.
    """
    portrait, bookmarked = _toggle(Bookmark, caller, character_id, at)
    telemetry.ENGAGEMENT.add(1, {"action": "bookmark" if bookmarked else "unbookmark"})
    return portrait, bookmarked


def _toggle(
    kind: type[Like | Bookmark], caller: str, character_id: str, at: datetime
) -> tuple[Portrait, bool]:
    with transaction.atomic():
        character = ownership.for_anybody(character_id, lock=True)
        row = {"user_id": caller, "character": character}
        removed, _ = kind.objects.filter(**row).delete()
        if not removed:
            kind.objects.create(**row, created_at=at)
        character.refresh_from_db(fields=["likes_count", "bookmarks_count"])
        (portrait,) = portraits.of([character], caller=caller, is_whole=True)
    return portrait, not removed
