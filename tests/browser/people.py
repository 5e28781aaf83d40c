"""Whom the browser tests are about: operators with permissions, users with Flux."""

from __future__ import annotations

import itertools

from django.contrib.auth.hashers import PBKDF2PasswordHasher
from django.contrib.auth.models import Permission

from accounts.models import User
from tests.factories import accounts

PASSWORD = "correct horse battery"
_numbers = itertools.count(1)


def person(name: str) -> User:
    """Return a new user whose address nobody else has in this run."""
    return accounts.user(email=f"{name}.{next(_numbers)}@example.com")


def operator(*permissions: str, **columns) -> User:
    """Return a member of staff who may do just this: `billing.grant_flux`, ...."""
    user = person("operator")
    changes = {"is_staff": True, "email_verified": True, **columns}
    User.objects.filter(pk=user.pk).update(**changes)
    user.user_permissions.set([_permission(name) for name in permissions])
    user.refresh_from_db()
    return user


def with_password(user: User) -> User:
    """Give a password that the server's own settings can check; the tests' hasher is not theirs."""
    encoded = PBKDF2PasswordHasher().encode(PASSWORD, "salt-of-the-tests-22chars", 1000)
    User.objects.filter(pk=user.pk).update(password=encoded)
    return user


def _permission(name: str) -> Permission:
    app, codename = name.split(".")
    return Permission.objects.get(content_type__app_label=app, codename=codename)
