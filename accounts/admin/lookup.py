"""Finds people and keys by what an operator has in hand. Each answer comes through an index."""

from __future__ import annotations

from typing import Final

from accounts import credentials, users
from accounts.credentials import PUBLIC_ID_LENGTH
from accounts.models import KEY_PREFIX, APIKey, User

PREFIX: Final = KEY_PREFIX
"""What every API key begins with; `PUBLIC_ID_LENGTH` letters that may be shown follow."""


def user_at(email: str) -> str | None:
    """Return the id of the user with this address, in any case."""
    user = users.with_email(email)
    return user.pk if user else None


def is_user(user_id: str) -> bool:
    return User.objects.filter(pk=user_id).exists()


def key_id(public_id: str) -> int | None:
    """Return the row of the key with this public id."""
    keys = APIKey.objects.filter(public_id=public_id).values_list("pk", flat=True)
    return keys.order_by("pk").first()


def public_id_in(term: str) -> str | None:
    """Return the public id that `sk-airi-…` or a bare public id names; never the secret part."""
    public_id = credentials.public_id_of(term) if term.startswith(KEY_PREFIX) else term
    is_one = len(public_id) == PUBLIC_ID_LENGTH
    return public_id if is_one and credentials.BASE62.issuperset(public_id) else None


def has_customers() -> bool:
    """Return whether there is anybody who does not work here."""
    # Along an index, where `exists` would walk the table past everybody who does.
    people = User.objects.filter(is_staff=False).order_by("-created_at", "id")
    return people.values_list("pk", flat=True).first() is not None
