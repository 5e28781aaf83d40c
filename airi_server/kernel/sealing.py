"""Sealed secrets: AES-256-GCM under a key of their own, derived from the master key.

`v1.<iv>.<ciphertext>.<tag>` is the contract's format (§3.6) and is only read. What we write is
`v2.<master key id>.<salt>.<iv>.<commitment>.<ciphertext and tag>`: the id says which master key,
the commitment makes a text open under one key only, and the context is bound as length-prefixed
fields, so no two contexts can be spelled alike. A secret that is sent somewhere is sealed for one
origin, as `v3`: that names the origin before the ciphertext and binds it like the rest.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import struct
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from airi_server.kernel.settled import Settled

PROVIDER_KEY: Final = "provider-key"
"""Purpose of the router's keys, of a model and with an id there. `v1` has no other."""

SALT_BYTES: Final = 16
IV_BYTES: Final = 12
TAG_BYTES: Final = 16
MAX_PREPARED: Final = 4096


class CannotOpen(Exception):
    """A sealed text did not open. The message never quotes it."""


class MalformedSeal(CannotOpen):
    """It does not have the parts its version has, or they are not base64url."""


class UnknownVersion(CannotOpen):
    """It is sealed in a format we do not read, or not for this purpose."""


class UnknownMasterKey(CannotOpen):
    """It names a master key that is neither the current nor the previous one."""


class CommitmentMismatch(CannotOpen):
    """It names our master key but was not sealed under it."""


class WrongOrigin(CannotOpen):
    """It is sealed for another origin than the one its secret would be sent to.

    The origin in the message is what the text says, which only opening it would prove.
    """


class Tampered(CannotOpen):
    """The text was changed, or belongs to another purpose, owner or name."""


@dataclass(frozen=True, slots=True)
class MasterKey:
    """One master key. `id` is derived from it, and may be shown."""

    id: str
    secret: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, eq=False)
class MasterKeys:
    """The key new secrets are sealed under, first, and the one they may still be under."""

    ring: tuple[MasterKey, ...]

    @property
    def current(self) -> MasterKey:
        return self.ring[0]


@dataclass(frozen=True, slots=True)
class _Prepared:
    """Everything about a sealed text that opening it needs, and nothing secret of its content."""

    ciphers: tuple[AESGCM, ...]
    iv: bytes
    sealed: bytes
    context: bytes


def master_keys() -> MasterKeys:
    """Return the master keys of the settings.

    Raises:
        ImproperlyConfigured: One of them is not base64 of exactly 32 bytes.
    """
    return _settled_keys()


@lru_cache(maxsize=4)
def _master_keys(current: str, previous: str) -> MasterKeys:
    ring = [_master_key("LLM_ROUTER_MASTER_KEY", current)]
    if previous:
        ring.append(_master_key("LLM_ROUTER_MASTER_KEY_PREVIOUS", previous))
    return MasterKeys(tuple(ring))


_settled_keys: Final = Settled(
    lambda: _master_keys(settings.LLM_ROUTER_MASTER_KEY, settings.LLM_ROUTER_MASTER_KEY_PREVIOUS)
)


def _master_key(setting: str, text: str) -> MasterKey:
    try:
        secret = base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error):
        secret = b""
    if len(secret) != 32:
        # `from None`: a chained error would show the key in a boot log's traceback.
        raise ImproperlyConfigured(f"{setting} must be base64 of exactly 32 bytes") from None
    return MasterKey(_hkdf(secret, b"llm-router-v2", b"master-key-id", 4).hex(), secret)


def seal(plaintext: str, *, purpose: str, owner: str, name: str, origin: str = "") -> str:
    """Seal under the current master key. The same words are needed to open it.

    Args:
        plaintext: The secret.
        purpose: What kind of secret it is.
        owner: Id of what it belongs to: of a model, of a character.
        name: Its own id there.
        origin: Scheme, host and port it may be sent to; empty for a secret that is sent nowhere.
    """
    master, salt, iv = master_keys().current, os.urandom(SALT_BYTES), os.urandom(IV_BYTES)
    cipher, commitment = _derived(master, salt)
    version, place = ("v3", (origin,)) if origin else ("v2", ())
    context = _context(version, master.id, purpose, owner, name, *place)
    sealed = cipher.encrypt(iv, plaintext.encode(), context)
    parts = (salt, iv, commitment, *(word.encode() for word in place), sealed)
    return ".".join((version, master.id, *map(_encoded, parts)))


def open_sealed(sealed: str, *, purpose: str, owner: str, name: str, origin: str = "") -> bytearray:
    """Return the secret in a buffer of the caller's, who zeroes it after use.

    `origin` is where the secret is about to be sent. Texts before `v3` are for no origin: whoever
    sends what they hold has to know from elsewhere where it may go.

    Raises:
        MalformedSeal, UnknownVersion, UnknownMasterKey, CommitmentMismatch, WrongOrigin, Tampered:
            Why not.
    """
    prepared = _prepared(sealed, purpose, owner, name, origin, master_keys())
    secret = bytearray(len(prepared.sealed) - TAG_BYTES)
    for cipher in prepared.ciphers:
        try:
            cipher.decrypt_into(prepared.iv, prepared.sealed, prepared.context, secret)
        except InvalidTag:
            # It holds what it was decrypted to: if only the place is wrong, the secret itself.
            secret[:] = bytes(len(secret))
            continue
        return secret
    raise Tampered("The sealed text was changed, or belongs to another place.")


def key_id_of(sealed: str) -> str:
    """Return the id of the master key a text names; `v1` texts name none and answer `v1`."""
    version, _, rest = sealed.partition(".")
    return rest.partition(".")[0] if version in ("v2", "v3") else version


def origin_of(sealed: str) -> str | None:
    """Return the origin a text says it is sealed for; None if it says none.

    Only opening it there proves that it is so.
    """
    parts = sealed.split(".")
    try:
        return _prepared_origin(parts) if parts[0] == "v3" else None
    except MalformedSeal:
        return None


def fingerprint(plaintext: str | bytes | bytearray) -> str:
    """Return the eight hex digits by which people recognize a key they cannot read."""
    secret = plaintext.encode() if isinstance(plaintext, str) else plaintext
    return hashlib.sha256(secret).hexdigest()[:8]


@lru_cache(maxsize=MAX_PREPARED)
def _prepared(
    sealed: str, purpose: str, owner: str, name: str, origin: str, keys: MasterKeys
) -> _Prepared:
    """Parse and derive once for each text. What is kept are AEAD objects, never a secret."""
    parts = sealed.split(".")
    if parts[0] == "v1" and purpose == PROVIDER_KEY:
        return _prepared_v1(parts, f"{owner}|{name}".encode(), keys)
    if parts[0] == "v2":
        return _prepared_v2(parts, (purpose, owner, name), keys)
    if parts[0] == "v3":
        return _prepared_v3(parts, (purpose, owner, name), origin, keys)
    if len(parts) not in (4, 6, 7):
        raise MalformedSeal(f"A sealed text has 4, 6 or 7 parts, not {len(parts)}.")
    raise UnknownVersion("The sealed text has a version we do not read.")


def _prepared_v1(parts: list[str], context: bytes, keys: MasterKeys) -> _Prepared:
    iv, text, tag = _decoded(parts, (IV_BYTES, None, TAG_BYTES))
    derive = (_hkdf(k.secret, b"llm-router-v1", b"provider-key-encryption", 32) for k in keys.ring)
    return _Prepared(tuple(AESGCM(secret) for secret in derive), iv, text + tag, context)


def _prepared_v2(parts: list[str], words: tuple[str, ...], keys: MasterKeys) -> _Prepared:
    salt, iv, commitment, sealed = _decoded(parts, (SALT_BYTES, IV_BYTES, 32, None), skip=2)
    master = next((key for key in keys.ring if key.id == parts[1]), None)
    if master is None:
        raise UnknownMasterKey("The sealed text names a master key we do not have.")
    cipher, expected = _derived(master, salt)
    if not hmac.compare_digest(commitment, expected):
        raise CommitmentMismatch("The sealed text was not sealed under the key it names.")
    if len(sealed) < TAG_BYTES:
        raise MalformedSeal("The sealed text is too short.")
    return _Prepared((cipher,), iv, sealed, _context(parts[0], master.id, *words))


def _prepared_v3(
    parts: list[str], words: tuple[str, str, str], origin: str, keys: MasterKeys
) -> _Prepared:
    """As `v2`, once it is known that the secret would go where it may."""
    entered_for = _prepared_origin(parts)
    if origin != entered_for:
        raise WrongOrigin(f"It is sealed for {entered_for}.")
    return _prepared_v2([*parts[:5], parts[6]], (*words, origin), keys)


def _prepared_origin(parts: list[str]) -> str:
    if len(parts) != 7:
        raise MalformedSeal(f"A v3 text has 7 parts, not {len(parts)}.")
    [raw] = _decoded(parts[:1] + parts[5:6], (None,))
    if not (raw.isascii() and raw.decode("ascii").isprintable() and raw):
        raise MalformedSeal("The sealed text names no origin.")
    return raw.decode("ascii")


def _derived(master: MasterKey, salt: bytes) -> tuple[AESGCM, bytes]:
    """Return the cipher of one secret and the commitment to its key."""
    derived = _hkdf(master.secret, salt, b"llm-router-v2", 64)
    return AESGCM(derived[:32]), derived[32:]


def _context(version: str, *words: str) -> bytes:
    fields = [word.encode() for word in (f"airi-sealed-{version}", *words)]
    return b"".join(struct.pack(">I", len(word)) + word for word in fields)


def _hkdf(secret: bytes, salt: bytes, info: bytes, length: int) -> bytes:
    """HKDF-SHA256 (RFC 5869), at a third of the price of the library's object."""
    prk, block, made = hmac.digest(salt, secret, "sha256"), b"", b""
    for counter in range(1, -(-length // 32) + 1):
        block = hmac.digest(prk, block + info + bytes((counter,)), "sha256")
        made += block
    return made[:length]


def _encoded(part: bytes) -> str:
    return base64.urlsafe_b64encode(part).rstrip(b"=").decode()


def _decoded(parts: list[str], sizes: tuple[int | None, ...], *, skip: int = 1) -> list[bytes]:
    """Decode what follows the first `skip` parts; only the canonical spelling is accepted."""
    if len(parts) != skip + len(sizes):
        raise MalformedSeal(f"A {parts[0]} text has {skip + len(sizes)} parts, not {len(parts)}.")
    made = []
    for part, size in zip(parts[skip:], sizes, strict=True):
        try:
            raw = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
        except ValueError:
            raw = b""
        if _encoded(raw) != part or (size is not None and len(raw) != size):
            raise MalformedSeal("A part of the sealed text is not the base64url it should be.")
        made.append(raw)
    return made
