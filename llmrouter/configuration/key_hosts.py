"""A provider key is only ever sent to the host it was entered for.

Whoever may edit a route may not read its keys, and would, by sending them to a host of their own.
So a key that stays while its upstream moves to another host has to be entered again.
"""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

from llmrouter.configuration import tree

ENTER_AGAIN = "This key was entered for {host}. Enter it again to send it to another host."


def origin(base_url: str) -> str:
    """Return scheme, host and port: what a key is entered for."""
    parts = urlsplit(base_url)
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme, 0)
    return f"{parts.scheme}://{(parts.hostname or '').lower()}:{port}"


def faults(config: tree.Tree, previous: tree.Tree) -> list[dict[str, str]]:
    """Return path and message of every key of `previous` that `config` would send elsewhere."""
    known: dict[tuple[str, str], set[str]] = {}
    for _, model, upstream in _upstreams(previous):
        for key in upstream.keys:
            known.setdefault((model, key.ciphertext), set()).add(origin(upstream.base_url))
    found = []
    for path, model, upstream in _upstreams(config):
        for key in upstream.keys:
            entered_for = known.get((model, key.ciphertext))
            if entered_for and origin(upstream.base_url) not in entered_for:
                message = ENTER_AGAIN.format(host=min(entered_for))
                found.append({"path": f"{path}.baseURL", "message": message})
    return found


def _upstreams(config: tree.Tree) -> Iterator[tuple[str, str, tree.Upstream]]:
    """Yield every upstream with its path and the name of its model."""
    for name, model in config.llm.models.items():
        for at, upstream in enumerate(model.upstreams):
            yield f"{tree.LLM}.models.{name}.upstreams.{at}", name, upstream
    for name, speech in config.tts.models.items():
        for at, endpoint in enumerate(speech.upstreams):
            yield f"{tree.TTS}.models.{name}.upstreams.{at}", name, endpoint
