"""Characters themselves: made, listed, looked at, changed and deleted."""

from __future__ import annotations

from datetime import datetime
from typing import Final, TypedDict

from django.db import transaction
from django.db.models import Q

from airi_server.kernel.errors import Conflict, InvalidRequest
from chats.characters import children, ownership, portraits, telemetry
from chats.characters.children import Parts
from chats.characters.models import Character
from chats.characters.portraits import Portrait

MAX_PER_USER: Final = 1000
MAX_LISTED: Final = 500


class Fields(TypedDict, total=False):
    """The columns that their owner may set; every other column is ours."""

    version: str
    cover_url: str
    character_id: str
    avatar_url: str | None
    creator_role: str | None
    price_credit: str


class TooManyCharacters(Conflict):
    """The user has as many characters as anybody may have."""


def create(*, caller: str, at: datetime, fields: Fields, given: Parts) -> Portrait:
    """Make a character of the caller's with all its parts, or nothing at all.

    Raises:
        TooManyCharacters: The caller has `MAX_PER_USER` already.
    """
    own = Character.objects.filter(owner_id=caller, deleted_at__isnull=True)
    if own.count() >= MAX_PER_USER:
        raise TooManyCharacters(f"A user may have {MAX_PER_USER} characters. Delete one first.")
    with transaction.atomic():
        character = Character.objects.create(
            owner_id=caller, creator_id=caller, created_at=at, updated_at=at, **fields
        )
        children.replace(character, given, at=at)
        portrait = _whole(character, caller)
    telemetry.CREATED.add(1)
    return portrait


def listed(
    *, caller: str, of_everybody: bool, limit: int | None = None, cursor: str | None = None
) -> list[Portrait]:
    """Return live characters, newest first: the caller's own, or everybody's.

    The cursor is the id of the last character of the page before, which may be deleted by now.

    Raises:
        InvalidRequest: The cursor names nothing that this list could have shown.
    """
    characters = Character.objects.all()
    if not of_everybody:
        characters = characters.filter(owner_id=caller)
    if cursor is not None:
        last = characters.filter(pk=cursor).order_by("id") if ownership.is_id(cursor) else None
        place = last.values_list("created_at", "id").first() if last is not None else None
        if place is None:
            raise InvalidRequest("cursor is not the id of a listed character.", param="cursor")
        characters = characters.filter(
            Q(created_at__lt=place[0]) | Q(created_at=place[0], id__lt=place[1])
        )
    live = characters.filter(deleted_at__isnull=True).order_by("-created_at", "-id")
    page = list(live[: min(limit or MAX_LISTED, MAX_LISTED)])
    return portraits.of(page, caller=caller, is_whole=False)


def details(*, caller: str, character_id: str) -> Portrait:
    """Return any live character, whole.

    Raises:
        CharacterNotFound: There is none.
    """
    return _whole(ownership.for_anybody(character_id), caller)


def change(
    *, caller: str, character_id: str, at: datetime, fields: Fields, given: Parts
) -> Portrait:
    """Change what is named and leave the rest; a list that is given replaces the one there was.

    Raises:
        CharacterNotFound, NotTheOwner: Refused.
    """
    with transaction.atomic():
        character = ownership.for_owner(character_id, caller=caller)
        for column, value in fields.items():
            setattr(character, column, value)
        character.updated_at = at
        character.save(update_fields=["updated_at", *fields])
        children.replace(character, given, at=at)
        return _whole(character, caller)


def delete(*, caller: str, character_id: str, at: datetime) -> None:
    """Make a character invisible for everybody.

    Raises:
        CharacterNotFound, NotTheOwner: Refused.
    """
    with transaction.atomic():
        character = ownership.for_owner(character_id, caller=caller)
        character.deleted_at = character.updated_at = at
        character.save(update_fields=["deleted_at", "updated_at"])
    telemetry.DELETED.add(1)


def _whole(character: Character, caller: str) -> Portrait:
    (portrait,) = portraits.of([character], caller=caller, is_whole=True)
    return portrait
