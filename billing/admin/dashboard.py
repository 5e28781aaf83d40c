"""The numbers of the console's start page: a few statements, each bounded in time and rows.

Every value is made of plain types, so that it can wait in a cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

from django.core.cache import cache
from django.db import connection

from airi_server.kernel import resources
from airi_server.kernel.ids import first_uuid7_at as first_id_at
from billing.reconciliation import FIND_ORPHANS_SQL, RESTART_GRACE_S

FLUX_SQL: Final = resources.read_text("billing", "sql/overview_flux.sql")
TRAFFIC_SQL: Final = resources.read_text("billing", "sql/overview_traffic.sql")
OPEN_SQL: Final = resources.read_text("billing", "sql/overview_open.sql")
ORPHANS_SQL: Final = (
    f"SELECT count(*), coalesce(sum(hold), 0)::bigint FROM ({FIND_ORPHANS_SQL}) AS f"  # noqa: S608  ours
)
PATIENCE_MS: Final = 5_000
"""What one statement of a page may take. Nobody looks at a page that takes longer."""
LIMIT_SQL: Final = f"SET LOCAL statement_timeout = {PATIENCE_MS}; SET LOCAL jit = off"
DAYS: Final = 30
SETTLED: Final = timedelta(hours=1)
"""How long after its end a day may still get an entry: no transaction takes as long."""
KEPT_S: Final = 86_400
NEWEST: Final = 1_000
"""Requests whose users' accounts are held against what is open, whether they have ended or not."""
BOUNDS_MS: Final[tuple[int, ...]] = tuple(round(10 * 1.2**step) for step in range(52))
"""What separates the bins of time to first token: 10 ms to 110 s, each a fifth above the last."""


@dataclass(frozen=True, slots=True)
class Day:
    """What moved on one UTC day, in whole Flux."""

    day: date
    used: int
    credited: int
    withdrawn: int


@dataclass(frozen=True, slots=True)
class ModelTraffic:
    """What one model had to do. A client that hung up is not a failure."""

    model: str
    requests: int
    failures: int


@dataclass(frozen=True, slots=True)
class FirstToken:
    """How long the answers of one slot of time took to begin, to within a tenth."""

    at: datetime
    answers: int
    p50_ms: int
    p95_ms: int


@dataclass(frozen=True, slots=True)
class Traffic:
    """Requests since some instant: by model, busiest first, and by slot, oldest first."""

    models: tuple[ModelTraffic, ...]
    first_token: tuple[FirstToken, ...]

    @property
    def requests(self) -> int:
        return sum(model.requests for model in self.models)

    @property
    def failures(self) -> int:
        return sum(model.failures for model in self.models)


@dataclass(frozen=True, slots=True)
class UnderWay:
    """Requests that have not ended, and what they hold.

    Attributes:
        held: The sum of their holds.
        accounts_hold: What the accounts of their users hold, and those of the users of the newest
            `NEWEST` requests. All other accounts are left to the check of the books.
    """

    requests: int
    oldest: datetime | None
    held: int
    accounts_hold: int

    @property
    def drift(self) -> int:
        """Flux that accounts hold and no open request does; 0 as long as all is well."""
        return self.accounts_hold - self.held


@dataclass(frozen=True, slots=True)
class Orphans:
    """Open requests that nobody will end any more, and the Flux they keep from their users."""

    requests: int
    held: int


def flux_by_day(*, at: datetime) -> tuple[Day, ...]:
    """Return the last `DAYS` UTC days, oldest first, the quiet ones too.

    Days that are over wait in the cache, because nothing is added to them: a page reads what was
    posted since, where a month may be the whole ledger. Without Redis it reads the month.
    """
    first = at.astimezone(UTC).date() - timedelta(days=DAYS - 1)
    days = [first + timedelta(days=place) for place in range(DAYS)]
    kept = cache.get_many([_kept_as(day) for day in days])
    found = {day: Day(day, *kept[_kept_as(day)]) for day in days if _kept_as(day) in kept}
    unknown = next(day for day in days if day not in found)  # today is never kept
    params = {"first": unknown, "days": (days[-1] - unknown).days + 1}
    found |= {row[0]: Day(*row) for row in _read(FLUX_SQL, params)}
    every = tuple(found.get(day, Day(day, 0, 0, 0)) for day in days)
    over = (at.astimezone(UTC) - SETTLED).date()
    fresh = {
        _kept_as(each.day): (each.used, each.credited, each.withdrawn)
        for each in every
        if unknown <= each.day < over
    }
    if fresh:
        cache.set_many(fresh, KEPT_S)
    return every


def traffic(*, since: datetime, slot: timedelta) -> Traffic:
    """Return requests opened since then, their time to first token in slots of such a length."""
    params = {"first": first_id_at(since), "bounds": list(BOUNDS_MS), "slot": slot}
    rows = _read(TRAFFIC_SQL, params)
    models = [ModelTraffic(row[0], row[3], row[4]) for row in rows if row[0] is not None]
    slots: dict[datetime, dict[int, int]] = {}
    for began, number, count in (row[1:4] for row in rows if row[0] is None):
        slots.setdefault(began, {})[number] = count
    return Traffic(
        tuple(sorted(models, key=lambda model: (-model.requests, model.model))),
        tuple(_first_token(began, bins) for began, bins in sorted(slots.items())),
    )


def under_way() -> UnderWay:
    """Return what is open now, and whether the accounts agree with it."""
    return UnderWay(*_read(OPEN_SQL, {"newest": NEWEST})[0])


def orphans() -> Orphans:
    everybody = {"user_id": None, "since": None, "settling_s": RESTART_GRACE_S}
    return Orphans(*_read(ORPHANS_SQL, everybody)[0])


def _kept_as(day: date) -> str:
    return f"overview:day:{day.isoformat()}"


def _first_token(at: datetime, bins: dict[int, int]) -> FirstToken:
    p50, p95 = (_percentile(bins, share) for share in (0.50, 0.95))
    return FirstToken(at, sum(bins.values()), p50, p95)


def _percentile(bins: dict[int, int], share: float) -> int:
    """Return the milliseconds that `share` of the answers stayed below, from the counts of bins.

    Within the bin they are taken to be spread evenly; the last one has no end, so it is its start.
    """
    wanted = share * sum(bins.values())
    for number, count in sorted(bins.items()):
        if wanted <= count:
            low, high = _edges(number)
            return round(low + (high - low) * wanted / count)
        wanted -= count
    return 0


def _edges(number: int) -> tuple[int, int]:
    low = BOUNDS_MS[number - 1] if number else 0
    return low, BOUNDS_MS[min(number, len(BOUNDS_MS) - 1)]


def _read(sql: str, params: dict[str, Any]) -> Sequence[tuple[Any, ...]]:
    """Run a statement under a limit of its own, in the same round trip."""
    with connection.cursor() as cursor:
        cursor.execute(f"{LIMIT_SQL};\n{sql}", params)
        while cursor.description is None and cursor.nextset():
            pass
        rows: Sequence[tuple[Any, ...]] = cursor.fetchall()
    return rows
