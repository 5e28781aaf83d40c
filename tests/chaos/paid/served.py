"""What clients saw and what the provider did, held against the rows. Pure.

Each sentence names the call, so that its tries, attempts and rows can be looked up.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Final

from tests.chaos.paid.excuses import Excuses
from tests.chaos.paid.provider import Play
from tests.chaos.paid.record import FLAT_FLUX, Attempt, Call, Record, Told, Used
from tests.chaos.paid.witness import Row, Truth

TENTHS_A_TOKEN: Final = 10
"""Of a Flux; one for a cached token, as in `seed.price`."""
_REFUSALS: Final = frozenset({401, 402, 409, 502, 503, 504})
_ATTEMPTS: Final = 3
_ORPHANED: Final = "orphaned"


def of_calls(truth: Truth, record: Record) -> Iterator[str]:
    """Everything that has to be true of every call."""
    judge = Judge(truth, record)
    yield from judge.of_strangers()
    for call in record.calls.values():
        for fault in judge.of_call(call):
            yield f"{call.id}: {fault}"


class Judge:
    """Rows and attempts by call."""

    def __init__(self, truth: Truth, record: Record) -> None:
        self._truth, self._excuses = truth, Excuses(record, truth.rows.values())
        self._by_number = {attempt.number: attempt for attempt in record.attempts}
        calls = {(call.person.user_id, call.estimate): call.id for call in record.calls.values()}
        self._rows: defaultdict[str | None, list[Row]] = defaultdict(list)
        for row in truth.rows.values():
            self._rows[calls.get((row.user_id, row.prompt_estimate))].append(row)
        self._attempts: defaultdict[str, list[Attempt]] = defaultdict(list)
        for attempt in record.attempts:
            self._attempts[attempt.call].append(attempt)

    def of_strangers(self) -> Iterator[str]:
        for row in self._rows[None]:
            yield f"request {row.id}: nobody has asked for it"

    def of_call(self, call: Call) -> Iterator[str]:
        rows, attempts = self._rows[call.id], self._attempts[call.id]
        yield from self._of_counts(call, rows, attempts)
        for row in rows:
            yield from self._of_row(call, row, attempts)
        for told in call.told:
            yield from self._of_told(call, told)
        yield from self._of_repeats(call, rows)

    def _of_counts(
        self, call: Call, rows: Sequence[Row], attempts: Sequence[Attempt]
    ) -> Iterator[str]:
        """Nothing reached the provider without a row, and no try has more than one."""
        if len(rows) > len(call.told):
            yield f"{len(rows)} rows for {len(call.told)} tries"
        forgotten = sum(self._excuses.forgotten(told) for told in call.told)
        # A kept connection that ends before a byte came is replaced, unseen by the row.
        replaced = sum(each.play == Play.RESET_BEFORE for each in attempts)
        known = sum(_ATTEMPTS if row.outcome == _ORPHANED else row.attempts for row in rows)
        if len(attempts) > known + replaced + _ATTEMPTS * forgotten:
            yield f"{len(attempts)} attempts at the provider, {known} in {len(rows)} rows"
        if attempts and not rows and not forgotten:
            yield f"served {len(attempts)} times without a row"

    def _of_row(self, call: Call, row: Row, attempts: Sequence[Attempt]) -> Iterator[str]:
        """It ended for a reason, and nobody rich got anything that is not billed."""
        where = f"row {row.id}"
        if row.outcome == _ORPHANED and not self._excuses.orphaned(row):
            yield f"{where}: orphaned, though nobody killed its instance"
        if row.outcome == "server_error":
            yield f"{where}: ended by an error of the server"
        if row.unbilled and not call.person.is_poor:
            yield f"{where}: {row.unbilled} unbilled, of somebody rich"
        if row.state == "settled":
            yield from (f"{where}: {fault}" for fault in self._of_charge(row, attempts))

    def _of_charge(self, row: Row, attempts: Sequence[Attempt]) -> Iterator[str]:
        """It costs what was reported, or no more than was sent."""
        used = _used(row)
        if row.usage_source == "reported":
            if not any(each.used == used for each in attempts):
                yield f"charged for {used}, which nobody reported"
        elif row.usage_source != "estimated":
            yield f"its usage is {row.usage_source!r}"
        else:
            most = max((_most_of(each) for each in attempts), default=0)
            if used.prompt != row.prompt_estimate or used.completion > most:
                yield f"charged for {used}, at most {most} tokens were sent"
        asked = row.charged + row.unbilled
        if asked != price_of(row, used):
            yield f"asked for {asked}, {used} costs {price_of(row, used)}"

    def _of_told(self, call: Call, told: Told) -> Iterator[str]:
        where = f"{call.person.user_id} was told {told.status} ({told.request_id})"
        if told.status == 200:
            if self._excuses.should_be_refused(call.person.user_id, told):
                yield f"{where}: they were shut out"
            yield from (f"{where}: {fault}" for fault in self._of_answer(call, told))
        elif told.status and told.is_whole:
            yield from (f"{where}: {fault}" for fault in self._of_refusal(call, told))

    def _of_answer(self, call: Call, told: Told) -> Iterator[str]:
        """Who got text has a settled row, of the call and as dear as what came."""
        row = self._truth.rows.get(told.request_id or "")
        if row is None:
            if not self._excuses.forgotten(told):
                yield "there is no such row"
            return
        if row not in self._rows[call.id]:
            yield "the row is another call's"
        if row.outcome == _ORPHANED and (call.is_stream or not told.is_whole):
            return  # the row's own affair; a plain answer leaves after its debit
        if (told.frames or told.is_whole) and row.state != "settled":
            yield f"{told.frames} frames came, the row is {row.state}"
        elif told.is_whole:
            yield from self._of_whole(call, told, row)
        elif row.usage_source == "estimated" and (row.completion_tokens or 0) < told.frames:
            yield f"{told.frames} frames came, {row.completion_tokens} tokens are charged"

    def _of_whole(self, call: Call, told: Told, row: Row) -> Iterator[str]:
        if row.outcome != "completed":
            yield f"it was whole, the row is {row.outcome}"
        if not row.charged and not call.person.is_poor:
            yield "it cost nothing"
        if not call.is_stream and told.charged != row.charged:
            yield f"it said {told.charged} Flux, the row {row.charged}"
        attempt = self._by_number.get(told.number or 0)
        if attempt is None or attempt.call != call.id:
            yield f"answered with the text of attempt {told.number}"
        elif attempt.used is None:
            if row.usage_source != "estimated":
                yield f"nobody reported usage, the row has it {row.usage_source}"
        elif attempt.used != _used(row):
            yield f"{attempt.used} was reported, the row has {row}"

    def _of_refusal(self, call: Call, told: Told) -> Iterator[str]:
        """It has a known status, a reason, and nothing was charged."""
        if told.status not in _REFUSALS:
            yield f"with {told.code}: {told.body[:200]!r}"
        if told.status == 401 and not self._excuses.refused(call.person.user_id, told):
            yield "nobody had shut them out"
        if told.status == 402 and not call.person.is_poor:
            yield "they are rich"
        if told.status == 409 and call.client_key is None:
            yield "they sent no key"
        row = self._truth.rows.get(told.request_id or "")
        if row is not None and row.state == "settled":
            yield f"the row is settled with {row.charged} Flux"
        if told.code == "ALREADY_PROCESSED":
            first = self._truth.rows.get(told.details.get("requestId", ""))
            if first is None or first not in self._rows[call.id]:
                yield f"of another request: {told.details}"
            elif (first.state, first.charged) != ("settled", told.details.get("fluxCharged")):
                yield f"{told.details}, the row is {first.state} with {first.charged}"

    def _of_repeats(self, call: Call, rows: Sequence[Row]) -> Iterator[str]:
        """However often it was asked: paid once, and one answer."""
        settled = [row for row in rows if row.state == "settled"]
        if len(settled) > 1 and not self._excuses.forgotten_key(call):
            yield f"paid {len(settled)} times: {[row.id for row in settled]}"
        whole = {
            (told.request_id, told.charged, told.body)
            for told in call.told
            if told.is_whole and told.status == 200
        }
        if len(whole) > 1 and not self._excuses.forgotten_key(call):
            yield f"got {len(whole)} answers: {sorted(str(each[:2]) for each in whole)}"


def of_attempts(truth: Truth) -> Iterator[str]:
    """No attempt was paid for twice."""
    paid: dict[int, str] = {}
    for row in truth.rows.values():
        if row.state == "settled" and row.usage_source == "reported":
            prompt = row.prompt_tokens or 0
            if prompt in paid:
                yield f"rows {paid[prompt]} and {row.id} paid for the same attempt"
            paid[prompt] = row.id


def _used(row: Row) -> Used:
    return Used(row.prompt_tokens or 0, row.completion_tokens or 0, row.cached_tokens or 0)


def _most_of(attempt: Attempt) -> int:
    """Return what an estimate of what was sent may come to."""
    return -(-attempt.text_bytes // 4)


def price_of(row: Row, used: Used) -> int:
    """Return the Flux that the price of `seed.price` makes of a usage."""
    tenths = (used.prompt - used.cached + used.completion) * TENTHS_A_TOKEN + used.cached
    charge = max(1, -(-tenths // 10))
    is_guess = row.usage_source == "estimated" and row.outcome == "completed"
    return max(FLAT_FLUX, charge) if is_guess else charge
