"""Where a provider key may be sent: to the origin it was entered for, and nowhere else.

Whoever may edit a route may not read its keys, and would, by sending them to a host of their own.
A `v3` text names its origin, and opens for no other. Older texts name none: they belong where they
stand in force, and those that are no longer in force where they stood first. Revisions cannot be
changed, so an export that was edited by hand convinces nobody.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from django.db.models import TextField
from django.db.models.functions import Cast

from airi_server.kernel import sealing
from llmrouter.configuration import origins, provider_keys, tree
from llmrouter.configuration.models import RouterRevision

ENTER_AGAIN = "This key was entered for {origin}. Enter it again to send it to another host."


def entered_for(model: str, sealed: str, in_force: tree.Tree) -> frozenset[str]:
    """Return the origins a key may be sent to; none if it is old and was never published."""
    return _known(model, sealed, _places(in_force))


def faults(config: tree.Tree, in_force: tree.Tree) -> list[dict[str, str]]:
    """Return path and message of every key that `config` would send elsewhere.

    An old text that was never published here is believed: where it stands now is where it belongs
    from then on. A key that stays where it is in force does not stop other changes, even if it
    does not belong there and opens for nobody.
    """
    known = _places(in_force)
    found = []
    for path, model, key, origin in provider_keys.places(config):
        entered = _known(model, key.ciphertext, known)
        stays = origin in known.get((model, key.ciphertext), ())
        if entered and origin not in entered and not stays:
            at = path.rpartition(".keys.")[0]
            found.append({"path": f"{at}.baseURL", "message": enter_again(entered)})
    return found


def enter_again(entered: frozenset[str]) -> str:
    """Return what is said of a key that would be sent elsewhere."""
    return ENTER_AGAIN.format(origin=min(entered, default="another host"))


Places = Mapping[tuple[str, str], frozenset[str]]
"""Model and sealed text → where they stand."""


def _places(config: tree.Tree) -> Places:
    found: dict[tuple[str, str], frozenset[str]] = {}
    for _, model, key, origin in provider_keys.places(config):
        place = (model, key.ciphertext)
        found[place] = found.get(place, frozenset()) | {origin}
    return found


def _known(model: str, sealed: str, known: Places) -> frozenset[str]:
    bound = sealing.origin_of(sealed)
    if bound is not None:
        return frozenset({bound})
    return known.get((model, sealed)) or _first_place(model, sealed)


def _first_place(model: str, sealed: str) -> frozenset[str]:
    """Return where the first revision that had this key sent it."""
    revisions = RouterRevision.objects.annotate(text=Cast("tree", TextField()))
    first = revisions.filter(text__contains=sealed).order_by("number").first()
    return frozenset(_stood(first.tree, model, sealed)) if first else frozenset()


def _stood(stored: dict[str, Any], model: str, sealed: str) -> Iterator[str]:
    """Yield where a stored tree sends a key. It may be older than the types that read trees."""
    for surface in (tree.LLM, tree.TTS):
        models = stored.get(surface, {}).get("models", {})
        for upstream in models.get(model, {}).get("upstreams", ()):
            if any(key.get("ciphertext") == sealed for key in upstream.get("keys", ())):
                yield origins.of(upstream.get("baseURL", ""))
