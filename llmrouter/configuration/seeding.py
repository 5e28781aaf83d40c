"""Turn slices into the configuration in force: merged into what is there, or in its place.

A key that is already there, in its place and with the same content, keeps its ciphertext, so
seeding twice publishes once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db import transaction
from pydantic import SecretStr

from airi_server.runtime import options as operator_options
from llmrouter.configuration import changes, provider_keys, publishing, slices, tree
from llmrouter.models import NOTE_LENGTH
from llmrouter.options import DEFAULT_CHAT_MODEL, DEFAULT_TTS_MODEL, UNSPEECH_UPSTREAM

ROUTER_CONFIG = "LLM_ROUTER_CONFIG"
CARRIED_OVER = ("max_output_tokens", "default_output_tokens", "max_tokens_field", "tokenizer")


@dataclass(frozen=True)
class Seeded:
    """What seeding did, or in a dry run would do.

    `applied`, `changed` (names) and `preview` have the contract's shapes. Nothing here holds a
    secret or a ciphertext.
    """

    applied: list[dict[str, str | None]]
    changed: list[str]
    preview: dict[str, Any]
    diff: str


def seed(request: slices.Seed, *, by: str, at: datetime, note: str = "seeded") -> Seeded:
    """Write every slice in one transaction, and tell every instance once it commits.

    Raises:
        UnusableKey: One of the keys cannot be sent in a header. Nothing was written.
    """
    with transaction.atomic():
        publishing.lock()
        values = dict(_values(request))
        stored = {name: _stored(name) for name in values}
        changed = [] if request.dry_run else [n for n in values if values[n] != stored[n]]
        for name in changed:
            _write(name, values[name], note=note, by=by, at=at)
    return Seeded(
        applied=[_applied(each) for each in request.slices],
        changed=changed,
        preview={name: tree.redacted(_json(value)) for name, value in values.items()},
        diff=changes.diff(_json(stored), _json(values)),
    )


def import_tree(
    config: tree.Tree, *, mode: slices.Mode, dry_run: bool, by: str, at: datetime, note: str
) -> Seeded:
    """Publish a tree with its ciphertexts, merged into the one in force or in its place.

    Raises:
        InvalidTree: A key that is new here does not open. Nothing was written.
    """
    with transaction.atomic():
        publishing.lock()
        current = publishing.current_tree()
        wanted = config if mode == "reset" else merged(current, config)
        if not dry_run:
            publishing.publish(wanted, note=note, by=by, at=at)
    return Seeded(
        applied=[],
        changed=[ROUTER_CONFIG] if wanted != current and not dry_run else [],
        preview={ROUTER_CONFIG: tree.redacted(tree.dump(wanted))},
        diff=changes.diff(_json({ROUTER_CONFIG: current}), _json({ROUTER_CONFIG: wanted})),
    )


def route_chat(  # noqa: PLR0913  the launcher says it all in one place
    *,
    model_name: str,
    base_url: str,
    override_model: str,
    plaintext_key: str,
    key_id: str,
    by: str,
    at: datetime,
) -> Seeded:
    """Route one chat model to one upstream and make it what `auto` means.

    Safe to run at every start: what is already so is not written again.
    """
    chat = slices.OpenRouter(
        model_name=model_name,
        base_url=base_url,
        override_model=override_model,
        plaintext_key=SecretStr(plaintext_key),
        key_entry_id=key_id,
    )
    defaults = slices.SeedDefaults(chat_model=model_name)
    return seed(
        slices.Seed(slices=(chat,), defaults=defaults), by=by, at=at, note=f"{model_name} routed"
    )


def merged(current: tree.Tree, addition: tree.Tree) -> tree.Tree:
    """Return `current` with the models of `addition` in it; its defaults stay."""
    return tree.Tree(
        llm=tree.LLMSection(models={**current.llm.models, **addition.llm.models}),
        tts=tree.TTSSection(models={**current.tts.models, **addition.tts.models}),
        defaults=current.defaults,
    )


def _values(request: slices.Seed) -> Iterator[tuple[str, Any]]:
    """Yield what to write, by the contract's names; everything is sealed before anything is."""
    chosen = [each for each in request.slices if not isinstance(each, slices.Unspeech)]
    if chosen:
        current = publishing.current_tree()
        base = tree.Tree() if request.mode == "reset" else current
        yield ROUTER_CONFIG, merged(base, _tree_of(chosen, current, base))
    for each in request.slices:
        if isinstance(each, slices.Unspeech):
            yield UNSPEECH_UPSTREAM.name, _unspeech(each)
    if request.defaults.chat_model:
        yield DEFAULT_CHAT_MODEL.name, request.defaults.chat_model
    if request.defaults.tts_model:
        yield DEFAULT_TTS_MODEL.name, request.defaults.tts_model


def _tree_of(chosen: list[slices.ModelSlice], current: tree.Tree, base: tree.Tree) -> tree.Tree:
    """Build one model for each slice, with the ciphertexts of `current` where they still hold."""
    llm: dict[str, tree.LLMModel] = {}
    tts: dict[str, tree.TTSModel] = {}
    for each in chosen:
        known: tree.LLMModel | tree.TTSModel | None = (
            current.llm.models.get(each.model_name)
            if each.surface == tree.LLM
            else current.tts.models.get(each.model_name)
        )
        model = each.model(_key(each, known))
        if isinstance(model, tree.TTSModel):
            tts[each.model_name] = model
        else:
            llm[each.model_name] = _tuned(model, base.llm.models.get(each.model_name))
    return tree.Tree(llm=tree.LLMSection(models=llm), tts=tree.TTSSection(models=tts))


def _key(each: slices.ModelSlice, known: tree.LLMModel | tree.TTSModel | None) -> tree.Key:
    candidates = [key for upstream in known.upstreams for key in upstream.keys] if known else []
    return _sealed(each.plaintext_key, each.model_name, each.key_entry_id, candidates)


def _sealed(secret: SecretStr, model: str, key_id: str, candidates: list[tree.Key]) -> tree.Key:
    """Return the candidate that holds this key in this place, or seal it anew."""
    plaintext = provider_keys.checked(secret.get_secret_value())
    for key in candidates:
        if key.id == key_id and provider_keys.is_sealed(
            plaintext, key.ciphertext, model=model, key_id=key_id
        ):
            return key
    ciphertext = provider_keys.seal(plaintext, model=model, key_id=key_id)
    return tree.Key(id=key_id, ciphertext=ciphertext)


def _tuned(model: tree.LLMModel, known: tree.LLMModel | None) -> tree.LLMModel:
    """Keep what an operator tuned in fields that no slice can name."""
    if known is None:
        return model
    return model.model_copy(update={name: getattr(known, name) for name in CARRIED_OVER})


def _unspeech(each: slices.Unspeech) -> tree.JSON:
    stored = _stored(UNSPEECH_UPSTREAM.name)
    known = UNSPEECH_UPSTREAM.parse(stored).streaming if stored else None
    streaming = None
    if each.streaming:
        key = _sealed(
            each.streaming.plaintext_key,
            tree.STREAMING_TTS,
            each.streaming.key_entry_id,
            list(known.keys) if known else [],
        )
        streaming = tree.Streaming(
            base_url=each.streaming.upstream_url,
            keys=(key,),
            models=known.models if known else (),
        )
    return tree.dump(tree.UnspeechUpstream(rest_base_url=each.rest_base_url, streaming=streaming))


def _stored(name: str) -> Any:
    """Return the value in force, None if there is none."""
    if name == ROUTER_CONFIG:
        return publishing.current_tree()
    try:
        return _json(operator_options.REGISTRY[name].read())
    except operator_options.ConfigNotSet:
        return None


def _write(name: str, value: Any, *, note: str, by: str, at: datetime) -> None:
    if isinstance(value, tree.Tree):
        publishing.publish(value, note=note, by=by, at=at)
    else:
        operator_options.put(name, value, by=by, at=at, note=note[:NOTE_LENGTH])


def _json(value: Any) -> Any:
    if isinstance(value, tree.Tree | tree.UnspeechUpstream):
        return tree.dump(value)
    return {n: _json(v) for n, v in value.items()} if isinstance(value, dict) else value


def _applied(each: slices.ModelSlice | slices.Unspeech) -> dict[str, str | None]:
    if isinstance(each, slices.Unspeech):
        key_id = each.streaming.key_entry_id if each.streaming else None
        return {"kind": each.kind, "target": "unspeech", "keyEntryId": key_id}
    return {
        "kind": each.kind,
        "target": "llm-router",
        "surface": each.surface,
        "modelName": each.model_name,
        "keyEntryId": each.key_entry_id,
    }
