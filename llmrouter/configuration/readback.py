"""The configuration in force, read back as the request that would write it again.

Posting the request changes nothing. What no slice stands for is left out of it and named beside
it, so that nobody loses an upstream by editing another model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from llmrouter.configuration import publishing, tree
from llmrouter.configuration.options import (
    DEFAULT_CHAT_MODEL,
    DEFAULT_TTS_MODEL,
    DEFAULT_TTS_VOICES,
    UNSPEECH_UPSTREAM,
)
from llmrouter.configuration.seeding import desired, providers, requests, translation


@dataclass(frozen=True)
class Readback:
    """Nothing here holds a secret or a ciphertext; `missing` names what has no value yet."""

    request: dict[str, Any]
    preview: dict[str, Any]
    missing: list[str]
    unrepresented: list[dict[str, str]]


def read() -> Readback:
    """Return what is in force, from the database."""
    stored = {name: desired.in_force(name) for name in desired.NAMES}
    if publishing.current_number() == 0:
        stored[desired.ROUTER_CONFIG] = None
    found: list[dict[str, Any]] = []
    left_out: list[dict[str, str]] = []
    for surface, name, translate in _parts(stored):
        try:
            found.append(_sayable(translate()))
        except translation.NotRepresentable as why:
            left_out.append({"surface": surface, "modelName": name, "why": str(why)})
    defaults = requests.SeedDefaults.model_construct(
        chat_model=stored[DEFAULT_CHAT_MODEL.name],
        tts_model=stored[DEFAULT_TTS_MODEL.name],
        tts_voices=stored[DEFAULT_TTS_VOICES.name] or None,
    )
    return Readback(
        request={"mode": "merge", "slices": found, "defaults": _sayable(defaults)},
        preview=desired.preview({n: v for n, v in stored.items() if v is not None}),
        missing=[name for name, value in stored.items() if value is None],
        unrepresented=left_out,
    )


Part = tuple[str, str, Callable[[], providers.ModelSlice | providers.Unspeech]]


def _parts(stored: dict[str, Any]) -> Iterator[Part]:
    """Yield surface, name and translation of everything that a slice may stand for."""
    config: tree.Tree = stored[desired.ROUTER_CONFIG] or tree.Tree()
    for surface, models in ((tree.LLM, config.llm.models), (tree.TTS, config.tts.models)):
        for name, model in models.items():
            yield surface, name, partial(translation.slice_of, name, model)
    unspeech = stored[UNSPEECH_UPSTREAM.name]
    if unspeech:
        service: tree.UnspeechUpstream = UNSPEECH_UPSTREAM.parse(unspeech)
        yield "unspeech", tree.STREAMING_TTS, partial(translation.slice_of_unspeech, service)


def _sayable(part: tree.TreeShape) -> dict[str, Any]:
    """Return the JSON of a part of a request; what has no value is left out."""
    return part.model_dump(mode="json", by_alias=True, exclude_none=True)
