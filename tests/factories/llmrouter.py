"""Router configurations for tests. Defaults describe the ordinary case; tests name what differs."""

from __future__ import annotations

from contextlib import asynccontextmanager
from datetime import UTC, datetime

from airi_server.kernel import database, pubsub, redis, sealing
from llmrouter.configuration import origins, provider_keys, publishing, tree
from llmrouter.configuration.models import RouterRevision

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
BASE_URL = "https://upstream.example/v1"
SECRET = "sk-or-test-123"


def sealed_key(
    *, model="chat-default", key_id="k1", secret=SECRET, disabled=False, base_url=BASE_URL
) -> tree.ConfiguredKey:
    origin = origins.of(base_url)
    return tree.ConfiguredKey(
        id=key_id,
        ciphertext=provider_keys.seal(secret, model=model, key_id=key_id, origin=origin),
        disabled=disabled,
    )


def older_key(*, model="chat-default", key_id="k1", secret=SECRET) -> tree.ConfiguredKey:
    """Make a key as versions before this one sealed it: for no origin."""
    place = {"purpose": sealing.PROVIDER_KEY, "owner": model, "name": key_id}
    return tree.ConfiguredKey(id=key_id, ciphertext=sealing.seal(secret, **place))


def secret_of(key: tree.ConfiguredKey, *, model="chat-default") -> str:
    """Open a key where it says it belongs."""
    return bytes(
        sealing.open_sealed(
            key.ciphertext,
            purpose=sealing.PROVIDER_KEY,
            owner=model,
            name=key.id,
            origin=sealing.origin_of(key.ciphertext) or "",
        )
    ).decode()


def upstream(*, keys=None, model="chat-default", base_url=BASE_URL, **fields) -> tree.LLMUpstream:
    return tree.LLMUpstream(
        base_url=base_url,
        keys=tuple(keys or [sealed_key(model=model, base_url=base_url)]),
        **fields,
    )


def chat_model(*upstreams, name="chat-default", **fields) -> tree.LLMModel:
    return tree.LLMModel(upstreams=upstreams or (upstream(model=name),), **fields)


def chat_tree(*names, **models) -> tree.Tree:
    """Make a tree of ordinary chat models by name, or of the given ones."""
    ordinary = {name: chat_model(name=name) for name in names}
    chosen = {**ordinary, **models} or {"chat-default": chat_model()}
    return tree.Tree(llm=tree.LLMSection(models=chosen))


def published(config: tree.Tree | None = None, **options) -> RouterRevision:
    """Publish a tree, the ordinary one if none is given."""
    options = {"note": "test", "by": "tester", "at": NOON, **options}
    revision = publishing.publish(config or chat_tree(), **options)
    assert revision is not None
    return revision


@asynccontextmanager
async def hot_path():
    """Close what the hot path opened in this test's event loop."""
    try:
        yield
    finally:
        await pubsub.close()
        await redis.close()
        await database.close()
