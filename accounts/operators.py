"""Who may call the operators' API, and for what: one permission for each action.

A verified address on `ADMIN_EMAILS` may do everything this API offers (contract §9.8); anybody
else needs to be staff and to hold the permission, exactly as in the console.
"""

from __future__ import annotations

from django.conf import settings

from accounts import keys
from accounts.auth import Principal
from accounts.keys import RestrictedKey
from accounts.models import User
from airi_server.kernel.errors import Forbidden
from airi_server.runtime.audit import Actor

ADMIN_ONLY = "Admin access required"


def ensure(principal: Principal, permission: str) -> Actor:
    """Return the operator a caller is, if they may do this.

    Raises:
        Forbidden: Not verified, not an operator, without this permission, or with a key that may
            do less than its owner.
    """
    user = User.objects.get(pk=principal.user_id)
    if not user.email_verified:
        raise Forbidden("Admin access requires a verified email")
    if not (is_listed(user.email) or (user.is_staff and user.has_perm(permission))):
        raise Forbidden(ADMIN_ONLY)
    try:
        keys.ensure_may_manage(user_id=user.pk, public_id=principal.api_key_id)
    except RestrictedKey:
        raise Forbidden(ADMIN_ONLY) from None
    return Actor.of(user)


def is_listed(email: str) -> bool:
    """Whether this address, once verified, may do everything."""
    return email.lower() in settings.ADMIN_EMAILS


def has_powers(user: User) -> bool:
    """Whether somebody may do more than use the service, or could after a verification."""
    return user.is_staff or user.is_superuser or is_listed(user.email)
