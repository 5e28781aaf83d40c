"""Whose a character is: every look-up of one says who asks, or that anybody may."""

from __future__ import annotations

import re

from airi_server.kernel.errors import Forbidden, NotFound
from chats.characters.models import ID_PATTERN, Character


class CharacterNotFound(NotFound):
    """There is no such character, or it was deleted."""

    def __init__(self) -> None:
        super().__init__("Character not found")


class NotTheOwner(Forbidden):
    """Everybody may look at the character, but only its owner may change it."""

    def __init__(self) -> None:
        super().__init__("Only its owner may change a character.")


def is_id(text: str) -> bool:
    """Return whether a character can have this id."""
    return re.fullmatch(ID_PATTERN, text, re.ASCII) is not None


def for_anybody(character_id: str, *, lock: bool = False) -> Character:
    """Return a live character; with `lock` nobody else changes or counts it in the meantime.

    Raises:
        CharacterNotFound: There is none.
    """
    characters = Character.objects.filter(deleted_at__isnull=True)
    if lock:
        characters = characters.select_for_update(no_key=True)
    known = is_id(character_id)
    character = characters.filter(pk=character_id).order_by("id").first() if known else None
    if character is None:
        raise CharacterNotFound
    return character


def for_owner(character_id: str, *, caller: str) -> Character:
    """Return a live character of the caller's, locked.

    Raises:
        CharacterNotFound: There is none.
        NotTheOwner: It is somebody else's.
    """
    character = for_anybody(character_id, lock=True)
    if character.owner_id != caller:
        raise NotTheOwner
    return character
