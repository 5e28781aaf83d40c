"""Configuration diff: what one revision changed of another, without secrets or ciphertext."""

from __future__ import annotations

import hashlib
from typing import Any

import orjson

from llmrouter.configuration import tree


def diff(before: tree.JSON, after: tree.JSON) -> str:
    """Return `- path: value` and `+ path: value` for each leaf that differs, sorted by path."""
    old, new = (dict(_leaves(tree.redacted(side, shown=_digest))) for side in (before, after))
    lines = []
    for path in sorted(old.keys() | new.keys()):
        was, now = old.get(path), new.get(path)
        if was != now:
            lines += [f"- {path}: {was}"] if was is not None else []
            lines += [f"+ {path}: {now}"] if now is not None else []
    return "\n".join(lines)


def _digest(ciphertext: str) -> str:
    """Show that a ciphertext changed without showing it."""
    return f"<ciphertext {hashlib.sha256(ciphertext.encode()).hexdigest()[:8]}>"


def _leaves(value: Any, path: str = "") -> list[tuple[str, str]]:
    """Flatten JSON; an empty object or list is a leaf, so that it cannot vanish."""
    if isinstance(value, dict | list) and value:
        items = value.items() if isinstance(value, dict) else enumerate(value)
        return [
            leaf
            for name, item in items
            for leaf in _leaves(item, f"{path}.{name}" if path else str(name))
        ]
    return [(path, orjson.dumps(value).decode())]
