"""The key of a slice: sealed from what was given, or kept from what is there (contract §16.9).

A key that is kept is kept for the origin it was entered for, under whichever id. A plaintext goes
in here and a ciphertext comes out; neither is put in a refusal.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

from airi_server.kernel import sealing
from llmrouter.configuration import key_origins, origins, provider_keys, tree
from llmrouter.configuration.seeding import providers
from llmrouter.configuration.seeding.requests import InvalidSeed


@dataclass(frozen=True, slots=True)
class Candidate:
    """A key that is there, and the origin it stands at."""

    key: tree.ConfiguredKey
    origin: str

    @classmethod
    def of(cls, upstreams: Iterable[tree.ConfiguredUpstream | tree.StreamingSpeech]) -> list[Self]:
        """Return the keys of some upstreams, in order."""
        return [
            cls(key, origins.of(upstream.base_url))
            for upstream in upstreams
            for key in upstream.keys
        ]


def key_of(
    each: providers.Keyed, path: str, *, model: str, origin: str, candidates: Sequence[Candidate]
) -> tree.ConfiguredKey:
    """Return the key that a slice asks for.

    Args:
        each: What was said about the key.
        path: Where in the body it was said, for refusals.
        model: The name that seals it.
        origin: Where it is going to be sent.
        candidates: The keys that are there, in order.

    Raises:
        InvalidSeed: There is no such key to keep, it was entered for another origin, it does not
            open where it has to, or the new one cannot be sent in a header.
    """
    if each.plaintext_key is None:
        return _kept(each, path, model, origin, candidates)
    try:
        plaintext = provider_keys.checked(each.plaintext_key.get_secret_value())
    except provider_keys.UnusableKey as unusable:
        raise InvalidSeed.at(f"{path}.plaintextKey", unusable.message) from None
    return _sealed(plaintext, model, each.key_entry_id, origin, candidates)


def _sealed(
    plaintext: str, model: str, key_id: str, origin: str, candidates: Sequence[Candidate]
) -> tree.ConfiguredKey:
    """Return the candidate that holds this key in this place, or seal it anew."""
    for there in candidates:
        if (there.key.id, there.origin) == (key_id, origin) and provider_keys.is_sealed(
            plaintext, there.key.ciphertext, model=model, key_id=key_id, origin=origin
        ):
            return there.key
    ciphertext = provider_keys.seal(plaintext, model=model, key_id=key_id, origin=origin)
    return tree.ConfiguredKey(id=key_id, ciphertext=ciphertext)


def _kept(
    each: providers.Keyed, path: str, model: str, origin: str, candidates: Sequence[Candidate]
) -> tree.ConfiguredKey:
    """Return the key that is there, sealed again only if its id changes."""
    there = _chosen(each.existing_key_entry_id, path, origin, candidates)
    if there.origin != origin:
        message = key_origins.enter_again(frozenset({there.origin}))
        raise InvalidSeed.at(f"{path}.plaintextKey", message)
    key = there.key
    wanted = each.wanted_key_id or key.id
    if wanted == key.id:
        return key
    try:
        ciphertext = provider_keys.resealed(
            key.ciphertext, model=model, key_id=key.id, origin=origin, new_key_id=wanted
        )
    except sealing.CannotOpen:
        message = "The key that is there does not open, so it cannot take another id."
        raise InvalidSeed.at(f"{path}.keyEntryId", message) from None
    return key.model_copy(update={"id": wanted, "ciphertext": ciphertext})


def _chosen(
    key_id: str | None, path: str, origin: str, candidates: Sequence[Candidate]
) -> Candidate:
    """Return the key of that id, or the first; rather one that is there for this origin."""
    named = [there for there in candidates if key_id in (None, there.key.id)]
    here = [there for there in named if there.origin == origin]
    if named:
        return (here or named)[0]
    if key_id is None:
        message = "There is no key to keep: give one"
        raise InvalidSeed.at(f"{path}.plaintextKey", message)
    message = "There is no key of this id to keep"
    raise InvalidSeed.at(f"{path}.existingKeyEntryId", message)
