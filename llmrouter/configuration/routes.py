"""The configuration as the hot path reads it: compiled once for each revision, immutable."""

from __future__ import annotations

import hashlib
import struct
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final
from urllib.parse import urlsplit

from llmrouter.configuration import fields, origins, tree

DEFAULT_IDLE_TIMEOUT_S: Final = 60.0
DEFAULT_FIRST_EVENT_IDLE_S: Final = 300.0
"""Some models think in silence."""
DEFAULT_ANSWER_TIMEOUT_S: Final = 600.0


@dataclass(frozen=True, slots=True)
class Key:
    """One sealed key. `health_id` names it in Redis and changes when the key is rotated."""

    id: str
    sealed: str = field(repr=False)
    context_model: str
    health_id: str


@dataclass(frozen=True, slots=True)
class Upstream:
    """One endpoint with its enabled keys, in order. `position` counts from 1.

    `target_id` names it together with its model, as `health_id` names a key. `timeout_s` is its own
    limit for an attempt, if it has one; `head_s` how long the head of a stream may take here.
    `allow` names fields it takes beyond the list, `omit` what it does not know of ours. `origin` is
    where `url` leads: what its keys have to be entered for.
    """

    id: str
    url: str
    origin: str
    base_url: str
    host: str
    model: str
    keys: tuple[Key, ...]
    header_template: str
    timeout_s: float | None
    head_s: float
    allow: frozenset[str]
    omit: frozenset[str]
    priority: int
    weight: int
    position: int
    target_id: str


@dataclass(frozen=True, slots=True)
class Route:
    """One public model. Upstreams stand by priority, then position.

    `is_weighted` says that at least two of them share a priority, so the order is drawn.
    """

    name: str
    upstreams: tuple[Upstream, ...]
    trigger_codes: frozenset[int]
    on_timeout: bool
    ask_again_after_timeout: bool
    max_output_tokens: int
    default_output_tokens: int
    max_tokens_field: fields.MaxTokensField
    tokenizer: fields.Tokenizer
    is_weighted: bool


@dataclass(frozen=True, slots=True)
class Table:
    """Every route of one published revision; `available` are their names, sorted."""

    revision: int
    llm: Mapping[str, Route]
    available: tuple[str, ...]
    idle_timeout_s: float
    first_event_idle_s: float
    chain_timeout_s: float
    answer_timeout_s: float

    def usable(self, allowed: frozenset[str] | None) -> tuple[str, ...]:
        """Return the names of those that are allowed; None allows all."""
        if allowed is None:
            return self.available
        return tuple(name for name in self.available if name in allowed)


def compile(config: tree.Tree, number: int) -> Table:  # noqa: A001  reads `routes.compile(tree, 7)`
    """Return the table of revision `number`."""
    defaults = config.defaults
    return Table(
        revision=number,
        llm=MappingProxyType(
            {name: _route(name, model, defaults) for name, model in config.llm.models.items()}
        ),
        available=tuple(sorted(config.llm.models)),
        idle_timeout_s=_seconds(defaults.idle_timeout_ms) or DEFAULT_IDLE_TIMEOUT_S,
        first_event_idle_s=_seconds(defaults.first_event_idle_ms) or DEFAULT_FIRST_EVENT_IDLE_S,
        chain_timeout_s=defaults.full_chain_timeout_ms / 1000,
        answer_timeout_s=_seconds(defaults.answer_timeout_ms) or DEFAULT_ANSWER_TIMEOUT_S,
    )


def _seconds(milliseconds: int | None) -> float | None:
    return milliseconds / 1000 if milliseconds else None


def _route(name: str, model: tree.LLMModel, defaults: tree.Defaults) -> Route:
    upstreams = sorted(_upstreams(name, model, defaults), key=lambda u: (u.priority, u.position))
    codes = model.fallback_triggers.http_codes
    return Route(
        name=name,
        upstreams=tuple(upstreams),
        trigger_codes=frozenset(defaults.fallback_http_codes if codes is None else codes),
        on_timeout=model.fallback_triggers.on_timeout,
        ask_again_after_timeout=model.fallback_triggers.ask_again_after_timeout,
        max_output_tokens=model.max_output_tokens,
        default_output_tokens=min(model.default_output_tokens, model.max_output_tokens),
        max_tokens_field=model.max_tokens_field,
        tokenizer=model.tokenizer,
        is_weighted=len({upstream.priority for upstream in upstreams}) < len(upstreams),
    )


def _upstreams(name: str, model: tree.LLMModel, defaults: tree.Defaults) -> list[Upstream]:
    """Compile the upstreams that have a key to be tried with."""
    ids = _ids(model.upstreams)
    return [
        _upstream(name, ids[index], upstream, index + 1, defaults)
        for index, upstream in enumerate(model.upstreams)
        if not all(key.disabled for key in upstream.keys)
    ]


def _upstream(
    name: str, slug: str, upstream: tree.LLMUpstream, position: int, defaults: tree.Defaults
) -> Upstream:
    base_url = upstream.base_url.rstrip("/")
    attempt_ms = upstream.timeout_ms or defaults.per_attempt_timeout_ms
    model = upstream.override_model or name
    url = f"{base_url}/chat/completions"
    return Upstream(
        id=slug,
        url=url,
        origin=origins.of(url),
        base_url=base_url,
        host=_host(base_url),
        model=model,
        keys=tuple(_key(name, slug, key) for key in upstream.keys if not key.disabled),
        header_template=upstream.header_template,
        timeout_s=_seconds(upstream.timeout_ms),
        head_s=min(attempt_ms, defaults.first_byte_timeout_ms or attempt_ms) / 1000,
        allow=frozenset(upstream.allow),
        omit=frozenset(upstream.omit),
        priority=position if upstream.priority is None else upstream.priority,
        weight=upstream.weight,
        position=position,
        target_id=_health_id("", slug, base_url, model),
    )


def _key(name: str, slug: str, key: tree.ConfiguredKey) -> Key:
    return Key(key.id, key.ciphertext, name, _health_id(name, slug, key.id, key.ciphertext))


def _health_id(*words: str) -> str:
    # Length-prefixed, so that no two keys can be spelled alike.
    digest = hashlib.sha256()
    for word in map(str.encode, words):
        digest.update(struct.pack(">I", len(word)) + word)
    return digest.hexdigest()[:20]


def _host(base_url: str) -> str:
    return urlsplit(base_url).hostname or "unknown"


def _ids(upstreams: tuple[tree.LLMUpstream, ...]) -> list[str]:
    """Name each upstream: as configured, else by its host, numbered where hosts repeat."""
    taken = {upstream.id for upstream in upstreams if upstream.id}
    seen: Counter[str] = Counter()
    made = []
    for upstream in upstreams:
        slug, host = upstream.id, _host(upstream.base_url)
        while slug is None:
            seen[host] += 1
            candidate = host if seen[host] == 1 else f"{host}-{seen[host]}"
            slug = None if candidate in taken else candidate
        made.append(slug)
    return made
