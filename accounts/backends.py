"""Authentication backend for passwords; somebody who is banned does not get in."""

from __future__ import annotations

from datetime import UTC, datetime

from django.contrib.auth.backends import ModelBackend
from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.auth.models import AnonymousUser

from accounts.models import User


class AccountBackend(ModelBackend):
    """Django's backend that also asks about bans, at login and on each request of a session."""

    def user_can_authenticate(self, user: AbstractBaseUser | AnonymousUser | None) -> bool:
        return (
            isinstance(user, User)
            and super().user_can_authenticate(user)
            and not user.is_banned(datetime.now(UTC))
        )
