"""A capability's configuration, sealed: it holds keys that only the character's owner may see."""

from __future__ import annotations

from typing import Final

from airi_server.kernel import sealing

PURPOSE: Final = "character-capability"


def seal(plaintext: str, *, character_id: str, capability_id: str) -> str:
    """Seal under the current master key; only the same two ids open it again."""
    return sealing.seal(plaintext, purpose=PURPOSE, owner=character_id, name=capability_id)


def open_sealed(sealed: str, *, character_id: str, capability_id: str) -> str:
    """Return what was sealed, under the current or the previous master key.

    Raises:
        CannotOpen: It is not one of ours, was changed, or belongs to another capability.
    """
    secret = sealing.open_sealed(sealed, purpose=PURPOSE, owner=character_id, name=capability_id)
    try:
        return secret.decode()
    finally:
        secret[:] = bytes(len(secret))
