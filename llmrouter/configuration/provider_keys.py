"""The router's own provider keys: sealed for one place and one origin, and opened only for both.

This is the one module that opens them. Whoever does says where the key is about to be sent; a key
that was entered for another origin does not open there. What is opened is zeroed after use.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from airi_server.kernel import sealing
from airi_server.kernel.errors import InvalidRequest
from llmrouter.configuration import origins, spelling, tree


class UnusableKey(InvalidRequest):
    """The text cannot be sent as a provider key. The message never quotes it."""


class KeyPlace(NamedTuple):
    """One key of a tree: where it stands, the model name that seals it, and where it is sent."""

    path: str
    model: str
    key: tree.ConfiguredKey
    origin: str


def places(config: tree.Tree) -> Iterator[KeyPlace]:
    """Yield every key of a tree, speech models included."""
    for surface, name, model in tree.models(config):
        for at, upstream in enumerate(model.upstreams):
            origin = origins.of(upstream.base_url)
            for index, key in enumerate(upstream.keys):
                path = f"{surface}.models.{name}.upstreams.{at}.keys.{index}"
                yield KeyPlace(path, name, key, origin)


def seal(plaintext: str, *, model: str, key_id: str, origin: str) -> str:
    """Seal a key for one place, and for the one origin it may be sent to.

    Raises:
        UnusableKey: It is empty, too long, or not printable ASCII without white space; or there
            is no such origin.
    """
    if origin == origins.NOWHERE:
        raise UnusableKey("The key has no address to be sent to.")
    return sealing.seal(
        checked(plaintext),
        purpose=sealing.PROVIDER_KEY,
        owner=model,
        name=key_id,
        origin=origin,
    )


def checked(plaintext: str) -> str:
    """Return the key, if an HTTP header can carry it.

    Raises:
        UnusableKey: An HTTP library would refuse it, and quote it in its error.
    """
    try:
        return spelling.key(plaintext)
    except ValueError as fault:
        raise UnusableKey(str(fault)) from None


def authorization(sealed: str, *, model: str, key_id: str, origin: str, template: str) -> str:
    """Return the header that carries a key to an origin.

    Raises:
        CannotOpen: It does not open here; `WrongOrigin` if it was entered for another origin.
    """
    secret = sealing.open_sealed(
        sealed, purpose=sealing.PROVIDER_KEY, owner=model, name=key_id, origin=origin
    )
    try:
        return template.replace("{KEY}", secret.decode(), 1)
    finally:
        secret[:] = bytes(len(secret))


def fingerprint(sealed: str, *, model: str, key_id: str, origin: str) -> str:
    """Return the fingerprint of a sealed key.

    Raises:
        CannotOpen: It does not open here.
        UnusableKey: It opens, but cannot be sent.
    """
    with _opened(sealed, model, key_id, origin) as secret:
        checked(secret.decode("utf-8", "replace"))
        return sealing.fingerprint(secret)


def is_sealed(plaintext: str, sealed: str, *, model: str, key_id: str, origin: str) -> bool:
    """Return whether `sealed` opens here and holds this very key."""
    try:
        with _opened(sealed, model, key_id, origin) as secret:
            return hmac.compare_digest(secret, plaintext.encode())
    except sealing.CannotOpen:
        return False


def resealed(
    sealed: str, *, model: str, key_id: str, origin: str, new_key_id: str | None = None
) -> str:
    """Return the same key for the same origin, under the current master key.

    And under another id if one is given. A key that has no address stays without one.

    Raises:
        CannotOpen: It does not open here.
    """
    with _opened(sealed, model, key_id, origin) as secret:
        return sealing.seal(
            secret.decode(),
            purpose=sealing.PROVIDER_KEY,
            owner=model,
            name=new_key_id or key_id,
            origin=origin,
        )


@contextmanager
def _opened(sealed: str, model: str, key_id: str, origin: str) -> Iterator[bytearray]:
    """Lend the secret, and zero it afterwards."""
    secret = sealing.open_sealed(
        sealed, purpose=sealing.PROVIDER_KEY, owner=model, name=key_id, origin=origin
    )
    try:
        yield secret
    finally:
        secret[:] = bytes(len(secret))
