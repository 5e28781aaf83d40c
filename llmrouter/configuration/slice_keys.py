"""The key of a slice: sealed from what was given, or kept from what is there (contract §16.9).

A plaintext goes in here and a ciphertext comes out; neither is put in a refusal.
"""

from __future__ import annotations

from collections.abc import Sequence

from airi_server.kernel import sealing
from llmrouter.configuration import kinds, provider_keys, tree
from llmrouter.configuration.slices import InvalidSeed


def key_of(each: kinds.Keyed, path: str, *, model: str, candidates: Sequence[tree.Key]) -> tree.Key:
    """Return the key that a slice asks for.

    Args:
        each: What was said about the key.
        path: Where in the body it was said, for refusals.
        model: The name that seals it.
        candidates: The keys that are there, in order.

    Raises:
        InvalidSeed: There is no such key to keep, it does not open where it has to, or the new one
            cannot be sent in a header.
    """
    if each.plaintext_key is None:
        return _kept(each, path, model, candidates)
    try:
        plaintext = provider_keys.checked(each.plaintext_key.get_secret_value())
    except provider_keys.UnusableKey as unusable:
        raise InvalidSeed.at(f"{path}.plaintextKey", unusable.message) from None
    return _sealed(plaintext, model, each.key_entry_id, candidates)


def _sealed(plaintext: str, model: str, key_id: str, candidates: Sequence[tree.Key]) -> tree.Key:
    """Return the candidate that holds this key in this place, or seal it anew."""
    for key in candidates:
        if key.id == key_id and provider_keys.is_sealed(
            plaintext, key.ciphertext, model=model, key_id=key_id
        ):
            return key
    ciphertext = provider_keys.seal(plaintext, model=model, key_id=key_id)
    return tree.Key(id=key_id, ciphertext=ciphertext)


def _kept(each: kinds.Keyed, path: str, model: str, candidates: Sequence[tree.Key]) -> tree.Key:
    """Return the key that is there, sealed again only if its id changes."""
    key = _chosen(each.existing_key_entry_id, path, candidates)
    wanted = each.wanted_key_id or key.id
    if wanted == key.id:
        return key
    try:
        ciphertext = provider_keys.resealed(
            key.ciphertext, model=model, key_id=key.id, new_key_id=wanted
        )
    except sealing.CannotOpen:
        message = "The key that is there does not open, so it cannot take another id."
        raise InvalidSeed.at(f"{path}.keyEntryId", message) from None
    return key.model_copy(update={"id": wanted, "ciphertext": ciphertext})


def _chosen(key_id: str | None, path: str, candidates: Sequence[tree.Key]) -> tree.Key:
    if key_id is None and candidates:
        return candidates[0]
    found = next((key for key in candidates if key.id == key_id), None)
    if found is not None:
        return found
    if key_id is None:
        message = "There is no key to keep: give one"
        raise InvalidSeed.at(f"{path}.plaintextKey", message)
    message = "There is no key of this id to keep"
    raise InvalidSeed.at(f"{path}.existingKeyEntryId", message)
