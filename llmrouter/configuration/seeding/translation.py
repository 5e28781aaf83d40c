"""Slices and what they stand for, each from the other.

A slice decides about one upstream with one key. What it cannot name (timeouts, triggers, limits,
weights) stays as it is where it is merged into a model. A model that no slice would write again
as it is, is not translated at all, so that merging cannot lose a part of it.
"""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from llmrouter.configuration import tree
from llmrouter.configuration.seeding import providers

SPEECH_KINDS: dict[str, type[providers.SpeechSlice]] = {
    kind.provider: kind for kind in (providers.Azure, providers.DashScope, providers.StepFun)
}


class NotRepresentable(Exception):
    """No slice stands for this; the text says why, for an operator."""


def model_of(
    each: providers.ModelSlice, key: tree.ConfiguredKey, known: tree.Model | None
) -> tree.Model:
    """Return the model that a slice writes, over the one that is there if there is one."""
    decided = {**each.upstream(), "keys": (key,)}
    if isinstance(each, providers.ChatProvider):
        return _chat_model(each, decided, known if isinstance(known, tree.LLMModel) else None)
    return _speech_model(each, decided, known if isinstance(known, tree.TTSModel) else None)


def slice_of(name: str, model: tree.Model) -> providers.ModelSlice:
    """Return the slice that writes this model again, its key kept.

    Raises:
        Unrepresented: There is none.
    """
    if len(model.upstreams) > 1:
        raise NotRepresentable(f"It has {len(model.upstreams)} upstreams.")
    if len(model.upstreams[0].keys) > 1:
        raise NotRepresentable(f"It has {len(model.upstreams[0].keys)} keys.")
    try:
        found = _guess(name, model)
    except ValidationError:
        found = None
    if found is None or model_of(found, model.upstreams[0].keys[0], model) != model:
        what = f"a {model.provider} model" if isinstance(model, tree.TTSModel) else "a model"
        raise NotRepresentable(f"No kind of slice writes {what} like this one.")
    return found


def unspeech_of(
    each: providers.Unspeech, key: tree.ConfiguredKey | None, known: tree.UnspeechUpstream | None
) -> tree.UnspeechUpstream:
    """Return the speech service that a slice writes. `key` is that of its streaming socket."""
    if each.streaming is None or key is None:
        return tree.UnspeechUpstream(rest_base_url=each.rest_base_url)
    was = known.streaming if known else None
    decided = {"base_url": each.streaming.upstream_url, "keys": (key,)}
    streaming = was.model_copy(update=decided) if was else tree.StreamingSpeech(**decided)
    return tree.UnspeechUpstream(rest_base_url=each.rest_base_url, streaming=streaming)


def slice_of_unspeech(known: tree.UnspeechUpstream) -> providers.Unspeech:
    """Return the slice that writes this speech service again, its key kept.

    Raises:
        Unrepresented: Its streaming socket has several keys.
    """
    streaming = None
    if known.streaming:
        if len(known.streaming.keys) > 1:
            raise NotRepresentable(f"It has {len(known.streaming.keys)} keys.")
        key_id = known.streaming.keys[0].id
        streaming = providers.UnspeechStreaming(
            upstream_url=known.streaming.base_url, existing_key_entry_id=key_id, key_entry_id=key_id
        )
    return providers.Unspeech(rest_base_url=known.rest_base_url, streaming=streaming)


def _chat_model(
    each: providers.ChatProvider, decided: dict[str, Any], known: tree.LLMModel | None
) -> tree.LLMModel:
    if known is None:
        return tree.LLMModel(upstreams=(tree.LLMUpstream(**decided),))
    was = known.upstreams[0]
    if was.override_model is None and each.override_model == each.model_name:
        decided["override_model"] = None  # says the same
    return known.model_copy(update={"upstreams": (was.model_copy(update=decided),)})


def _speech_model(
    each: providers.SpeechSlice, decided: dict[str, Any], known: tree.TTSModel | None
) -> tree.TTSModel:
    if known is None or known.provider != each.provider:
        return tree.TTSModel(provider=each.provider, upstreams=(tree.TTSUpstream(**decided),))
    was = known.upstreams[0]
    others = {n: v for n, v in was.adapter_params.items() if n not in each.decided}
    decided["adapter_params"] = {**others, **decided["adapter_params"]}
    return known.model_copy(update={"upstreams": (was.model_copy(update=decided),)})


def _guess(name: str, model: tree.Model) -> providers.ModelSlice | None:
    if isinstance(model, tree.LLMModel):
        upstream = model.upstreams[0]
        return providers.chat_kind(upstream).of(name, upstream)
    kind = SPEECH_KINDS.get(model.provider)
    return kind.of(name, model.upstreams[0]) if kind else None
