"""What a first start finds: a user with a key and Flux, an operator, and one model routed.

Seeding again changes nothing that is there, and routes are an operator's once somebody else has
published (ADR 0044). Import this only after Django's set-up.
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
from airi_server.launch.upstreams import LaunchUpstream
from airi_server.runtime.options import ConfigNotSet
from billing import ledger
from llmrouter.configuration import publishing
from llmrouter.configuration.options import DEFAULT_CHAT_MODEL
from llmrouter.configuration.seeding import seed as seeding

MODEL: Final = "chat-default"
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


def seed(*, kept: Mapping[str, str], at: datetime) -> Demo:
    """Make what is missing, reusing the passwords and the key of the last start.

    Args:
        kept: The last start's Demo as a mapping; empty on the first.
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
    return Demo(
        api_key=api_key,
        user_email=_USER,
        user_password=user_password,
        admin_email=_ADMIN,
        admin_password=admin_password,
    )


def routed() -> set[str] | None:
    """Return the base URLs that chat models go to; None if nothing has ever been published."""
    if publishing.newest() is None:
        return None
    models = publishing.current_tree().llm.models.values()
    return {upstream.base_url for model in models for upstream in model.upstreams}


def route(upstream: LaunchUpstream, *, at: datetime) -> bool:
    """Have `chat-default` go to an upstream, unless a later revision has been published.

    It becomes what `auto` means if nobody has ever said what that is.

    Returns:
        Whether it goes there now.
    """
    newest = publishing.newest()
    if newest is not None and newest.published_by != _BY:
        return upstream.base_url in (routed() or ())
    seeding.route_chat(
        model_name=MODEL,
        base_url=upstream.base_url,
        override_model=upstream.model,
        plaintext_key=upstream.key,
        key_id="demo-1",
        by=_BY,
        at=at,
        is_default=_default() is None,
    )
    return True


@dataclass(frozen=True, slots=True)
class FirstTarget:
    """What to call a chat model in a first request, and where that goes."""

    model: str
    base_url: str
    description: str


def target() -> FirstTarget:
    """Return what a newcomer's request should ask for: our model, or whatever `auto` is."""
    models = publishing.current_tree().llm.models
    name = MODEL if MODEL in models else _default()
    if name not in models:
        return FirstTarget("auto", "", "none: no model is routed, or none is the default")
    upstream = models[name].upstreams[0]
    where = f"{name} is routed to {upstream.base_url} ({upstream.override_model or name})"
    return FirstTarget(name, upstream.base_url, where)


def _default() -> str | None:
    try:
        model: str = DEFAULT_CHAT_MODEL.read()
    except ConfigNotSet:
        return None
    return model


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
