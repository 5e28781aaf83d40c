"""The SQL functions of the hot path once more, in Python: short, slow, one user, no locks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Request:
    """One request of the twin."""

    hold: int
    api_key_id: str | None = None
    client_key: str | None = None
    state: str = "open"
    charged: int = 0
    unbilled: int = 0
    checkpoint: int | None = None


@dataclass
class Account:
    """One account and its requests, by the rules of `money.md` §2."""

    flux: int
    held: int = 0
    frozen: bool = False
    deleted: bool = False
    entries: list[int] = field(default_factory=list)
    requests: dict[Any, Request] = field(default_factory=dict)
    credited: int = 0

    def __post_init__(self) -> None:
        self.credited = self.flux

    @property
    def free(self) -> int:
        return max(0, self.flux - self.held)

    def open(self, row: dict[str, Any]) -> tuple[str, int]:
        """Twin of `open_requests.sql`; return outcome and hold."""
        if not self.deleted and row["id"] in self.requests:
            return "replayed", self.requests[row["id"]].hold
        outcome, hold = self._admit(row)
        if outcome == "opened":
            self.held += hold
            self.requests[row["id"]] = Request(hold, row["api_key_id"], row["client_key"])
        return outcome, hold

    def _admit(self, row: dict[str, Any]) -> tuple[str, int]:
        if self.deleted:
            return "deleted", 0
        live = [r.client_key for r in self.requests.values() if r.state != "voided"]
        if row["client_key"] is not None and row["client_key"] in live:
            return "duplicate", 0
        if self.frozen:
            return "frozen", 0
        room = min(self.free, self._room(row))
        if self.free < row["floor"]:
            return "insufficient", 0
        if room < row["floor"]:
            return "key_limit", 0
        return "opened", min(row["wanted"], room)

    def _room(self, row: dict[str, Any]) -> int:
        key = row["api_key_id"]
        mine = [r for r in self.requests.values() if key is not None and r.api_key_id == key]
        spent = sum(r.charged if r.state == "settled" else 0 for r in mine)
        holds = sum(r.hold for r in mine if r.state in ("open", "streaming"))
        limits: list[int | None] = [
            row[name] for name in ("limit_day", "limit_month", "limit_total")
        ]
        return min([limit - spent - holds for limit in limits if limit is not None] or [10**9])

    def mark(self, request_id: Any, checkpoint: int) -> None:
        """Twin of `mark_requests.sql`."""
        found = self.requests.get(request_id)
        if found and found.state in ("open", "streaming"):
            found.state = "streaming"
            found.checkpoint = max(found.checkpoint or 0, checkpoint)

    def end_of(self, request_id: Any, charge: int | None) -> int | None:
        """Return the charge that may be asked for: what has begun is paid, if only with 0."""
        found = self.requests.get(request_id)
        return 0 if charge is None and found and found.checkpoint is not None else charge

    def settle(self, request_id: Any, charge: int | None) -> tuple[str, int, int, int, bool]:
        """Twin of `settle_requests.sql`; `charge` None voids."""
        found = self.requests.setdefault(request_id, Request(0))
        if found.state not in ("open", "streaming"):
            return found.state, found.charged, found.unbilled, self.flux, True
        self.held -= found.hold
        free = max(0, self.flux - self.held - found.hold)
        found.state = "voided" if charge is None else "settled"
        found.charged = min(charge or 0, found.hold + free, self.flux)
        found.unbilled = (charge or 0) - found.charged
        self._move(-found.charged)
        return found.state, found.charged, found.unbilled, self.flux, False

    def forgotten(self, api_key_id: str | None, client_key: str | None) -> Request:
        """Return what a settlement writes again for a row that is not there."""
        return Request(0, api_key_id, client_key)

    def credit(self, amount: int) -> None:
        self.credited += amount
        self._move(amount)

    def _move(self, change: int) -> None:
        self.flux += change
        if change:
            self.entries.append(change)
