"""What a run writes down beside the database: calls, attempts, grants, bans and faults.

Times are seconds since the epoch, on this machine's clock, which is the database's too.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

from tests.chaos.faults import Kind

MODEL: Final = "chat-default"
OPERATOR: Final = "operator@example.com"
"""Their address, on `ADMIN_EMAILS`."""
RICH_FLUX: Final = 10**9
POOR_FLUX: Final = 3_000
FLAT_FLUX: Final = 50
PROMPT_BASE: Final = 1_000
"""An attempt reports a prompt of this plus its number, so that a charge names its attempt."""


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who pays. Those who are `poor` may run out of Flux, nobody else may."""

    user_id: str
    email: str
    key: str
    key_id: str
    is_poor: bool

    @property
    def start(self) -> int:
        """What they were given before the run."""
        return POOR_FLUX if self.is_poor else RICH_FLUX


@dataclass(frozen=True, slots=True)
class Used:
    """Tokens as an upstream reports them; `cached` are among `prompt`."""

    prompt: int
    completion: int
    cached: int = 0


@dataclass(slots=True)
class Attempt:
    """One request as the provider got it.

    Attributes:
        number: Counts the attempts of the run; it is in the answer's id and its usage.
        play: What the provider did.
        used: What it reported, None if it did not.
        frames, text_bytes: What it had sent of the text.
        is_whole: It had sent everything.
    """

    number: int
    call: str
    place: str
    play: str
    began: float
    used: Used | None = None
    frames: int = 0
    text_bytes: int = 0
    is_whole: bool = False


@dataclass(slots=True)
class Told:
    """One try of a call, and what the client saw. `status` 0: nothing at all.

    Attributes:
        request_id, charged: As the headers said.
        number: Of the attempt whose text came.
        frames: Of text that came; of a plain answer at most one.
        is_whole: The answer has come to its end.
    """

    began: float
    ended: float = 0.0
    status: int = 0
    request_id: str | None = None
    charged: int | None = None
    body: bytes = b""
    number: int | None = None
    frames: int = 0
    is_whole: bool = False
    code: str | None = None
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Call:
    """One body that somebody asked with, once or, with a client's key, several times.

    `estimate` is what the prompt is estimated at; no other call of this person has it, so a
    row of the database names its call.
    """

    id: str
    person: Person
    estimate: int
    is_stream: bool
    client_key: str | None
    told: list[Told] = field(default_factory=list)


@dataclass(slots=True)
class Order:
    """A grant as it was sent; `acknowledged` has entry and balance of each user that was told."""

    key: str
    amount: int
    user_ids: tuple[str, ...]
    acknowledged: dict[str, set[tuple[str, int]]] = field(default_factory=dict)


@dataclass(slots=True)
class Shut:
    """Somebody could not pay: from about `began` on, surely from `sure`, until `ended`."""

    user_id: str
    began: float
    sure: float = 0.0
    lifting: float = 0.0
    ended: float = 0.0


@dataclass(frozen=True, slots=True)
class Happened:
    """A fault from its first moment until it was mended."""

    kind: Kind
    began: float
    ended: float


@dataclass(slots=True)
class Record:
    """Everything that a run knows from outside; `began` is when the faults did."""

    began: float = 0.0
    noisy: str = ""
    """Whose requests the provider dislikes, each other one of them: nobody else may notice."""
    calls: dict[str, Call] = field(default_factory=dict)
    attempts: list[Attempt] = field(default_factory=list)
    orders: list[Order] = field(default_factory=list)
    shut: list[Shut] = field(default_factory=list)
    happened: list[Happened] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    """What is wrong at once, whatever the database says."""
