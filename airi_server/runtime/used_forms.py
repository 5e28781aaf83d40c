"""One-time form tokens: a reload, a way back or a double click acts once.

Each form brings a token of its own along. Whoever acts claims it, in the transaction that acts:
of two at once the second waits for the first, and is led to where that has led.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

from django.db import OperationalError
from psycopg.errors import LockNotAvailable

from airi_server.kernel import expiry, ids
from airi_server.kernel.errors import Conflict
from airi_server.runtime.models import UsedForm

TOKEN: Final = re.compile(r"[A-Za-z0-9_-]{8,64}")
KEPT: Final = timedelta(days=1)


class StillRunning(Conflict):
    """The same form was sent twice, and the first has not ended yet."""


def new_token() -> str:
    """Return the token of a form that is shown for the first time."""
    return ids.nanoid()


def is_token(given: str) -> bool:
    return TOKEN.fullmatch(given) is not None


def location_of(token: str) -> str | None:
    """Return where a form has led; None if it was not used."""
    used = UsedForm.objects.filter(pk=token).values_list("location", flat=True)
    return used.order_by("pk").first()


def first_time(token: str, *, at: datetime, act: Callable[[], str]) -> str | None:
    """Do what a form asks for, unless it was done; return None, or else where that has led.

    `act` returns where it leads. Call it in a transaction, which undoes the claim if `act` fails.

    Raises:
        StillRunning: It is being done.
    """
    try:
        used, is_first = UsedForm.objects.get_or_create(pk=token, defaults={"used_at": at})
    except OperationalError as error:
        if isinstance(error.__cause__, LockNotAvailable):
            raise StillRunning("This is being done already.") from error
        raise
    if not is_first:
        return used.location
    UsedForm.objects.filter(used_at__lt=at - KEPT).delete()
    used.location = act()
    used.save(update_fields=["location"])
    return None


def clear_expired(*, at: datetime) -> int:
    """Forget the forms that were used more than a day ago; return how many there were."""
    return expiry.clear(table="used_form", column="used_at", before=at - KEPT)
