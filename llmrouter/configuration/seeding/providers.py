"""The kinds of slice (contract §3.8, §16.9): one upstream with one key each, and how to spell it.

Each kind that stands for a model says both ways what it means: `upstream` is what it writes, and
`of` names the fields that would write an upstream again.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal, Self
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, SecretStr

from llmrouter.configuration import fields, spelling, tree

OPENROUTER_URL = "https://openrouter.ai/api/v1"
OPENAI_URL = "https://api.openai.com/v1"
BEDROCK_URL = "https://bedrock-mantle.us-east-1.api.aws/v1"
STEPFUN_URL = "https://api.stepfun.com/v1"
AZURE_URL = "https://{region}.tts.speech.microsoft.com/cognitiveservices/v1"
DASHSCOPE_HOSTS = {"intl": "dashscope-intl.aliyuncs.com", "cn": "dashscope.aliyuncs.com"}
DASHSCOPE_PATH = "/api/v1/services/audio/tts/SpeechSynthesizer"


def _not_blank(value: Any) -> Any:
    """Read a blank key as none: an empty box of a form means that the key stays."""
    return None if isinstance(value, str) and not value.strip() else value


Key = Annotated[SecretStr, Field(max_length=8192)]
PlaintextKey = Annotated[Key | None, BeforeValidator(_not_blank)]
Region = Annotated[str, Field(pattern=r"^[a-z0-9-]{1,64}$")]


JUDGES: dict[str, spelling.Judge] = {
    "model_name": spelling.model_name,
    "override_model": spelling.upstream_model,
    "upstream_model": spelling.upstream_model,
    "base_url": spelling.base_url,
    "rest_base_url": spelling.address,
    "upstream_url": spelling.address,
    "key_entry_id": spelling.name,
}
"""The fields of slices that hold words of an operator's, and what judges each."""


class Spelled(tree.TreeShape):
    """What an operator writes. It may say what is stored, so that its words are judged apart."""

    def texts(self) -> Iterator[spelling.Spelled]:
        """Yield what is judged by its spelling."""
        for name, field in type(self).model_fields.items():
            text = getattr(self, name)
            if name in JUDGES and text is not None:
                yield field.alias or name, text, JUDGES[name]


class Keyed(Spelled):
    """A key to seal, or without one the key to keep: that of `existing_key_entry_id`, or the first.

    Each kind has a `key_entry_id` with a default of its own; a key that is kept keeps its own
    unless another is named.
    """

    plaintext_key: PlaintextKey = None
    existing_key_entry_id: fields.Name | None = None
    key_entry_id: fields.Name

    @property
    def wanted_key_id(self) -> str | None:
        """The key id that was named, None if it was left to us."""
        return self.key_entry_id if "key_entry_id" in self.model_fields_set else None


class ChatProvider(Keyed):
    """Any OpenAI-compatible chat upstream."""

    surface: ClassVar[str] = tree.LLM
    model_name: fields.Name
    override_model: fields.UpstreamModel
    base_url: fields.HTTPURL = Field(alias="baseURL")
    header_template: fields.HeaderTemplate = tree.DEFAULT_HEADER

    def upstream(self) -> dict[str, Any]:
        """Return the fields of an upstream that the slice decides, without its key."""
        return {
            "base_url": self.base_url,
            "override_model": self.override_model,
            "header_template": self.header_template,
        }

    @classmethod
    def of(cls, name: str, upstream: tree.LLMUpstream) -> Self:
        return cls.model_validate(
            {
                "model_name": name,
                "override_model": upstream.override_model or name,
                "base_url": upstream.base_url,
                "header_template": upstream.header_template,
                **_kept(upstream),
            }
        )


class OpenRouter(ChatProvider):
    """OpenRouter unless `baseURL` says otherwise."""

    kind: Literal["openrouter"] = "openrouter"
    base_url: fields.HTTPURL = Field(default=OPENROUTER_URL, alias="baseURL")
    key_entry_id: fields.Name = "openrouter-prod-1"


class Bedrock(ChatProvider):
    """Amazon Bedrock's OpenAI-compatible endpoint, in `us-east-1` unless `baseURL` says where."""

    kind: Literal["bedrock"] = "bedrock"
    base_url: fields.HTTPURL = Field(default=BEDROCK_URL, alias="baseURL")
    key_entry_id: fields.Name = "bedrock-prod-1"


class OpenAICompatible(ChatProvider):
    """OpenAI unless `baseURL` says otherwise."""

    kind: Literal["openai-compatible"] = "openai-compatible"
    base_url: fields.HTTPURL = Field(default=OPENAI_URL, alias="baseURL")
    key_entry_id: fields.Name = "openai-compatible-prod-1"


class Speech(Keyed):
    """One speech upstream; what a kind does not name of `adapter_params` stays as it is."""

    surface: ClassVar[str] = tree.TTS
    decided: ClassVar[frozenset[str]] = frozenset({"model"})
    """The names in `adapter_params` that are this kind's."""

    model_name: fields.Name


class Azure(Speech):
    kind: Literal["azure"] = "azure"
    provider: ClassVar[fields.Provider] = "azure"
    decided: ClassVar[frozenset[str]] = frozenset({"region"})
    region: Region
    key_entry_id: fields.Name = "azure-tts-prod-1"

    def upstream(self) -> dict[str, Any]:
        """Return the fields of an upstream that the slice decides, without its key."""
        url = AZURE_URL.format(region=self.region)
        return {"base_url": url, "adapter_params": {"region": self.region}}

    @classmethod
    def of(cls, name: str, upstream: tree.TTSUpstream) -> Self:
        region = upstream.adapter_params.get("region")
        return cls.model_validate({"model_name": name, "region": region, **_kept(upstream)})


class DashScope(Speech):
    kind: Literal["dashscope-cosyvoice"] = "dashscope-cosyvoice"
    provider: ClassVar[fields.Provider] = "dashscope-cosyvoice"
    region: Literal["intl", "cn"]
    upstream_model: fields.UpstreamModel
    key_entry_id: fields.Name = "dashscope-tts-prod-1"

    def upstream(self) -> dict[str, Any]:
        """Return the fields of an upstream that the slice decides, without its key."""
        return {
            "base_url": f"https://{DASHSCOPE_HOSTS[self.region]}{DASHSCOPE_PATH}",
            "adapter_params": {"model": self.upstream_model},
        }

    @classmethod
    def of(cls, name: str, upstream: tree.TTSUpstream) -> Self:
        host = urlsplit(upstream.base_url).hostname
        region = next((name for name, known in DASHSCOPE_HOSTS.items() if known == host), None)
        model = upstream.adapter_params.get("model")
        return cls.model_validate(
            {"model_name": name, "region": region, "upstream_model": model, **_kept(upstream)}
        )


class StepFun(Speech):
    """StepFun's speech; without `upstreamModel` the adapter's own default is spoken."""

    kind: Literal["stepfun"] = "stepfun"
    provider: ClassVar[fields.Provider] = "stepfun"
    base_url: fields.HTTPURL = Field(default=STEPFUN_URL, alias="baseURL")
    upstream_model: fields.UpstreamModel | None = None
    key_entry_id: fields.Name = "stepfun-tts-prod-1"

    def upstream(self) -> dict[str, Any]:
        """Return the fields of an upstream that the slice decides, without its key."""
        params = {"model": self.upstream_model} if self.upstream_model else {}
        return {"base_url": self.base_url, "adapter_params": params}

    @classmethod
    def of(cls, name: str, upstream: tree.TTSUpstream) -> Self:
        model = upstream.adapter_params.get("model")
        given = {"upstream_model": model} if model is not None else {}
        url = upstream.base_url
        return cls.model_validate({"model_name": name, "base_url": url, **given, **_kept(upstream)})


class UnspeechStreaming(Keyed):
    upstream_url: fields.SocketURL = Field(alias="upstreamURL")
    key_entry_id: fields.Name = "volcengine-prod-1"


class Unspeech(Spelled):
    """Replaces the operator setting `UNSPEECH_UPSTREAM`; without `streaming`, that part goes."""

    kind: Literal["unspeech"] = "unspeech"
    rest_base_url: fields.HTTPURL = Field(alias="restBaseURL")
    streaming: UnspeechStreaming | None = None

    def texts(self) -> Iterator[spelling.Spelled]:
        """Yield what is judged by its spelling, that of the socket included."""
        yield from super().texts()
        for path, text, judge in self.streaming.texts() if self.streaming else ():
            yield f"streaming.{path}", text, judge


ChatSlice = OpenRouter | Bedrock | OpenAICompatible
SpeechSlice = Azure | DashScope | StepFun
ModelSlice = ChatSlice | SpeechSlice


def chat_kind(upstream: tree.LLMUpstream) -> type[ChatSlice]:
    """Return the kind that says best which provider this is. All of them write the same."""
    host = urlsplit(upstream.base_url).hostname or ""
    if host == urlsplit(OPENROUTER_URL).hostname:
        return OpenRouter
    is_bedrock = host.startswith("bedrock-mantle.") and host.endswith(".api.aws")
    return Bedrock if is_bedrock else OpenAICompatible


def _kept(upstream: tree.ConfiguredUpstream) -> dict[str, str]:
    key_id = upstream.keys[0].id
    return {"existing_key_entry_id": key_id, "key_entry_id": key_id}
