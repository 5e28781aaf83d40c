"""Who calls and where the calls go: users with plenty of Flux, keys without limits, one route.

Import this only after Django's set-up.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from accounts import keys, users
from billing import ledger
from llmrouter.configuration.seeding import seed
from tests.bench import upstream

MODEL: Final = "chat-default"
_FLUX: Final = 1_000_000_000
_BY: Final = "bench"


def callers(count: int) -> list[str]:
    """Make users and return a key of each."""
    return [_caller(number, at=datetime.now(UTC)) for number in range(count)]


def _caller(number: int, *, at: datetime) -> str:
    user = users.create(email=f"bench-{number}@example.com", password=None, verified=True, at=at)
    _, key = keys.create(
        user_id=user.id,
        name="Bench",
        at=at,
        requests_per_minute=0,
        tokens_per_minute=0,
        parallel_requests=0,
    )
    ledger.grant(
        user_id=user.id,
        amount=_FLUX,
        request_id="bench-grant",
        description="Bench Flux",
        by=_BY,
        at=at,
    )
    return key


def route(base_url: str) -> None:
    seed.route_chat(
        model_name=MODEL,
        base_url=base_url,
        override_model=upstream.MODEL,
        plaintext_key="sk-bench-upstream",
        key_id="bench-1",
        by=_BY,
        at=datetime.now(UTC),
    )
