"""What belongs to a character: its cover and its lists, each replaced whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, TypedDict

import orjson

from airi_server.kernel import ids
from chats.characters import encryption
from chats.characters.models import AvatarModel, Capability, Character, Cover, Prompt, Translation

Row = Mapping[str, Any]
"""Columns by name; a capability has `config`, in the clear, for `sealed_config`."""


class Parts(TypedDict, total=False):
    """The parts that somebody named; a cover of None is none."""

    cover: Row | None
    capabilities: Sequence[Row]
    avatar_models: Sequence[Row]
    i18n: Sequence[Row]
    prompts: Sequence[Row]


def replace(character: Character, parts: Parts, *, at: datetime) -> None:
    """Store the parts that are named in place of what was there; the rest stays.

    The caller holds the character's lock.
    """
    dated = {"created_at": at, "updated_at": at}
    if "cover" in parts:
        Cover.objects.filter(character=character).delete()
        if parts["cover"] is not None:
            Cover.objects.create(character=character, **dated, **parts["cover"])
    if "capabilities" in parts:
        sealed = [_sealed(character, row) for row in parts["capabilities"]]
        Capability.objects.filter(character=character).delete()
        Capability.objects.bulk_create(
            Capability(character=character, position=n, **row) for n, row in enumerate(sealed)
        )
    if "avatar_models" in parts:
        AvatarModel.objects.filter(character=character).delete()
        AvatarModel.objects.bulk_create(
            AvatarModel(character=character, position=n, **dated, **row)
            for n, row in enumerate(parts["avatar_models"])
        )
    if "i18n" in parts:
        Translation.objects.filter(character=character).delete()
        Translation.objects.bulk_create(
            Translation(character=character, position=n, **dated, **row)
            for n, row in enumerate(parts["i18n"])
        )
    if "prompts" in parts:
        Prompt.objects.filter(character=character).delete()
        Prompt.objects.bulk_create(
            Prompt(character=character, position=n, **row) for n, row in enumerate(parts["prompts"])
        )


def _sealed(character: Character, row: Row) -> dict[str, str]:
    capability_id, config = ids.nanoid(), orjson.dumps(row["config"]).decode()
    sealed = encryption.seal(config, character_id=character.pk, capability_id=capability_id)
    return {"id": capability_id, "type": row["type"], "sealed_config": sealed}
