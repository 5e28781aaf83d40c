"""Who pays, what for, and where it goes. Import this after Django's set-up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

from django.db import connections

from accounts import keys, users
from airi_server.runtime.options import put
from billing import ledger, prices
from llmrouter.configuration import options, origins, provider_keys, publishing, tree
from tests.chaos.paid.record import FLAT_FLUX, MODEL, OPERATOR, Person

KEYS_EACH: Final = 2
_BY: Final = "chaos"


def people(rich: int, poor: int) -> list[Person]:
    """Make people with a key without limits each; the poor come last."""
    found = [_person(number, is_poor=number >= rich) for number in range(rich + poor)]
    connections.close_all()
    return found


def operator_key() -> str:
    at = datetime.now(UTC)
    user = users.create(email=OPERATOR, password=None, verified=True, at=at)
    _, key = keys.create(user_id=user.id, name="Chaos", at=at)
    connections.close_all()
    return key


def price() -> None:
    """One Flux a token, a tenth of it for a cached one."""
    whole = Decimal(1_000)
    rates: dict[str, Any] = {
        "flux_per_1k_input": whole, "flux_per_1k_output": whole,
        "flux_per_1k_cached": Decimal(100), "flux_per_request": FLAT_FLUX, "minimum_flux": 1,
    }  # fmt: skip
    prices.publish(model=MODEL, by=_BY, at=datetime.now(UTC), **rates)


def route(urls: Mapping[str, str], order: Sequence[str]) -> None:
    """Publish the places in this order of preference; it is the default model."""
    at = datetime.now(UTC)
    places = tuple(
        tree.LLMUpstream(
            id=place, base_url=urls[place], keys=_keys(place, urls[place]),
            override_model="upstream-model",
        )
        for place in order
    )  # fmt: skip
    model = tree.LLMModel(upstreams=places)
    waits = tree.Defaults(
        per_attempt_timeout_ms=2_500, full_chain_timeout_ms=8_000, idle_timeout_ms=3_000
    )
    config = tree.Tree(llm=tree.LLMSection(models={MODEL: model}), defaults=waits)
    publishing.publish(config, note=f"{order[0]} first", by=_BY, at=at)
    put(options.DEFAULT_CHAT_MODEL.name, MODEL, by=_BY, at=at)


def _keys(place: str, base_url: str) -> tuple[tree.ConfiguredKey, ...]:
    origin = origins.of(base_url)
    return tuple(
        tree.ConfiguredKey(
            id=key_id,
            ciphertext=provider_keys.seal("sk-or-chaos", model=MODEL, key_id=key_id, origin=origin),
        )
        for key_id in (f"{place}{number}" for number in range(1, KEYS_EACH + 1))
    )


def _person(number: int, *, is_poor: bool) -> Person:
    at = datetime.now(UTC)
    email = f"payer-{number}@example.com"
    user = users.create(email=email, password=None, verified=True, at=at)
    key, plaintext = keys.create(
        user_id=user.id, name="Chaos", at=at, requests_per_minute=0, tokens_per_minute=0,
        parallel_requests=0,
    )  # fmt: skip
    person = Person(user.id, email, plaintext, key.public_id, is_poor)
    ledger.credit(
        user_id=user.id, amount=person.start, request_id="chaos-start",
        description="Chaos Flux", at=at,
    )  # fmt: skip
    return person
