"""Password logins: the attempt is counted before the password is looked at.

What it does and answers is the same whether there is such an account or not.
"""

from __future__ import annotations

from datetime import datetime

from accounts import attempts, devices, users
from accounts.models import User


def knock(*, email: str, address: str, device_cookie: str, at: datetime) -> None:
    """Count one attempt to log in.

    Raises:
        TooManyAttempts: The password is not to be looked at.
    """
    # An unknown address takes as long as a known one.
    user = users.with_email(email) or User()
    attempts.take(
        account=users.as_compared(email),
        address=address,
        device=devices.known(user, cookie=device_cookie, at=at),
        at=at,
    )
