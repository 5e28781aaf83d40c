"""A completion answered in one piece: read whole, paid for, then sent."""

from __future__ import annotations

import time
from typing import Any, Final

from billing.pricing import Usage
from billing.requests import MAX_RESULT_BYTES, Replay
from llmrouter.completions import usage
from llmrouter.completions.paid import Answer, PaidRequest
from llmrouter.routing import upstream
from llmrouter.routing.failures import BAD_ANSWER, AttemptFailed
from llmrouter.routing.responses import Response

JSON: Final = "application/json"
"""The type of every plain answer, whatever the upstream calls it: it was read as JSON."""


class Completion(PaidRequest):
    """Nothing reaches the client before its debit has committed (invariant I8)."""

    answer: dict[str, Any]

    async def produce(self) -> Answer:
        replay = await self.open()
        if replay is not None:
            return stored(replay)
        _, body = await self.find_answer()
        settlement = self._settlement("completed", await self._usage(), completed=True)
        if self.ticket.client_key and len(body) <= MAX_RESULT_BYTES:
            settlement.result = body
        charged = await self.settle(settlement)
        return Answer(
            request_id=self.ticket.id,
            body=body,
            content_type=JSON,
            charged=charged.charged,
        )

    async def read_head(self, response: Response) -> bytes:
        """Read the whole answer: until it is complete, another upstream can still be asked."""
        body = await upstream.read(response)
        self.first_byte_at = time.perf_counter() - self.began
        try:
            answer = usage.decode(body)
        except ValueError as malformed:
            raise AttemptFailed(BAD_ANSWER, status=response.status) from malformed
        if not isinstance(answer, dict) or (answer.get("error") and not answer.get("choices")):
            raise AttemptFailed(BAD_ANSWER, status=response.status)
        self.answer = answer
        return body

    async def _usage(self) -> Usage:
        choices = self.answer.get("choices")
        return (
            usage.reported(self.answer.get("usage"))
            or await self.count(usage.messages_of(choices))
            or usage.estimated(
                prompt_estimate=self.ticket.prompt_estimate,
                text_bytes=usage.text_bytes_of(choices),
            )
        )


def stored(replay: Replay) -> Answer:
    """Return the answer that was paid for before."""
    return Answer(replay.id, replay.body, JSON, replay.charged, replayed=True)
