"""Plain completion: read whole, paid for, then sent."""

from __future__ import annotations

import time
from typing import Any, Final

from billing.requests import MAX_RESULT_BYTES, Replay
from llmrouter.completions import recognition
from llmrouter.gateway import usage
from llmrouter.gateway.paid import NoAnswer, PaidAnswer, PaidRequest
from llmrouter.gateway.usage import Reading, Reports
from llmrouter.routing.failures import TIMEOUT, AttemptFailed
from llmrouter.routing.planning import Attempt
from llmrouter.upstream import client
from llmrouter.upstream.client import Waits
from llmrouter.upstream.responses import Response

JSON: Final = "application/json"
"""The type of every plain answer, whatever the upstream calls it: it was read as JSON."""


class Completion(PaidRequest):
    """Nothing reaches the client before its debit has committed (invariant I8)."""

    answer: dict[str, Any]
    reports: Reports
    generated: int

    async def produce(self) -> PaidAnswer:
        replay = await self.open()
        if replay is not None:
            return stored(replay)
        _, body = await self.find_answer()
        settlement = self._settlement("completed", await self._used(), completed=True)
        if self.ticket.client_key and len(body) <= MAX_RESULT_BYTES:
            settlement.result = body
        charged = await self.settle(settlement)
        return PaidAnswer(
            request_id=self.ticket.id,
            body=body,
            content_type=JSON,
            charged=charged.charged,
        )

    @property
    def search_s(self) -> float:
        """All attempts together: until the last byte, because only then is it an answer."""
        return self.bounds.answer_s

    def waits(self, attempt: Attempt) -> Waits:
        own_s = attempt.upstream.timeout_s or self.bounds.answer_s
        return Waits(own_s, min(own_s, self.bounds.first_event_s), is_stream=False)

    async def read_head(self, response: Response) -> bytes:
        """Read the whole answer: until it is complete, another upstream can still be asked."""
        try:
            body = await client.read(response)
        except AttemptFailed as failed:
            if failed.reason == TIMEOUT:
                failed.blame = None  # a slow answer blames nobody
            raise
        self.first_byte_at = time.perf_counter() - self.began
        try:
            answer = usage.decode(body)
        except ValueError as malformed:
            raise NoAnswer(response, body) from malformed
        reports, found = Reports(), recognition.NOTHING
        if isinstance(answer, dict):
            reports.add(answer)
            found = recognition.of_choices(answer.get("choices"))
        if not found.size and not recognition.is_answer(answer, reports.counts(has_text=False)):
            raise NoAnswer(response, body)
        self.answer, self.reports, self.generated = answer, reports, found.size
        return body

    async def _used(self) -> Reading:
        return await self.reading(
            self.reports,
            has_text=self.generated > 0,
            generated=lambda: self.generated,
            answer=lambda: usage.messages_of(self.answer.get("choices")),
        )


def stored(replay: Replay) -> PaidAnswer:
    """Return the answer that was paid for before."""
    return PaidAnswer(replay.id, replay.body, JSON, replay.charged, replayed=True)
