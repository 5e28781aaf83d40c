"""Recording of refusals: completions that were refused before they were opened.

Called once the answer is out, by the exchange itself. A surface that is to be recorded too gets its
paths a line here.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from airi_server.kernel.context import RefusedExchange
from airi_server.logging import redact
from airi_server.web.bodies import Scope
from billing.usage import refusals
from billing.usage.refusals import RefusalRecord
from llmrouter import telemetry

CHAT: Final = "chat"
KINDS: Final[Mapping[tuple[str, str], str]] = {
    ("POST", "/v1/chat/completions"): CHAT,
    ("POST", "/api/v1/openai/chat/completions"): CHAT,
    ("POST", "/api/v1/openai/chat/completion"): CHAT,
}


async def keep(scope: Scope, request_id: str, refused: RefusedExchange) -> None:
    """Record a refusal, unless it is of another surface or of a request that has its own row."""
    kind = KINDS.get((scope["method"], scope["path"]))
    if kind is None or refused.has_row or not refused.status:
        return
    telemetry.refused(
        model=refused.model if refused.is_routed else "", code=refused.code, status=refused.status
    )
    refusal = RefusalRecord(
        id=UUID(request_id),
        kind=kind,
        status=refused.status,
        code=refused.code,
        message=redact(refused.message),
        user_id=refused.user_id,
        api_key_id=refused.api_key_id,
        model=redact(refused.model),
        is_routed=refused.is_routed,
    )
    await refusals.record(refusal, at=datetime.now(UTC))
