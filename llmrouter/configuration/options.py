"""The router's operator settings; names and defaults are the contract's (§11.1)."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from airi_server.kernel import sealing
from airi_server.runtime.options import define
from llmrouter.configuration import origins, spelling
from llmrouter.configuration.tree import UnspeechUpstream, redacted

Alias = Annotated[str, Field(min_length=1, max_length=200)]
Limit = Annotated[int, Field(ge=0, le=1_000_000_000)]


def _stays(value: UnspeechUpstream) -> None:
    """Refuse a socket's key that was entered for another origin than the socket's."""
    socket = value.streaming
    for key in socket.keys if socket else ():
        entered_for = sealing.origin_of(key.ciphertext)
        if socket and entered_for not in (None, origins.of(socket.base_url)):
            raise ValueError(f"Key {key.id} was entered for {entered_for}.")


DEFAULT_CHAT_MODEL = define(
    "DEFAULT_CHAT_MODEL",
    Alias,
    help="The model that `auto` means in a chat request.",
    judge=spelling.default_model,
)
DEFAULT_TTS_MODEL = define(
    "DEFAULT_TTS_MODEL",
    Alias,
    help="The model that `auto` means in a speech request.",
    judge=spelling.default_model,
)
DEFAULT_TTS_VOICES = define(
    "DEFAULT_TTS_VOICES",
    dict[Alias, dict[str, str]],
    default={},
    help="Recommended voices: model, then locale, then voice id.",
)
UNSPEECH_UPSTREAM = define(
    "UNSPEECH_UPSTREAM",
    UnspeechUpstream,
    help="The speech service every TTS request goes through, and its streaming socket.",
    shown=redacted,
    judge=_stays,
)
COMPLETIONS_PER_MINUTE = define(
    "COMPLETIONS_PER_MINUTE",
    Limit,
    default=60,
    help="Completions a user may start in a minute; 0 means no limit.",
)
TOKENS_PER_MINUTE = define(
    "TOKENS_PER_MINUTE",
    Limit,
    default=0,
    help="Tokens a user may use in a minute; 0 means no limit.",
)
PARALLEL_REQUESTS = define(
    "PARALLEL_REQUESTS",
    Limit,
    default=0,
    help="Requests a user may have under way at once; 0 means no limit.",
)
