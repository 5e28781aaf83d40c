"""What an operator says to seed the router (contract §3.8): slices, and what `auto` means."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal, Self

import orjson
from pydantic import (
    BeforeValidator,
    Field,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_core import PydanticCustomError

from airi_server.kernel import validation
from airi_server.kernel.errors import InvalidRequest
from llmrouter.configuration import fields, spelling, tree
from llmrouter.configuration.seeding import providers

MAX_SLICES = 20
WITHOUT_SPEECH_RECOGNITION = "aliyun-nls-asr"

Mode = Literal["merge", "reset"]


class InvalidSeed(InvalidRequest):
    """The slices do not have the documented shape; `details` says where."""

    code = "INVALID_BODY"

    @classmethod
    def at(cls, path: str, message: str) -> Self:
        """Return the refusal of one value of the body."""
        return cls(message, details=[{"path": path, "message": message}])


def _supported(value: Any) -> Any:
    if isinstance(value, dict) and value.get("kind") == WITHOUT_SPEECH_RECOGNITION:
        raise PydanticCustomError(
            "not_supported", "aliyun-nls-asr is not supported: this server recognizes no speech"
        )
    return value


KnownSlice = Annotated[providers.ModelSlice | providers.Unspeech, Field(discriminator="kind")]
Slice = Annotated[KnownSlice, BeforeValidator(_supported)]
Alias = fields.UpstreamModel
Voices = Annotated[
    dict[Alias, Annotated[dict[Alias, Alias], Field(max_length=500)]], Field(max_length=2000)
]


class SeedDefaults(tree.TreeShape):
    """Which models `auto` means from now on, and the voices recommended for each locale."""

    chat_model: Alias | None = None
    tts_model: Alias | None = None
    tts_voices: Voices | None = None

    def texts(self) -> Iterator[spelling.Spelled]:
        """Yield what is judged by its spelling."""
        for field, text in (("chatModel", self.chat_model), ("ttsModel", self.tts_model)):
            if text is not None:
                yield f"defaults.{field}", text, spelling.default_model


class Seed(tree.TreeShape):
    """What to write, and whether what is already there stays."""

    mode: Mode = "merge"
    dry_run: bool = False
    defaults: SeedDefaults | None = None  # before the slices, whose check reads it
    slices: Annotated[tuple[Slice, ...], Field(max_length=MAX_SLICES)]

    @field_validator("slices")
    @classmethod
    def _say_something_once(
        cls, given: tuple[providers.ModelSlice | providers.Unspeech, ...], info: ValidationInfo
    ) -> tuple[providers.ModelSlice | providers.Unspeech, ...]:
        if not given and info.data.get("defaults", ...) is None:
            raise PydanticCustomError("empty", "Give at least one slice, or defaults")
        if sum(isinstance(each, providers.Unspeech) for each in given) > 1:
            raise PydanticCustomError("two_unspeech", "At most one unspeech slice per request")
        twice = _repeated(given)
        if twice:
            raise PydanticCustomError("twice", "More than one slice for {model}", {"model": twice})
        return given


def _repeated(given: Sequence[providers.ModelSlice | providers.Unspeech]) -> str | None:
    seen = set()
    for each in given:
        if not isinstance(each, providers.Unspeech):
            place = f"the {each.surface} model {each.model_name}"
            if place in seen:
                return place
            seen.add(place)
    return None


_SEED: TypeAdapter[Seed] = TypeAdapter(Seed)
_TAG = re.compile(r"^(slices\.\d+)\.[a-z-]+")


def parse(text: str | bytes) -> Seed:
    """Read the body of a seeding request.

    Raises:
        InvalidSeed: `details` lists a path and a message for each fault, and no value.
    """
    try:
        return _SEED.validate_json(text, strict=True, by_alias=True, by_name=False)
    except ValidationError as invalid:
        if invalid.errors()[0]["type"] == "json_invalid":
            raise InvalidSeed(_not_json(text)) from None
        faults = [_as_sent(fault) for fault in tree.faults_of(invalid)]
        first = faults[0]["message"]
        said = first if first[:1].isupper() else validation.sentence(faults)
        raise InvalidSeed(said, details=faults) from None


def _not_json(text: str | bytes) -> str:
    """Return the contract's sentence (§3.8), and where the text stops being JSON."""
    raw = text.encode(errors="replace") if isinstance(text, str) else text
    try:
        orjson.loads(raw)
    except orjson.JSONDecodeError as malformed:
        where = validation.malformed_json(malformed, raw).partition(": ")[2]
        return f"Request body must be JSON: {where}"
    return "Request body must be JSON"


def _as_sent(fault: dict[str, str]) -> dict[str, str]:
    """Return a fault with its path in the body: without the kind that chose a slice's shape."""
    return {**fault, "path": _TAG.sub(r"\1", fault["path"])}
