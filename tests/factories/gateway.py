"""A funded caller and a route to a scripted upstream: what most gateway tests begin with."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from datetime import UTC, datetime

from airi_server.kernel.threads import in_thread
from billing import ledger
from billing.models import FluxAccount, FluxTransaction, LLMRequestLog
from llmrouter.configuration import publishing, tree
from tests.factories import accounts
from tests.factories import llmrouter as routers

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@dataclass(frozen=True)
class Caller:
    """A user with Flux and a key without rate limits."""

    user_id: str
    key: str
    key_id: str


def make_caller(flux: int = 1000, **key_settings) -> Caller:
    unlimited = {"requests_per_minute": 0, "tokens_per_minute": 0, "parallel_requests": 0}
    key, plaintext = accounts.api_key(**{**unlimited, **key_settings})
    if flux:
        ledger.grant(
            user_id=key.user_id,
            amount=flux,
            request_id="test-grant",
            description="test",
            by="tester",
            at=NOW,
        )
    return Caller(key.user_id, plaintext, key.public_id)


def make_route(*base_urls: str, name: str = "chat-default", **fields) -> None:
    """Publish one model with one upstream for each base URL, and make it the default."""
    make_places(*((base_url, 1) for base_url in base_urls), name=name, **fields)


def make_places(
    *places: tuple[str, int],
    name: str = "chat-default",
    defaults: tree.Defaults | None = None,
    timeout_ms: int | None = 5_000,
    **fields,
) -> None:
    """Publish one model with an upstream for each (base URL, number of keys): k1, k2, …."""
    numbers = itertools.count(1)
    upstreams = [
        routers.upstream(
            base_url=base_url,
            model=name,
            keys=[
                routers.sealed_key(model=name, key_id=f"k{next(numbers)}", base_url=base_url)
                for _ in range(keys)
            ],
            override_model="upstream-model",
            timeout_ms=timeout_ms,
        )
        for base_url, keys in places
    ]
    model = routers.chat_model(*upstreams, name=name, **fields)
    make_tree(defaults=defaults, **{name: model})


def make_tree(*, defaults: tree.Defaults | None = None, **models: tree.LLMModel) -> None:
    from airi_server.runtime.options import put
    from llmrouter.configuration import options

    config = routers.chat_tree(**models)
    if defaults is not None:
        config = config.model_copy(update={"defaults": defaults})
    publishing.publish(config, note="test", by="tester", at=NOW)
    put(options.DEFAULT_CHAT_MODEL.name, next(iter(models)), by="tester", at=NOW)


def _put(name: str, value: object) -> None:
    from airi_server.runtime.options import put

    put(name, value, by="tester", at=NOW)


def _account(user_id: str) -> FluxAccount:
    return FluxAccount.objects.get(user_id=user_id)


def _requests() -> list[LLMRequestLog]:
    return list(LLMRequestLog.objects.order_by("id"))


def _debits(user_id: str) -> list[FluxTransaction]:
    return list(FluxTransaction.objects.filter(user_id=user_id, kind="debit").order_by("user_seq"))


# Tests of the hot path are coroutines: these run in a thread that gives its connection back.
caller = in_thread(make_caller)
route = in_thread(make_route)
places = in_thread(make_places)
option = in_thread(_put)
publish_tree = in_thread(make_tree)
account = in_thread(_account)
requests = in_thread(_requests)
debits = in_thread(_debits)
