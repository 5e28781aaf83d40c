"""What a first start finds: a user with a key and Flux, an operator, and one model routed.

Seeding again changes nothing that is there. Import this only after Django's set-up.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Final

from accounts import auth, keys, users
from airi_server.kernel.errors import DomainError
from airi_server.launch import processes
from airi_server.launch.upstreams import Upstream
from billing import ledger
from llmrouter.configuration import seeding

_USER: Final = "demo@example.com"
_ADMIN: Final = "admin@example.com"
_BY: Final = "launcher"
_FLUX: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Demo:
    """Everything needed to use what was seeded."""

    api_key: str
    user_email: str
    user_password: str
    admin_email: str
    admin_password: str

    def as_dict(self) -> dict[str, str]:
        return asdict(self)


def seed(*, kept: Mapping[str, str], upstream: Upstream, at: datetime) -> Demo:
    """Make what is missing, reusing the passwords and the key of the last start.

    Args:
        kept: The last start's Demo as a mapping; empty on the first.
        upstream: Where `chat-default` goes from now on.
        at: The time everything made now is dated.
    """
    user_id, user_password = _person(_USER, kept.get("user_password"), is_operator=False, at=at)
    _, admin_password = _person(_ADMIN, kept.get("admin_password"), is_operator=True, at=at)
    api_key = _api_key(user_id, kept.get("api_key"), at=at)
    ledger.grant(
        user_id=user_id,
        amount=_FLUX,
        request_id="demo-grant",
        description="Demo Flux",
        by=_BY,
        at=at,
    )
    route_chat_default(upstream.base_url, upstream.model, upstream.key, at=at)
    return Demo(
        api_key=api_key,
        user_email=_USER,
        user_password=user_password,
        admin_email=_ADMIN,
        admin_password=admin_password,
    )


def route_chat_default(base_url: str, upstream_model: str, key: str, *, at: datetime) -> None:
    seeding.route_chat(
        model_name="chat-default",
        base_url=base_url,
        override_model=upstream_model,
        plaintext_key=key,
        key_id="demo-1",
        by=_BY,
        at=at,
    )


def _person(
    email: str, password: str | None, *, is_operator: bool, at: datetime
) -> tuple[str, str]:
    """Find or make a user; a password nobody kept is replaced, since nobody can know it."""
    known = password or secrets.token_urlsafe(12)
    user = users.with_email(email)
    if user is None:
        user = users.create(
            email=email,
            password=known,
            verified=True,
            is_staff=is_operator,
            is_superuser=is_operator,
            at=at,
        )
    elif password is None:
        users.set_password(user_id=user.id, password=known, at=at)
    return user.id, known


def _api_key(user_id: str, kept: str | None, *, at: datetime) -> str:
    if kept and _opens(kept, user_id, at=at):
        return kept
    _, secret = keys.create(
        user_id=user_id,
        name="Demo",
        at=at,
        # No limit, where None would be the operator's default: a first benchmark is no abuse.
        requests_per_minute=0,
        tokens_per_minute=0,
        parallel_requests=0,
    )
    return secret


def _opens(key: str, user_id: str, *, at: datetime) -> bool:
    """Tell whether a key kept from another start still speaks for this user."""
    try:
        principal = auth.authenticate_sync(f"Bearer {key}", address=processes.LOOPBACK, at=at)
    except DomainError:
        return False
    return principal.user_id == user_id
