"""Shapes of `/api/v1/characters` that go out. What is null is left out (contract §8.1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from airi_server.kernel.schemas import Instant
from chats.characters.api.schemas import (
    AvatarModelConfig,
    AvatarModelType,
    CapabilityConfig,
    CapabilityType,
    PromptType,
)
from chats.characters.models import Capability, Character
from chats.characters.portraits import Engaged, Portrait


class _Out(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)

    @classmethod
    def of(cls, source: Any, /, **more: Any) -> Self:
        facts = {name: getattr(source, name) for name in cls.model_fields if name not in more}
        return cls(**facts, **more)


class CoverOut(_Out):
    id: str
    character_id: str
    foreground_url: str
    background_url: str
    created_at: Instant
    updated_at: Instant


class CapabilityOut(_Out):
    """What a character can do. Only its owner sees the configuration; for others it is empty."""

    id: str
    character_id: str
    type: CapabilityType
    config: CapabilityConfig


class AvatarModelOut(_Out):
    id: str
    character_id: str
    name: str
    type: AvatarModelType
    description: str
    config: AvatarModelConfig
    created_at: Instant
    updated_at: Instant


class TranslationOut(_Out):
    id: str
    character_id: str
    language: str
    name: str
    tagline: str | None = None
    description: str
    tags: list[str]
    created_at: Instant
    updated_at: Instant


class PromptOut(_Out):
    id: str
    character_id: str
    language: str
    type: PromptType
    content: str


class EngagedOut(_Out):
    character_id: str
    user_id: str
    created_at: Instant


class ListedCharacterOut(_Out):
    """A character with what is shown of it in lists.

    `likes` and `bookmarks` are the latest twenty and always one's own; the counts have them all.
    """

    id: str
    version: str
    cover_url: str
    avatar_url: str | None = None
    character_id: str
    creator_id: str
    creator_role: str | None = None
    owner_id: str
    price_credit: str
    likes_count: int
    bookmarks_count: int
    interactions_count: int
    forks_count: int
    created_at: Instant
    updated_at: Instant
    cover: CoverOut | None = None
    capabilities: list[CapabilityOut]
    i18n: Annotated[list[TranslationOut], Field(alias="i18n")]
    likes: list[EngagedOut]
    bookmarks: list[EngagedOut]

    @classmethod
    def seen(cls, portrait: Portrait, /, **more: Any) -> Self:
        character = portrait.character
        return cls.of(
            character,
            cover=None if portrait.cover is None else CoverOut.of(portrait.cover),
            capabilities=[
                CapabilityOut.of(capability, config=_config(portrait, capability))
                for capability in character.capabilities.all()
            ],
            i18n=[TranslationOut.of(one) for one in character.i18n.all()],
            likes=_engaged(portrait.likes),
            bookmarks=_engaged(portrait.bookmarks),
            **more,
        )


class CharacterOut(ListedCharacterOut):
    """A whole character."""

    avatar_models: list[AvatarModelOut]
    prompts: list[PromptOut]

    @classmethod
    def seen(cls, portrait: Portrait, /, **more: Any) -> Self:
        character: Character = portrait.character
        return super().seen(
            portrait,
            avatar_models=[AvatarModelOut.of(one) for one in character.avatar_models.all()],
            prompts=[PromptOut.of(one) for one in character.prompts.all()],
            **more,
        )


class LikedCharacterOut(CharacterOut):
    """The character, and whether the caller likes it now."""

    liked: bool


class BookmarkedCharacterOut(CharacterOut):
    """The character, and whether the caller keeps it now."""

    bookmarked: bool


def _config(portrait: Portrait, capability: Capability) -> CapabilityConfig:
    config = portrait.configs.get(capability.pk)
    return CapabilityConfig() if config is None else CapabilityConfig.model_validate(config)


def _engaged(everybody: Sequence[Engaged]) -> list[EngagedOut]:
    return [EngagedOut.of(one) for one in everybody]
