"""A capability's configuration, sealed: it holds keys that only the character's owner may see.

`v2.<master key id>.<salt>.<iv>.<commitment>.<ciphertext and tag>`, the parts after the second in
base64url without padding: AES-256-GCM under the first half of what HKDF-SHA256 derives from the
master key and the salt; the second half is the commitment. Bound to it, each with its length
before it: `airi-sealed-v2`, the master key's id, the purpose, the character's id and the
capability's. These are the words of the seals on provider keys, under a purpose of their own.
"""

from __future__ import annotations

import base64
import hmac
import os
import struct
from functools import lru_cache
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from django.conf import settings

PURPOSE: Final = "character-capability"
VERSION: Final = "v2"
SALT_BYTES: Final = 16
IV_BYTES: Final = 12

MasterKey = tuple[str, bytes]


class CannotOpen(Exception):
    """A sealed text did not open. The message never quotes it."""


def seal(plaintext: str, *, character_id: str, capability_id: str) -> str:
    """Seal under the current master key; only the same two ids open it again."""
    (key_id, secret), *_ = _ring()
    salt, iv = os.urandom(SALT_BYTES), os.urandom(IV_BYTES)
    cipher, commitment = _derived(secret, salt)
    context = _context(key_id, character_id, capability_id)
    sealed = cipher.encrypt(iv, plaintext.encode(), context)
    return ".".join((VERSION, key_id, *map(_encoded, (salt, iv, commitment, sealed))))


def open_sealed(sealed: str, *, character_id: str, capability_id: str) -> str:
    """Return what was sealed, under the current or the previous master key.

    Raises:
        CannotOpen: It is not one of ours, was changed, or belongs to another capability.
    """
    try:
        version, key_id, *parts = sealed.split(".")
        salt, iv, commitment, text = map(_decoded, parts)
    except ValueError:
        raise CannotOpen("The sealed text does not have its parts.") from None
    secret = dict(_ring()).get(key_id)
    if version != VERSION or secret is None:
        raise CannotOpen("The sealed text names a version or a master key we do not have.")
    cipher, expected = _derived(secret, salt)
    if not hmac.compare_digest(commitment, expected):
        raise CannotOpen("The sealed text was not sealed under the key it names.")
    try:
        return cipher.decrypt(iv, text, _context(key_id, character_id, capability_id)).decode()
    except (InvalidTag, ValueError):
        raise CannotOpen("The sealed text was changed, or is another capability's.") from None


def _ring() -> tuple[MasterKey, ...]:
    return _master_keys(settings.LLM_ROUTER_MASTER_KEY, settings.LLM_ROUTER_MASTER_KEY_PREVIOUS)


@lru_cache(maxsize=4)
def _master_keys(*texts: str) -> tuple[MasterKey, ...]:
    """Return the keys with their ids; that they are 32 bytes is checked when we start."""
    secrets = [base64.b64decode(text, validate=True) for text in texts if text]
    return tuple((_hkdf(key, b"master-key-id", 4).hex(), key) for key in secrets)


def _derived(secret: bytes, salt: bytes) -> tuple[AESGCM, bytes]:
    derived = _hkdf(secret, b"llm-router-v2", 64, salt=salt)
    return AESGCM(derived[:32]), derived[32:]


def _context(*words: str) -> bytes:
    key_id, *ids = words
    fields = [word.encode() for word in ("airi-sealed-v2", key_id, PURPOSE, *ids)]
    return b"".join(struct.pack(">I", len(word)) + word for word in fields)


def _hkdf(secret: bytes, info: bytes, length: int, *, salt: bytes = b"llm-router-v2") -> bytes:
    """HKDF-SHA256 (RFC 5869)."""
    prk, block, made = hmac.digest(salt, secret, "sha256"), b"", b""
    for counter in range(1, -(-length // 32) + 1):
        block = hmac.digest(prk, block + info + bytes((counter,)), "sha256")
        made += block
    return made[:length]


def _encoded(part: bytes) -> str:
    return base64.urlsafe_b64encode(part).rstrip(b"=").decode()


def _decoded(part: str) -> bytes:
    raw = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    if _encoded(raw) != part:
        raise ValueError("not the one spelling there is")
    return raw
