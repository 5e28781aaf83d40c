"""User deletion: each app deletes its own part, in the contract's order (§9.10).

Whoever deletes the user calls `delete_user_data` first, and removes the row once it has returned.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from operator import attrgetter
from typing import Final

from django.core.exceptions import ImproperlyConfigured

import chats.characters.deletion
import chats.deletion
from billing import account_state, grants
from billing.usage import refusals

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Handler:
    """One room's part: called with `user_id` and `at`, and again after anything failed."""

    priority: int
    name: str
    delete: Callable[..., None]


def in_order(*handlers: Handler) -> tuple[Handler, ...]:
    """Return handlers by priority; equal ones as they are written.

    Raises:
        ImproperlyConfigured: Two have one name. The server does not start then.
    """
    names = [handler.name for handler in handlers]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ImproperlyConfigured(f"Two deletion handlers are called {', '.join(twice)}.")
    return tuple(sorted(handlers, key=attrgetter("priority")))


HANDLERS: Final = in_order(
    Handler(20, "flux", account_state.close),
    Handler(20, "grants", grants.erase_addresses),
    Handler(30, "characters", chats.characters.deletion.delete_user_data),
    Handler(30, "chats", chats.deletion.delete_user_data),
    Handler(30, "refusals", refusals.forget),
)


def delete_user_data(
    *, user_id: str, at: datetime, handlers: tuple[Handler, ...] = HANDLERS
) -> None:
    """Run every handler, one after the other; the first error ends it and is raised.

    Not one transaction: somebody's chats may be millions of messages, and whoever sends meanwhile
    would wait for their locks. Instead each handler commits as it goes and does nothing the
    second time, so that calling again goes on where the last call has ended.
    """
    for handler in handlers:
        handler.delete(user_id=user_id, at=at)
        logger.info("Deleted a part of a user's data", extra={"handler": handler.name})
