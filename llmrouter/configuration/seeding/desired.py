"""What seeding writes, by the contract's names: what is in force, and what a request wants."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from pydantic import ValidationError

from airi_server.runtime import options as operator_options
from llmrouter.configuration import origins, publishing, spelling, tree
from llmrouter.configuration.options import (
    DEFAULT_CHAT_MODEL,
    DEFAULT_TTS_MODEL,
    DEFAULT_TTS_VOICES,
    UNSPEECH_UPSTREAM,
)
from llmrouter.configuration.seeding import keys, providers, requests, translation

ROUTER_CONFIG: Final = "LLM_ROUTER_CONFIG"
NAMES: Final = (
    ROUTER_CONFIG,
    UNSPEECH_UPSTREAM.name,
    DEFAULT_CHAT_MODEL.name,
    DEFAULT_TTS_MODEL.name,
    DEFAULT_TTS_VOICES.name,
)
"""Everything that seeding may write, by the contract's names."""


def in_force(name: str) -> Any:
    """Return the value in force of one of `NAMES`; None if it has none."""
    if name == ROUTER_CONFIG:
        return publishing.current_tree()
    try:
        return as_json(operator_options.REGISTRY[name].read())
    except operator_options.ConfigNotSet:
        return None


def wanted(request: requests.Seed) -> Iterator[tuple[str, Any]]:
    """Yield what a request writes, by the contract's names; nothing is written yet.

    Raises:
        InvalidSeed: A key cannot be sent, or is to be kept and is not there.
        InvalidTree: There would be too many models.
    """
    if any(not isinstance(each, providers.Unspeech) for each in request.slices):
        current = publishing.current_tree()
        base = tree.Tree() if request.mode == "reset" else current
        yield ROUTER_CONFIG, merged(base, _tree_of(request, current, base))
    for at, each in enumerate(request.slices):
        if isinstance(each, providers.Unspeech):
            yield UNSPEECH_UPSTREAM.name, _unspeech(each, f"slices.{at}.streaming")
    if request.defaults:
        yield from _defaults(request.mode, request.defaults)


def flattened(request: requests.Seed) -> dict[int, str]:
    """Return for each slice that would lose a part of what is there why, by the slice's index."""
    found: dict[int, str] = {}
    if request.mode == "merge":
        current = publishing.current_tree()
        for at, each in enumerate(request.slices):
            try:
                _translate_what_is_there(each, current)
            except translation.NotRepresentable as why:
                found[at] = f"{_name_of(each)}: {why}"
    return found


def misspelled(request: requests.Seed) -> list[dict[str, str]]:
    """Return path and message of what a request may not write, unless it is in force already."""
    current, found = publishing.current_tree(), []
    for at, each in enumerate(request.slices):
        if isinstance(each, providers.Unspeech):
            texts, there = each.texts(), _words_of_service()
        else:
            texts, there = each.texts(), spelling.words_of(current, each.surface, each.model_name)
        placed = ((f"slices.{at}.{field}", text, judge) for field, text, judge in texts)
        found += spelling.judged(placed, there)
    if request.defaults:
        there = {str(in_force(o.name)) for o in (DEFAULT_CHAT_MODEL, DEFAULT_TTS_MODEL)}
        found += spelling.judged(request.defaults.texts(), there)
    return found


def merged(current: tree.Tree, addition: tree.Tree) -> tree.Tree:
    """Return `current` with the models of `addition`, and with the defaults that it names.

    Raises:
        InvalidTree: These are too many models.
    """
    named = addition.defaults.model_fields_set if "defaults" in addition.model_fields_set else ()
    defaults = {name: getattr(addition.defaults, name) for name in named}
    try:
        return tree.Tree(
            llm=tree.LLMSection(models={**current.llm.models, **addition.llm.models}),
            tts=tree.TTSSection(models={**current.tts.models, **addition.tts.models}),
            defaults=current.defaults.model_copy(update=defaults),
        )
    except ValidationError as invalid:
        faults = tree.faults_of(invalid)
        raise tree.InvalidTree(faults[0]["message"], details=faults) from None


def preview(values: dict[str, Any]) -> dict[str, Any]:
    """Return values as JSON that holds no ciphertext."""
    return {name: tree.redacted(as_json(value)) for name, value in values.items()}


def as_json(value: Any) -> Any:
    """Return the JSON of a value, or of each value of a mapping."""
    if isinstance(value, tree.Tree | tree.UnspeechUpstream):
        return tree.dump(value)
    return {n: as_json(v) for n, v in value.items()} if isinstance(value, dict) else value


def models_of(
    config: tree.Tree, surface: str
) -> dict[str, tree.LLMModel] | dict[str, tree.TTSModel]:
    return config.llm.models if surface == tree.LLM else config.tts.models


def _name_of(each: providers.ModelSlice | providers.Unspeech) -> str:
    return tree.STREAMING_TTS if isinstance(each, providers.Unspeech) else each.model_name


def _translate_what_is_there(
    each: providers.ModelSlice | providers.Unspeech, current: tree.Tree
) -> None:
    if isinstance(each, providers.Unspeech):
        service = _unspeech_in_force()
        if service is not None:
            translation.slice_of_unspeech(service)
        return
    known = models_of(current, each.surface).get(each.model_name)
    if known is not None:
        translation.slice_of(each.model_name, known)


def _tree_of(request: requests.Seed, current: tree.Tree, base: tree.Tree) -> tree.Tree:
    """Build one model for each slice over that of `base`, with the keys of `current` at hand."""
    made: dict[str, dict[str, Any]] = {tree.LLM: {}, tree.TTS: {}}
    for at, each in enumerate(request.slices):
        if not isinstance(each, providers.Unspeech):
            known, there = (
                models_of(side, each.surface).get(each.model_name) for side in (base, current)
            )
            model = _model_of(each, f"slices.{at}", known=known, there=there)
            made[each.surface][each.model_name] = model
    return tree.Tree(
        llm=tree.LLMSection(models=made[tree.LLM]), tts=tree.TTSSection(models=made[tree.TTS])
    )


def _model_of(
    each: providers.ModelSlice, path: str, *, known: tree.Model | None, there: tree.Model | None
) -> tree.Model:
    """Build the model of a slice over `known`; `there` has the keys that may be kept."""
    key = keys.key_of(
        each,
        path,
        model=each.model_name,
        origin=origins.of(each.upstream()["base_url"]),
        candidates=keys.Candidate.of(there.upstreams if there else ()),
    )
    return translation.model_of(each, key, known)


def _unspeech(each: providers.Unspeech, path: str) -> tree.JSON:
    known, key = _unspeech_in_force(), None
    if each.streaming:
        there = (known.streaming,) if known and known.streaming else ()
        key = keys.key_of(
            each.streaming,
            path,
            model=tree.STREAMING_TTS,
            origin=origins.of(each.streaming.upstream_url),
            candidates=keys.Candidate.of(there),
        )
    return tree.dump(translation.unspeech_of(each, key, known))


def _unspeech_in_force() -> tree.UnspeechUpstream | None:
    stored = in_force(UNSPEECH_UPSTREAM.name)
    return UNSPEECH_UPSTREAM.parse(stored) if stored else None


def _words_of_service() -> set[str]:
    known = _unspeech_in_force()
    if known is None:
        return set()
    socket = known.streaming
    of_socket = {socket.base_url, *(key.id for key in socket.keys)} if socket else set()
    return {known.rest_base_url, *of_socket}


def _defaults(mode: requests.Mode, given: requests.SeedDefaults) -> Iterator[tuple[str, Any]]:
    if given.chat_model:
        yield DEFAULT_CHAT_MODEL.name, given.chat_model
    if given.tts_model:
        yield DEFAULT_TTS_MODEL.name, given.tts_model
    if given.tts_voices is not None:
        others = in_force(DEFAULT_TTS_VOICES.name) if mode == "merge" else {}
        yield DEFAULT_TTS_VOICES.name, {**others, **given.tts_voices}
