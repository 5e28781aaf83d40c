"""Staff with some permissions and no others, logged in to the console."""

from __future__ import annotations

from django.contrib.auth.models import Permission
from django.test import Client

from accounts.models import User
from tests.factories import accounts


def staff(client: Client, *permissions: str, **columns) -> User:
    """Log in somebody who may enter and has these permissions, as in `billing.grant_flux`."""
    user = accounts.user(is_staff=True, **columns)
    for permission in permissions:
        app, codename = permission.split(".")
        user.user_permissions.add(
            Permission.objects.get(content_type__app_label=app, codename=codename)
        )
    client.force_login(user)
    return user
