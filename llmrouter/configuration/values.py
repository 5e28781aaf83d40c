"""What seeding writes, by the contract's names: what is in force, and what a request wants."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from pydantic import ValidationError

from airi_server.runtime import options as operator_options
from llmrouter.configuration import (
    key_hosts,
    kinds,
    publishing,
    slice_keys,
    slices,
    translation,
    tree,
)
from llmrouter.options import (
    DEFAULT_CHAT_MODEL,
    DEFAULT_TTS_MODEL,
    DEFAULT_TTS_VOICES,
    UNSPEECH_UPSTREAM,
)

Model = tree.LLMModel | tree.TTSModel
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


def wanted(request: slices.Seed) -> Iterator[tuple[str, Any]]:
    """Yield what a request writes, by the contract's names; nothing is written yet.

    Raises:
        InvalidSeed: A key cannot be sent, or is to be kept and is not there.
        InvalidTree: There would be too many models.
    """
    if any(not isinstance(each, kinds.Unspeech) for each in request.slices):
        current = publishing.current_tree()
        base = tree.Tree() if request.mode == "reset" else current
        yield ROUTER_CONFIG, merged(base, _tree_of(request, current, base))
    for at, each in enumerate(request.slices):
        if isinstance(each, kinds.Unspeech):
            yield UNSPEECH_UPSTREAM.name, _unspeech(each, f"slices.{at}.streaming")
    if request.defaults:
        yield from _defaults(request.mode, request.defaults)


def flattened(request: slices.Seed) -> dict[int, str]:
    """Return for each slice that would lose a part of what is there why, by the slice's index."""
    found: dict[int, str] = {}
    if request.mode == "merge":
        current = publishing.current_tree()
        for at, each in enumerate(request.slices):
            try:
                _translate_what_is_there(each, current)
            except translation.Unrepresented as why:
                found[at] = f"{_name_of(each)}: {why}"
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


def _name_of(each: kinds.ModelSlice | kinds.Unspeech) -> str:
    return tree.STREAMING_TTS if isinstance(each, kinds.Unspeech) else each.model_name


def _translate_what_is_there(each: kinds.ModelSlice | kinds.Unspeech, current: tree.Tree) -> None:
    if isinstance(each, kinds.Unspeech):
        service = _unspeech_in_force()
        if service is not None:
            translation.slice_of_unspeech(service)
        return
    known = models_of(current, each.surface).get(each.model_name)
    if known is not None:
        translation.slice_of(each.model_name, known)


def _tree_of(request: slices.Seed, current: tree.Tree, base: tree.Tree) -> tree.Tree:
    """Build one model for each slice over that of `base`, with the keys of `current` at hand."""
    made: dict[str, dict[str, Any]] = {tree.LLM: {}, tree.TTS: {}}
    for at, each in enumerate(request.slices):
        if not isinstance(each, kinds.Unspeech):
            known, there = (
                models_of(side, each.surface).get(each.model_name) for side in (base, current)
            )
            model = _model_of(each, f"slices.{at}", known=known, there=there)
            made[each.surface][each.model_name] = model
    return tree.Tree(
        llm=tree.LLMSection(models=made[tree.LLM]), tts=tree.TTSSection(models=made[tree.TTS])
    )


def _model_of(
    each: kinds.ModelSlice, path: str, *, known: Model | None, there: Model | None
) -> Model:
    """Build the model of a slice over `known`; `there` has the keys that may be kept."""
    name = each.model_name
    candidates = [key for upstream in there.upstreams for key in upstream.keys] if there else []
    key = slice_keys.key_of(each, path, model=name, candidates=candidates)
    model = translation.model_of(each, key, known)
    host = _host_left(there, model) if there else None
    if host is None:
        return model
    if each.plaintext_key is None:
        raise slices.InvalidSeed.at(f"{path}.plaintextKey", key_hosts.ENTER_AGAIN.format(host=host))
    return translation.model_of(
        each, slice_keys.key_of(each, path, model=name, candidates=()), known
    )


def _host_left(there: Model, made: Model) -> str | None:
    """Return the host that the keys were entered for, if the model is no longer there."""
    entered_for = {key_hosts.origin(upstream.base_url) for upstream in there.upstreams}
    is_there = key_hosts.origin(made.upstreams[0].base_url) in entered_for
    return None if is_there else min(entered_for)


def _refuse_another_socket(path: str, there: str, wanted: str) -> None:
    if key_hosts.origin(there) != key_hosts.origin(wanted):
        message = key_hosts.ENTER_AGAIN.format(host=key_hosts.origin(there))
        raise slices.InvalidSeed.at(f"{path}.plaintextKey", message)


def _unspeech(each: kinds.Unspeech, path: str) -> tree.JSON:
    known, key = _unspeech_in_force(), None
    if each.streaming:
        there = known.streaming.keys if known and known.streaming else ()
        key = slice_keys.key_of(each.streaming, path, model=tree.STREAMING_TTS, candidates=there)
        if each.streaming.plaintext_key is None and known and known.streaming:
            _refuse_another_socket(path, known.streaming.base_url, each.streaming.upstream_url)
    return tree.dump(translation.unspeech_of(each, key, known))


def _unspeech_in_force() -> tree.UnspeechUpstream | None:
    stored = in_force(UNSPEECH_UPSTREAM.name)
    return UNSPEECH_UPSTREAM.parse(stored) if stored else None


def _defaults(mode: slices.Mode, given: slices.SeedDefaults) -> Iterator[tuple[str, Any]]:
    if given.chat_model:
        yield DEFAULT_CHAT_MODEL.name, given.chat_model
    if given.tts_model:
        yield DEFAULT_TTS_MODEL.name, given.tts_model
    if given.tts_voices is not None:
        others = in_force(DEFAULT_TTS_VOICES.name) if mode == "merge" else {}
        yield DEFAULT_TTS_VOICES.name, {**others, **given.tts_voices}
