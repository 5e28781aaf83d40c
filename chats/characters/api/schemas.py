"""Shapes of `/api/v1/characters` that come in, in camelCase.

What they do not name is ignored at every depth, because clients send whole characters back, with
ids and counters and with fields that are newer than we are. What they name is all that can be set.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints
from pydantic.alias_generators import to_camel

from chats.characters import models
from chats.characters.characters import Fields
from chats.characters.children import Parts

MAX_CAPABILITIES: Final = 20
MAX_AVATAR_MODELS: Final = 20
MAX_TRANSLATIONS: Final = 20
MAX_PROMPTS: Final = 60
MAX_SPEECH: Final = 16_384

CapabilityType = Literal["llm", "tts", "vlm", "asr"]
AvatarModelType = Literal["vrm", "live2d", "spine"]
PromptType = Literal["system", "personality", "greetings"]


def _storable(text: str) -> str:
    """Refuse what PostgreSQL cannot keep: NUL, and halves of surrogate pairs."""
    if "\x00" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
        raise ValueError("must not contain NUL or lone surrogates")
    return text


STORABLE: Final = AfterValidator(_storable)
URL = Annotated[str, StringConstraints(max_length=models.MAX_URL), STORABLE]
Name = Annotated[str, StringConstraints(max_length=models.MAX_NAME), STORABLE]
Version = Annotated[str, StringConstraints(max_length=64), STORABLE]
Price = Annotated[str, StringConstraints(max_length=32), STORABLE]
Language = Annotated[str, StringConstraints(max_length=models.MAX_LANGUAGE), STORABLE]
Tagline = Annotated[str, StringConstraints(max_length=500), STORABLE]
Tag = Annotated[str, StringConstraints(max_length=64), STORABLE]
Description = Annotated[str, StringConstraints(max_length=models.MAX_DESCRIPTION), STORABLE]
PromptText = Annotated[str, StringConstraints(max_length=models.MAX_PROMPT), STORABLE]
Secret = Annotated[str, StringConstraints(max_length=4096), STORABLE, Field(repr=False)]
Speech = Annotated[str, StringConstraints(max_length=MAX_SPEECH), STORABLE]
Number = Annotated[float, Field(ge=-1000, le=1000, allow_inf_nan=False)]


class CharacterShape(BaseModel):
    model_config = ConfigDict(
        strict=True,
        alias_generator=to_camel,
        validate_by_name=False,
        serialize_by_alias=True,
        hide_input_in_errors=True,
    )


class LLMSettings(CharacterShape):
    temperature: Number
    model: Name


class TTSSettings(CharacterShape):
    ssml: Speech
    voice_id: Name
    speed: Number
    pitch: Number


class VLMSettings(CharacterShape):
    image: URL


class ASRSettings(CharacterShape):
    audio: URL


class CapabilityConfig(CharacterShape):
    """Sealed as a whole and shown to the owner only; everybody else reads empty texts."""

    api_key: Secret = ""
    api_base_url: URL = ""
    llm: LLMSettings | None = None
    tts: TTSSettings | None = None
    vlm: VLMSettings | None = None
    asr: ASRSettings | None = None


class Files(CharacterShape):
    urls: Annotated[list[URL], Field(max_length=100)]


class AvatarModelConfig(CharacterShape):
    vrm: Files | None = None
    live2d: Files | None = None
    spine: Files | None = None


class CoverIn(CharacterShape):
    foreground_url: URL
    background_url: URL


class CapabilityIn(CharacterShape):
    type: CapabilityType
    config: CapabilityConfig


class AvatarModelIn(CharacterShape):
    name: Name
    type: AvatarModelType
    description: Description
    config: AvatarModelConfig


class TranslationIn(CharacterShape):
    language: Language
    name: Name
    tagline: Tagline | None = None
    description: Description
    tags: Annotated[list[Tag], Field(max_length=models.MAX_TAGS)]


class PromptIn(CharacterShape):
    language: Language
    type: PromptType
    content: PromptText


class PartsIn(CharacterShape):
    """What belongs to a character. A list that is given replaces the one there was."""

    cover: CoverIn | None = None
    capabilities: Annotated[list[CapabilityIn], Field(max_length=MAX_CAPABILITIES)] = []
    avatar_models: Annotated[list[AvatarModelIn], Field(max_length=MAX_AVATAR_MODELS)] = []
    # Named, because the generator would make it `i18N`.
    i18n: Annotated[list[TranslationIn], Field(max_length=MAX_TRANSLATIONS, alias="i18n")] = []
    prompts: Annotated[list[PromptIn], Field(max_length=MAX_PROMPTS)] = []

    def parts(self) -> Parts:
        """Return the parts that the client named."""
        named = self.model_fields_set & PartsIn.model_fields.keys()
        given: Any = self.model_dump(include=named, by_alias=False)
        for capability, row in zip(self.capabilities, given.get("capabilities", ()), strict=True):
            row["config"] = capability.config.model_dump(exclude_none=True)
        for model, row in zip(self.avatar_models, given.get("avatar_models", ()), strict=True):
            row["config"] = model.config.model_dump(exclude_none=True)
        parts: Parts = given
        return parts


class FieldsIn(CharacterShape):
    """What a character is made with, besides its parts."""

    version: Version
    cover_url: URL
    character_id: Name
    avatar_url: URL | None = None
    creator_role: Name | None = None
    price_credit: Price = "0"

    def fields(self) -> Fields:
        fields: Any = self.model_dump(by_alias=False)
        named: Fields = fields
        return named


class CharacterIn(PartsIn):
    """A character to make. It belongs to the caller."""

    character: FieldsIn


class CharacterPatch(PartsIn):
    """What to change; what is missing stays. Null removes the cover, the avatar or the role."""

    version: Version = ""
    cover_url: URL = ""
    character_id: Name = ""
    avatar_url: URL | None = None
    creator_role: Name | None = None
    price_credit: Price = ""

    def fields(self) -> Fields:
        """Return the columns that the client named."""
        named = self.model_fields_set - PartsIn.model_fields.keys()
        fields: Any = self.model_dump(include=named, by_alias=False)
        changes: Fields = fields
        return changes
