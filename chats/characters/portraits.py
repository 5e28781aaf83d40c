"""Characters as one caller sees them: with their parts, and with keys only for the owner."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, NamedTuple

import orjson
from django.db import connection
from django.db.models import Prefetch, prefetch_related_objects

from airi_server.kernel import resources, sealing
from chats.characters import encryption
from chats.characters.models import (
    AvatarModel,
    Capability,
    Character,
    Cover,
    Prompt,
    Translation,
)

logger = logging.getLogger(__name__)

READ_ENGAGEMENT_SQL: Final = resources.read_text("chats", "sql/read_engagement.sql")
MAX_SHOWN: Final = 20
"""How many likes and bookmarks of others a character is shown with; the counts have them all."""


class Engaged(NamedTuple):
    """Somebody likes or keeps a character."""

    character_id: str
    user_id: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Portrait:
    """What one caller may see of a character.

    `configs` are the capabilities' configurations by the capability's id: only for the owner, and
    without those that do not open.
    """

    character: Character
    likes: Sequence[Engaged]
    bookmarks: Sequence[Engaged]
    is_whole: bool
    configs: Mapping[str, Mapping[str, Any]] = field(repr=False)

    @property
    def cover(self) -> Cover | None:
        return getattr(self.character, "cover", None)


def of(characters: Sequence[Character], *, caller: str, is_whole: bool) -> list[Portrait]:
    """Return portraits in the same order, read in a number of statements that is always the same.

    A whole one has the avatar models and prompts, which lists leave out.
    """
    prefetch_related_objects(characters, "cover", *_in_order(is_whole=is_whole))
    engaged = _engagement([character.pk for character in characters], caller)
    return [
        Portrait(
            character=character,
            likes=engaged["like", character.pk],
            bookmarks=engaged["bookmark", character.pk],
            is_whole=is_whole,
            configs=_configs(character) if character.owner_id == caller else {},
        )
        for character in characters
    ]


def _in_order(*, is_whole: bool) -> list[Prefetch[Any]]:
    lists: list[Prefetch[Any]] = [
        Prefetch("i18n", Translation.objects.order_by("position")),
        Prefetch("capabilities", Capability.objects.order_by("position")),
    ]
    if is_whole:
        lists += [
            Prefetch("avatar_models", AvatarModel.objects.order_by("position")),
            Prefetch("prompts", Prompt.objects.order_by("position")),
        ]
    return lists


def _engagement(character_ids: list[str], caller: str) -> dict[tuple[str, str], list[Engaged]]:
    params: dict[str, Any] = {
        "character_ids": character_ids,
        "caller": caller,
        "max_shown": MAX_SHOWN,
    }
    found: dict[tuple[str, str], list[Engaged]] = defaultdict(list)
    with connection.cursor() as cursor:
        cursor.execute(READ_ENGAGEMENT_SQL, params)
        for kind, character_id, user_id, created_at in cursor.fetchall():
            found[kind, character_id].append(Engaged(character_id, user_id, created_at))
    return found


def _configs(character: Character) -> dict[str, Mapping[str, Any]]:
    """Open what the owner may see. One that does not open does not take the rest along."""
    opened = {}
    for capability in character.capabilities.all():
        try:
            config = encryption.open_sealed(
                capability.sealed_config, character_id=character.pk, capability_id=capability.pk
            )
        except sealing.CannotOpen as refusal:
            facts = {"capability": capability.pk, "why": str(refusal)}
            logger.error("Unable to open a capability", extra=facts)  # noqa: TRY400  no traceback
            continue
        opened[capability.pk] = orjson.loads(config)
    return opened
