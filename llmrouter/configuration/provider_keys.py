"""The router's own provider keys: what one may consist of, and sealing it for its place."""

from __future__ import annotations

import hmac
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

from airi_server.kernel import sealing
from airi_server.kernel.errors import InvalidRequest
from llmrouter.configuration import tree

MAX_LENGTH: Final = 8192


class UnusableKey(InvalidRequest):
    """The text cannot be sent as a provider key. The message never quotes it."""


class Place(NamedTuple):
    """One key of a tree: where it stands, and the model name that seals it."""

    path: str
    model: str
    key: tree.Key


def places(config: tree.Tree) -> Iterator[Place]:
    """Yield every key of a tree, speech models included."""
    models = [(tree.LLM, name, model.upstreams) for name, model in config.llm.models.items()]
    speech = [(tree.TTS, name, model.upstreams) for name, model in config.tts.models.items()]
    for surface, name, upstreams in [*models, *speech]:
        for at, upstream in enumerate(upstreams):
            for index, key in enumerate(upstream.keys):
                path = f"{surface}.models.{name}.upstreams.{at}.keys.{index}"
                yield Place(path, name, key)


def seal(plaintext: str, *, model: str, key_id: str) -> str:
    """Seal a key for one place.

    Raises:
        UnusableKey: It is empty, too long, or not printable ASCII without white space.
    """
    return sealing.seal(checked(plaintext), purpose=sealing.PROVIDER_KEY, owner=model, name=key_id)


def checked(plaintext: str) -> str:
    """Return the key, if an HTTP header can carry it.

    Raises:
        UnusableKey: An HTTP library would refuse it, and quote it in its error.
    """
    if not plaintext:
        raise UnusableKey("The key is empty.")
    if len(plaintext) > MAX_LENGTH:
        raise UnusableKey(f"The key is longer than {MAX_LENGTH} characters.")
    if not all("!" <= character <= "~" for character in plaintext):
        raise UnusableKey("The key must be printable ASCII without white space.")
    return plaintext


def fingerprint(sealed: str, *, model: str, key_id: str) -> str:
    """Return the fingerprint of a sealed key.

    Raises:
        CannotOpen: It does not open here.
        UnusableKey: It opens, but cannot be sent.
    """
    with _opened(sealed, model, key_id) as secret:
        checked(secret.decode("utf-8", "replace"))
        return sealing.fingerprint(secret)


def is_sealed(plaintext: str, sealed: str, *, model: str, key_id: str) -> bool:
    """Return whether `sealed` opens here and holds this very key."""
    try:
        with _opened(sealed, model, key_id) as secret:
            return hmac.compare_digest(secret, plaintext.encode())
    except sealing.CannotOpen:
        return False


def resealed(sealed: str, *, model: str, key_id: str, new_key_id: str | None = None) -> str:
    """Return the same key under the current master key, and under another id if one is given.

    Raises:
        CannotOpen: It does not open here.
    """
    with _opened(sealed, model, key_id) as secret:
        return sealing.seal(
            secret.decode(),
            purpose=sealing.PROVIDER_KEY,
            owner=model,
            name=new_key_id or key_id,
        )


@contextmanager
def _opened(sealed: str, model: str, key_id: str) -> Iterator[bytearray]:
    """Lend the secret, and zero it afterwards."""
    secret = sealing.open_sealed(sealed, purpose=sealing.PROVIDER_KEY, owner=model, name=key_id)
    try:
        yield secret
    finally:
        secret[:] = bytes(len(secret))
