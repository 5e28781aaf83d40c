"""The configuration as rows: read into a tree, and written from one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from django.db.models import Max, Prefetch

from airi_server.kernel import sealing
from llmrouter.configuration import origins, provider_keys, tree
from llmrouter.configuration.models import RouterDefaults, RouterKey, RouterModel, RouterUpstream


def read() -> tree.Tree:
    """Return the tree that the rows spell.

    Raises:
        InvalidTree: They do not make a configuration; `details` says where.
    """
    sections: dict[str, dict[str, Any]] = {tree.LLM: {}, tree.TTS: {}}
    for row in _stored():
        sections[row.surface][row.name] = _model_json(row)
    return tree.parse(
        {
            **{surface: {"models": models} for surface, models in sections.items()},
            "defaults": _defaults_json(),
        }
    )


def write(config: tree.Tree, fingerprints: Mapping[str, str]) -> None:
    """Make the rows spell this tree; models that already do are left alone.

    `fingerprints` holds that of each sealed key that is new.
    """
    stored = {(row.surface, row.name): row for row in _stored()}
    known = {
        key.sealed: key.fingerprint
        for row in stored.values()
        for upstream in row.upstreams.all()
        for key in upstream.keys.all()
    }
    wanted = _models_of(config)
    gone = [row.pk for place, row in stored.items() if place not in wanted]
    RouterModel.objects.filter(pk__in=gone).delete()
    for place, model in wanted.items():
        row = stored.get(place)
        if row is None or _model_json(row) != tree.dump(model):
            _write_model(row or RouterModel(surface=place[0], name=place[1]), model)
            _write_upstreams(place, model, known | dict(fingerprints))
    _write_defaults(config.defaults)


def put_key(upstream: RouterUpstream, *, key_id: str, plaintext: str) -> None:
    """Replace the key of that id, or add it behind the others.

    Raises:
        UnusableKey: The text cannot be sent as a key.
    """
    row = upstream.keys.filter(key_id=key_id).order_by("pk").first()
    if row is None:
        last = upstream.keys.aggregate(last=Max("position"))["last"] or 0
        row = RouterKey(upstream=upstream, key_id=key_id, position=last + 1)
    seal_key(row, upstream, plaintext=plaintext)
    row.save()


def seal_key(row: RouterKey, upstream: RouterUpstream, *, plaintext: str) -> None:
    """Give a row another key, for the host its upstream has now; without saving it.

    Raises:
        UnusableKey: The text cannot be sent as a key.
    """
    row.sealed = provider_keys.seal(
        plaintext,
        model=upstream.model.name,
        key_id=row.key_id,
        origin=origins.of(upstream.base_url),
    )
    row.fingerprint = sealing.fingerprint(plaintext)


def renumber() -> None:
    """Count positions from 1 again where an operator moved, removed or doubled them."""
    for model in _stored():
        _count_from_1(model.upstreams.all())
        for upstream in model.upstreams.all():
            _count_from_1(upstream.keys.all())


def _count_from_1(siblings: Iterable[RouterUpstream | RouterKey]) -> None:
    ordered = sorted(siblings, key=lambda row: (row.position, row.pk))
    for position, row in enumerate(ordered, start=1):
        if row.position != position:
            row.position = position
            row.save(update_fields=["position"])


def _models_of(config: tree.Tree) -> dict[tuple[str, str], tree.Model]:
    return {(surface, name): model for surface, name, model in tree.models(config)}


def _stored() -> list[RouterModel]:
    keys = Prefetch("keys", RouterKey.objects.order_by("position"))
    upstreams = RouterUpstream.objects.order_by("position").prefetch_related(keys)
    models = RouterModel.objects.order_by("surface", "name")
    return list(models.prefetch_related(Prefetch("upstreams", upstreams)))


def _model_json(row: RouterModel) -> tree.JSON:
    shared = {
        "upstreams": [_upstream_json(upstream, row.surface) for upstream in row.upstreams.all()],
        "fallbackTriggers": _triggers_json(row),
    }
    if row.surface == tree.TTS:
        return {**shared, "provider": row.provider}
    return {
        **shared,
        "maxOutputTokens": row.max_output_tokens,
        "defaultOutputTokens": row.default_output_tokens,
        "maxTokensField": row.max_tokens_field,
        "tokenizer": row.tokenizer,
    }


def _triggers_json(row: RouterModel) -> tree.JSON:
    return _present(
        httpCodes=row.trigger_codes,
        onTimeout=row.on_timeout,
        askAgainAfterTimeout=row.ask_again_after_timeout,
    )


def _upstream_json(row: RouterUpstream, surface: str) -> tree.JSON:
    shared = _present(
        id=row.slug or None,
        baseURL=row.base_url,
        keys=[
            {"id": key.key_id, "ciphertext": key.sealed, "disabled": key.disabled}
            for key in row.keys.all()
        ],
        priority=row.priority,
        weight=row.weight,
    )
    if surface == tree.TTS:
        return {**shared, "adapterParams": row.adapter_params}
    return {
        **shared,
        **_present(
            overrideModel=row.override_model or None,
            headerTemplate=row.header_template,
            timeoutMs=row.timeout_ms,
            allow=row.allow,
            omit=row.omit,
        ),
    }


def _defaults_json() -> tree.JSON:
    row = RouterDefaults.objects.filter(id=1).first()
    if row is None:
        return tree.dump(tree.Defaults())
    return _present(
        perAttemptTimeoutMs=row.per_attempt_timeout_ms,
        fullChainTimeoutMs=row.full_chain_timeout_ms,
        firstByteTimeoutMs=row.first_byte_timeout_ms,
        idleTimeoutMs=row.idle_timeout_ms,
        firstEventIdleMs=row.first_event_idle_ms,
        answerTimeoutMs=row.answer_timeout_ms,
        fallbackHttpCodes=row.fallback_http_codes,
    )


def _present(**values: Any) -> tree.JSON:
    return {name: value for name, value in values.items() if value is not None}


def _write_model(row: RouterModel, model: tree.Model) -> None:
    codes = model.fallback_triggers.http_codes
    row.trigger_codes = None if codes is None else list(codes)
    row.on_timeout = model.fallback_triggers.on_timeout
    row.ask_again_after_timeout = model.fallback_triggers.ask_again_after_timeout
    if isinstance(model, tree.TTSModel):
        row.provider = model.provider
    else:
        row.max_output_tokens = model.max_output_tokens
        row.default_output_tokens = model.default_output_tokens
        row.max_tokens_field = model.max_tokens_field
        row.tokenizer = model.tokenizer
    row.save()


def _write_upstreams(
    place: tuple[str, str], model: tree.Model, fingerprints: Mapping[str, str]
) -> None:
    """Replace the upstreams and keys of one model."""
    row = RouterModel.objects.get(surface=place[0], name=place[1])
    row.upstreams.all().delete()
    made = RouterUpstream.objects.bulk_create(
        _upstream_row(row, position, upstream)
        for position, upstream in enumerate(model.upstreams, start=1)
    )
    RouterKey.objects.bulk_create(
        RouterKey(
            upstream=upstream_row,
            position=position,
            key_id=key.id,
            sealed=key.ciphertext,
            fingerprint=fingerprints.get(key.ciphertext, ""),
            disabled=key.disabled,
        )
        for upstream_row, upstream in zip(made, model.upstreams, strict=True)
        for position, key in enumerate(upstream.keys, start=1)
    )


def _upstream_row(
    model: RouterModel, position: int, upstream: tree.ConfiguredUpstream
) -> RouterUpstream:
    row = RouterUpstream(
        model=model,
        position=position,
        slug=upstream.id or "",
        base_url=upstream.base_url,
        priority=upstream.priority,
        weight=upstream.weight,
    )
    if isinstance(upstream, tree.TTSUpstream):
        row.adapter_params = dict(upstream.adapter_params)
    if isinstance(upstream, tree.LLMUpstream):
        row.override_model = upstream.override_model or ""
        row.header_template = upstream.header_template
        row.timeout_ms = upstream.timeout_ms
        row.allow, row.omit = list(upstream.allow), list(upstream.omit)
    return row


def _write_defaults(defaults: tree.Defaults) -> None:
    if _defaults_json() != tree.dump(defaults) or not RouterDefaults.objects.exists():
        RouterDefaults.objects.update_or_create(
            id=1,
            defaults={**dict(defaults), "fallback_http_codes": list(defaults.fallback_http_codes)},
        )
