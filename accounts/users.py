"""Users: created, changed, banned, deleted.

Whoever is banned loses every credential at once; sessions end because the authentication
backend (`accounts.backends`) looks at the ban on every request. Whatever keeps somebody out makes
the devices unknown that were known until then (`accounts.devices`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Final, TypedDict, Unpack

from django.contrib.auth.hashers import make_password
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.db import IntegrityError, connection, transaction
from django.db.models import Case, Value, When
from django.db.models.functions import Lower
from django.db.models.lookups import Exact

from accounts.models import User
from airi_server.kernel.errors import Conflict, InvalidRequest, NotFound
from airi_server.runtime import published

MAX_EMAIL: Final = 254
MAX_PASSWORD: Final = 128


class InvalidEmail(InvalidRequest):
    """Not an address mail could be sent to."""

    code = "INVALID_EMAIL"


class WeakPassword(InvalidRequest):
    """Too short, too long, or on a list."""


class EmailTaken(Conflict):
    """Somebody has this address, perhaps in another case."""


class UserColumns(TypedDict, total=False):
    """What an operator may change about a person."""

    name: str
    email: str
    is_active: bool
    is_staff: bool
    is_superuser: bool


def create(
    *,
    email: str,
    password: str | None,
    at: datetime,
    verified: bool = False,
    is_staff: bool = False,
    is_superuser: bool = False,
) -> User:
    """Register a user. The same address in another case is the same user.

    Without a password they log in elsewhere, or not at all.

    Raises:
        InvalidEmail, WeakPassword: Nothing was written.
        EmailTaken: The address has a user; nothing was written.
    """
    _check_email(email)
    _check_password(password)
    with _refusing_emails(), transaction.atomic():
        return User.objects.create_user(
            email,
            password,
            at=at,
            email_verified=verified,
            is_staff=is_staff,
            is_superuser=is_superuser,
        )


@contextmanager
def _refusing_emails() -> Iterator[None]:
    """Turn what the database says about an address into a refusal."""
    try:
        yield
    except IntegrityError as error:
        if "user_email_uniq" in str(error):
            raise EmailTaken("This address is already in use.") from None
        if "user_email_shape" in str(error):
            raise InvalidEmail("This is not an e-mail address.") from None
        raise


def _check_email(email: str) -> None:
    if len(email) > MAX_EMAIL:
        raise InvalidEmail("This is not an e-mail address.")
    try:
        validate_email(email)
    except ValidationError:
        raise InvalidEmail("This is not an e-mail address.") from None


def _check_password(password: str | None) -> None:
    if password is None:
        return
    if len(password) > MAX_PASSWORD or "\x00" in password:
        raise WeakPassword(f"A password has at most {MAX_PASSWORD} characters.")
    try:
        validate_password(password)
    except ValidationError as weak:
        raise WeakPassword(" ".join(weak.messages)) from None


def with_email(email: str) -> User | None:
    """Return the user with this address, in any case."""
    try:
        return User.objects.get_by_natural_key(email)
    except User.DoesNotExist:
        return None


def as_compared(email: str) -> str:
    """Return an address as the database compares it: what is one user's is one text.

    Python's lower case is another one: of `İ` it makes two letters, PostgreSQL an `i`.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT lower(%s)", [email])
        (compared,) = cursor.fetchone()
    return str(compared)


def emails_of(user_ids: Collection[str]) -> dict[str, str]:
    """Return the addresses of those users that still exist, by their id, in one query."""
    return dict(User.objects.filter(pk__in=set(user_ids)).values_list("pk", "email"))


def with_emails(emails: Collection[str]) -> dict[str, User]:
    """Return the users with these addresses, in any case, by the address in lower case."""
    wanted = [Lower(Value(email)) for email in emails]
    found = User.objects.alias(lower_email=Lower("email")).filter(lower_email__in=wanted)
    return {user.email.lower(): user for user in found}


def verify(*, user_id: str, at: datetime) -> None:
    """Record that the user owns the address; again changes nothing.

    Raises:
        NotFound: There is no such user.
    """
    _update(user_id, email_verified=True, updated_at=at)


def set_password(*, user_id: str, password: str, at: datetime) -> None:
    """Replace the password; every session of the user ends, and no device is known any more.

    Raises:
        WeakPassword: Nothing was changed.
        NotFound: There is no such user.
    """
    _check_password(password)
    _update(user_id, password=make_password(password), devices_reset_at=at, updated_at=at)


def change(*, user_id: str, at: datetime, **columns: Unpack[UserColumns]) -> None:
    """Change what is named and leave the rest; credentials follow at once.

    A new address is nobody's until it is verified again; another case of the old one is.

    Raises:
        InvalidEmail, EmailTaken: Nothing was changed.
        NotFound: There is no such user.
    """
    follow: dict[str, object] = {}
    if "email" in columns:
        _check_email(columns["email"])
        is_same = Exact(Lower("email"), Lower(Value(columns["email"])))
        follow["email_verified"] = Case(When(is_same, then="email_verified"), default=False)
    if columns.get("is_active") is False:
        follow["devices_reset_at"] = at
    with _refusing_emails(), transaction.atomic():
        _update(user_id, **columns, **follow, updated_at=at)
        published.announce("credentials")


def ban(*, user_id: str, reason: str, until: datetime | None, at: datetime) -> None:
    """Refuse every credential of a user from now on, until `until` or for good.

    A second ban replaces the first.

    Raises:
        InvalidRequest: The end is not in the future.
        NotFound: There is no such user.
    """
    if until is not None and until <= at:
        raise InvalidRequest("A ban must end in the future.", param="until")
    with transaction.atomic():
        _update(
            user_id,
            banned=True,
            ban_reason=reason,
            ban_expires_at=until,
            devices_reset_at=at,
            updated_at=at,
        )
        published.announce("credentials")


def unban(*, user_id: str, at: datetime) -> None:
    """End a ban; of somebody who is not banned, nothing.

    Raises:
        NotFound: There is no such user.
    """
    with transaction.atomic():
        _update(user_id, banned=False, ban_reason="", ban_expires_at=None, updated_at=at)
        published.announce("credentials")


def _update(user_id: str, **columns: object) -> None:
    if not User.objects.filter(pk=user_id).update(**columns):
        raise NotFound("There is no such user.")
