"""One call that went well, for tests of the judge: each changes what it is about."""

from __future__ import annotations

from datetime import UTC, datetime

from tests.chaos.faults import Kind
from tests.chaos.paid import served
from tests.chaos.paid.record import Attempt, Call, Happened, Person, Record, Told, Used
from tests.chaos.paid.witness import Row, Truth

RIA = Person("ria", "ria@example.com", "key", "public", is_poor=False)
MIO = Person("mio", "mio@example.com", "key", "public", is_poor=True)
AT = 1_000_000.0
USED = Used(1_001, 9, 500)
"""Of attempt 1; it costs 560 Flux."""


def row(**columns) -> Row:
    ordinary = {
        "id": "row", "user_id": "ria", "state": "settled", "hold": 900, "client_key": None,
        "stream": False, "prompt_estimate": 100, "prompt_tokens": 1_001, "completion_tokens": 9,
        "cached_tokens": 500, "usage_source": "reported", "charged": 560, "unbilled": 0,
        "outcome": "completed", "attempts": 1, "instance_id": "one",
        "opened_at": datetime.fromtimestamp(AT, UTC),
        "settled_at": datetime.fromtimestamp(AT + 1, UTC),
    }  # fmt: skip
    return Row(**{**ordinary, **columns})


VOIDED = {
    "state": "voided", "outcome": "failed", "usage_source": "none", "charged": 0,
    "prompt_tokens": None, "completion_tokens": None, "cached_tokens": None,
}  # fmt: skip
ESTIMATED = {
    "outcome": "client_gone", "usage_source": "estimated", "prompt_tokens": 100,
    "completion_tokens": 3, "cached_tokens": 0, "charged": 103,
}  # fmt: skip
ORPHANED = {**ESTIMATED, "outcome": "orphaned", "completion_tokens": 0, "charged": 100}


def told(**facts) -> Told:
    """A whole answer, as of attempt 1."""
    ordinary = {
        "ended": AT + 1, "status": 200, "request_id": "row", "charged": 560, "body": b"hi",
        "number": 1, "frames": 1, "is_whole": True,
    }  # fmt: skip
    return Told(AT, **{**ordinary, **facts})


def refused(status: int, code: str = "X", **details) -> Told:
    return Told(AT, AT + 1, status, "row", is_whole=True, code=code, details=details)


class World:
    """One call by Ria that went well; a test changes what it is about."""

    def __init__(self):
        self.call = Call("call-1", RIA, 100, is_stream=False, client_key=None, told=[told()])
        attempt = Attempt(1, "call-1", "a", "answered", AT, USED, 3, 15, is_whole=True)
        self.record = Record(calls={"call-1": self.call}, attempts=[attempt])
        self.truth = Truth(rows={"row": row()})

    @property
    def attempt(self) -> Attempt:
        return self.record.attempts[0]

    def put(self, **columns):
        made = row(**columns)
        self.truth.rows[made.id] = made

    def tell(self, *what: Told, is_stream: bool = False, key: str | None = None):
        self.call.told = list(what)
        self.call.is_stream, self.call.client_key = is_stream, key

    def happens(self, kind: Kind, at: float = AT + 0.5):
        self.record.happened.append(Happened(kind, at, at + 1))

    def judged(self) -> list[str]:
        return list(served.of_calls(self.truth, self.record))
