"""What an operator says to seed the router (contract §3.8): one slice for one provider's key."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from pydantic.alias_generators import to_camel

from airi_server.kernel.errors import InvalidRequest
from llmrouter.configuration import fields, tree

OPENROUTER_URL = "https://openrouter.ai/api/v1"
DASHSCOPE_HOSTS = {"intl": "dashscope-intl.aliyuncs.com", "cn": "dashscope.aliyuncs.com"}
DASHSCOPE_PATH = "/api/v1/services/audio/tts/SpeechSynthesizer"

Mode = Literal["merge", "reset"]
PlaintextKey = Annotated[SecretStr, Field(min_length=1, max_length=8192)]
Region = Annotated[str, Field(pattern=r"^[a-z0-9-]{1,64}$")]


class InvalidSeed(InvalidRequest):
    """The slices do not have the documented shape; `details` says where."""

    code = "INVALID_BODY"


class _Shape(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
    )


class _ModelSlice(_Shape):
    """Replaces one model by one upstream with one key."""

    model_name: fields.Name
    plaintext_key: PlaintextKey

    @property
    def surface(self) -> str:
        return tree.TTS


class OpenRouter(_ModelSlice):
    """Any OpenAI-compatible chat upstream; OpenRouter unless `base_url` says otherwise."""

    kind: Literal["openrouter"] = "openrouter"
    override_model: fields.UpstreamModel
    base_url: fields.HTTPURL = Field(default=OPENROUTER_URL, alias="baseURL")
    key_entry_id: fields.Name = "openrouter-prod-1"
    header_template: fields.HeaderTemplate = tree.DEFAULT_HEADER

    @property
    def surface(self) -> str:
        return tree.LLM

    def model(self, key: tree.Key) -> tree.LLMModel:
        upstream = tree.LLMUpstream(
            base_url=self.base_url,
            override_model=self.override_model,
            header_template=self.header_template,
            keys=(key,),
        )
        return tree.LLMModel(upstreams=(upstream,))


class Azure(_ModelSlice):
    kind: Literal["azure"] = "azure"
    region: Region
    key_entry_id: fields.Name = "azure-tts-prod-1"

    def model(self, key: tree.Key) -> tree.TTSModel:
        upstream = tree.TTSUpstream(
            base_url=f"https://{self.region}.tts.speech.microsoft.com/cognitiveservices/v1",
            keys=(key,),
            adapter_params={"region": self.region},
        )
        return tree.TTSModel(provider="azure", upstreams=(upstream,))


class DashScope(_ModelSlice):
    kind: Literal["dashscope-cosyvoice"] = "dashscope-cosyvoice"
    region: Literal["intl", "cn"]
    upstream_model: fields.UpstreamModel
    key_entry_id: fields.Name = "dashscope-tts-prod-1"

    def model(self, key: tree.Key) -> tree.TTSModel:
        upstream = tree.TTSUpstream(
            base_url=f"https://{DASHSCOPE_HOSTS[self.region]}{DASHSCOPE_PATH}",
            keys=(key,),
            adapter_params={"model": self.upstream_model},
        )
        return tree.TTSModel(provider="dashscope-cosyvoice", upstreams=(upstream,))


class UnspeechStreaming(_Shape):
    upstream_url: fields.SocketURL = Field(alias="upstreamURL")
    plaintext_key: PlaintextKey
    key_entry_id: fields.Name = "volcengine-prod-1"


class Unspeech(_Shape):
    """Replaces the operator setting `UNSPEECH_UPSTREAM`; without `streaming`, that part goes."""

    kind: Literal["unspeech"] = "unspeech"
    rest_base_url: fields.HTTPURL = Field(alias="restBaseURL")
    streaming: UnspeechStreaming | None = None


ModelSlice = OpenRouter | Azure | DashScope
Slice = Annotated[ModelSlice | Unspeech, Field(discriminator="kind")]


class SeedDefaults(_Shape):
    """Which models `auto` means from now on."""

    chat_model: fields.Name | None = None
    tts_model: fields.Name | None = None


class Seed(_Shape):
    """What to write, and whether what is already there stays."""

    mode: Mode = "merge"
    dry_run: bool = False
    slices: Annotated[tuple[Slice, ...], Field(min_length=1, max_length=20)]
    defaults: SeedDefaults = SeedDefaults()

    @model_validator(mode="after")
    def _has_one_unspeech(self) -> Self:
        if sum(isinstance(each, Unspeech) for each in self.slices) > 1:
            raise ValueError("At most one unspeech slice per request")
        return self


_SEED: TypeAdapter[Seed] = TypeAdapter(Seed)


def parse(text: str | bytes) -> Seed:
    """Read the body of a seeding request.

    Raises:
        InvalidSeed: `details` lists a path and a message for each fault, and no value.
    """
    try:
        return _SEED.validate_json(text, strict=True, by_alias=True, by_name=False)
    except ValidationError as invalid:
        faults = tree.faults_of(invalid)
        if invalid.errors()[0]["type"] == "json_invalid":
            raise InvalidSeed("Request body must be JSON") from None
        raise InvalidSeed(faults[0]["message"], details=faults) from None
