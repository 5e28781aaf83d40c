"""The router's configuration as JSON (contract §3.1): imported, exported, published and compiled.

The types are the only schema there is. Where the contract leaves a field out, we have added an
optional one with a default, so that its trees are ours and ours without additions are its.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, Final, Self, TypeVar

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.alias_generators import to_camel
from pydantic_core import ErrorDetails

from airi_server.kernel import validation
from airi_server.kernel.errors import InvalidRequest
from llmrouter.configuration import fields

LLM: Final = "llm"
TTS: Final = "tts"
STREAMING_TTS: Final = "streaming-tts"
"""The model name that seals the key of the streaming speech socket."""

DEFAULT_CODES: Final = (401, 402, 403, 429, 500, 502, 503, 504)
DEFAULT_HEADER: Final = "Bearer {KEY}"
DEFAULT_MAX_OUTPUT_TOKENS: Final = 16_384
DEFAULT_OUTPUT_TOKENS: Final = 4_096
JSON = dict[str, Any]


class InvalidTree(InvalidRequest):
    """The configuration does not have the documented shape; `details` says where."""


class TreeShape(BaseModel):
    """Unknown fields are typos, and a typo in a route costs money."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
    )


class ConfiguredKey(TreeShape):
    """One sealed provider key. A disabled one is kept and not used."""

    id: fields.Name
    ciphertext: fields.Ciphertext = Field(repr=False)
    disabled: bool = False


Keys = Annotated[tuple[ConfiguredKey, ...], Field(min_length=1, max_length=100)]


class Triggers(TreeShape):
    """Which failures move on. Without codes, those of the defaults.

    `ask_again_after_timeout`: whether a plain answer that took too long is asked for elsewhere,
    though the first upstream may still be at work on it, and bill for it.
    """

    http_codes: fields.Codes | None = None
    on_timeout: bool = True
    ask_again_after_timeout: bool = False


class ConfiguredUpstream(TreeShape):
    """What chat and speech endpoints share; the order of the keys is the order of use."""

    id: fields.Name | None = None
    base_url: fields.HTTPURL = Field(alias="baseURL")
    keys: Keys
    priority: fields.Rank | None = None
    weight: fields.Weight = 1

    @model_validator(mode="after")
    def _key_ids_differ(self) -> Self:
        return _distinct(self, "key ids", [key.id for key in self.keys])


class LLMUpstream(ConfiguredUpstream):
    """One endpoint of a provider. Without `override_model` it is sent the alias.

    `allow` names fields of requests it takes beyond the list, or `*`; `omit` what we add and it
    does not know.
    """

    override_model: fields.UpstreamModel | None = None
    header_template: fields.HeaderTemplate = DEFAULT_HEADER
    timeout_ms: fields.AttemptMs | None = None
    allow: Annotated[tuple[fields.FieldName, ...], Field(max_length=64)] = ()
    omit: Annotated[tuple[fields.Addition, ...], Field(max_length=2)] = ()


class TTSUpstream(ConfiguredUpstream):
    """One speech endpoint; what the adapter needs beyond the key is in `adapter_params`."""

    adapter_params: fields.Parameters = {}


class _Model(TreeShape):
    fallback_triggers: Triggers = Triggers()


class LLMModel(_Model):
    """One chat model: its upstreams in order, and what a request may cost at most.

    A default above the cap counts as the cap, so that lowering the cap is one change.
    """

    upstreams: Annotated[tuple[LLMUpstream, ...], Field(min_length=1, max_length=50)]
    max_output_tokens: fields.Tokens = DEFAULT_MAX_OUTPUT_TOKENS
    default_output_tokens: fields.Tokens = DEFAULT_OUTPUT_TOKENS
    max_tokens_field: fields.MaxTokensField = "max_tokens"
    tokenizer: fields.Tokenizer = ""

    @model_validator(mode="after")
    def _upstream_ids_differ(self) -> Self:
        return _distinct(self, "upstream ids", [u.id for u in self.upstreams if u.id])


class TTSModel(_Model):
    """One speech model and the adapter that speaks to its provider."""

    provider: fields.Provider
    upstreams: Annotated[tuple[TTSUpstream, ...], Field(min_length=1, max_length=50)]

    @model_validator(mode="after")
    def _upstream_ids_differ(self) -> Self:
        return _distinct(self, "upstream ids", [u.id for u in self.upstreams if u.id])


Model = LLMModel | TTSModel


class LLMSection(TreeShape):
    models: Annotated[dict[fields.Name, LLMModel], Field(max_length=2000)] = {}


class TTSSection(TreeShape):
    models: Annotated[dict[fields.Name, TTSModel], Field(max_length=2000)] = {}


class Defaults(TreeShape):
    """What holds where a model or an upstream says nothing; durations in milliseconds."""

    per_attempt_timeout_ms: fields.AttemptMs = 30_000
    full_chain_timeout_ms: fields.ChainMs = 60_000
    first_byte_timeout_ms: fields.AttemptMs | None = None
    idle_timeout_ms: fields.AttemptMs | None = None
    first_event_idle_ms: fields.AttemptMs | None = None
    answer_timeout_ms: fields.ChainMs | None = None
    fallback_http_codes: fields.Codes = DEFAULT_CODES


class Tree(TreeShape):
    """Everything the router needs to know."""

    llm: LLMSection = LLMSection()
    tts: TTSSection = TTSSection()
    defaults: Defaults = Defaults()


class StreamingModel(TreeShape):
    id: fields.Name
    name: str | None = None
    description: str | None = None


class StreamingSpeech(TreeShape):
    """The upstream of the streaming speech socket; its keys are sealed for `streaming-tts`."""

    base_url: fields.SocketURL = Field(alias="baseURL")
    keys: Keys
    adapter_params: fields.Parameters = {}
    models: tuple[StreamingModel, ...] = ()


class UnspeechUpstream(TreeShape):
    """Value of the operator setting `UNSPEECH_UPSTREAM`."""

    rest_base_url: fields.HTTPURL = Field(alias="restBaseURL")
    streaming: StreamingSpeech | None = None


def parse(value: Any) -> Tree:
    """Read a tree strictly: a boolean is not a number, and nothing unknown is skipped.

    Raises:
        InvalidTree: `details` lists a path and a message for each fault.
    """
    try:
        return parse_json(orjson.dumps(value))
    except TypeError as invalid:
        raise InvalidTree("The router configuration is not JSON.") from invalid


def parse_json(text: str | bytes) -> Tree:
    """Read a tree from JSON text.

    Raises:
        InvalidTree: `details` lists a path and a message for each fault.
    """
    try:
        return Tree.model_validate_json(text, strict=True, by_alias=True, by_name=False)
    except ValidationError as invalid:
        faults = faults_of(invalid)
        sentence = "; ".join(
            f"{fault['path'] or 'the configuration'}: {fault['message']}" for fault in faults
        )
        # `from None`: pydantic's own text quotes the input, which may hold a key.
        raise InvalidTree(sentence, details=faults) from None


def faults_of(invalid: ValidationError) -> list[dict[str, str]]:
    """Return path and message of the first faults, without the values that caused them."""
    faults = invalid.errors(include_url=False, include_input=False)
    return validation.details_of(
        fault
        for fault in faults
        if not (fault["type"] == "too_short" and _holds_another(fault["loc"], faults))
    )


def _holds_another(loc: tuple[int | str, ...], faults: list[ErrorDetails]) -> bool:
    """Return whether a list is short only because one of its items is at fault."""
    return any(len(fault["loc"]) > len(loc) and fault["loc"][: len(loc)] == loc for fault in faults)


def models(config: Tree) -> Iterator[tuple[str, str, Model]]:
    """Yield surface, name and model of everything a tree routes."""
    for name, model in config.llm.models.items():
        yield LLM, name, model
    for name, speech in config.tts.models.items():
        yield TTS, name, speech


def dump(value: TreeShape) -> JSON:
    """Return the JSON of a tree or a part of one, defaults spelled out."""
    return value.model_dump(mode="json", by_alias=True, exclude_none=True)


def redacted(value: Any, *, shown: Callable[[str], str] | None = None) -> Any:
    """Return JSON with every ciphertext replaced, by its length unless `shown` says otherwise."""
    replace = shown or (lambda ciphertext: f"<ciphertext: {len(ciphertext)} chars>")
    if isinstance(value, Mapping):
        return {
            name: replace(item)
            if name == "ciphertext" and isinstance(item, str)
            else redacted(item, shown=shown)
            for name, item in value.items()
        }
    return [redacted(item, shown=shown) for item in value] if isinstance(value, list) else value


Parent = TypeVar("Parent", bound=TreeShape)


def _distinct(parent: Parent, what: str, ids: list[str]) -> Parent:
    if len(set(ids)) != len(ids):
        raise ValueError(f"{what} must differ")
    return parent
