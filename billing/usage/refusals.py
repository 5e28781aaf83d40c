"""Refusal recorder: group commit of requests that were refused before they were opened.

A lane of its own writes them once the answer is out: whoever was refused waits for nothing, and a
flood of refusals costs so many statements a second, whoever sends it. Each wait is bounded: rows
beyond what the lane holds, or what an hour keeps of one caller, are only counted.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, Final
from uuid import UUID

import orjson
from django.db.models import Max, Min, QuerySet, Sum

from airi_server.kernel import database, expiry, ids, resources
from airi_server.kernel.loops import PerLoop
from billing.usage.models import MAX_MESSAGE, MAX_MODEL, RefusalHour, RefusedRequest

logger = logging.getLogger(__name__)

RECORD_SQL: Final = resources.read_text("billing", "sql/record_refusals.sql")
KEPT: Final = timedelta(days=7)
COUNTS_KEPT: Final = timedelta(days=761)
"""25 months."""
ROWS_AN_HOUR: Final = 100
"""Of one user, key and code; what comes after is counted."""
PATIENCE_S: Final = 1.0
"""How long a request that has been answered waits for its row."""
PAUSE_S: Final = 0.2
"""Between the beginnings of two statements of a process."""
STRANGERS_WAIT_S: Final = 60.0
"""Counts of strangers go with the next statement that a caller we know causes, or after this."""
MAX_BATCH: Final = 128
MAX_WAITING: Final = 512
MAX_COUNTS: Final = 10_000
"""Different counts that may wait; those of further callers are counted as those of strangers."""
COUNTS_AT_ONCE: Final = 512
MAX_CALLERS: Final = 50_000
LAST_S: Final = 3.0
"""How long shutdown waits for what is not written yet."""

Key = tuple[str, datetime, str, str, str]
"""User, hour, API key, model and code."""
Caller = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class RefusalRecord:
    """How one request was answered.

    `user_id` is empty where it is not known whose it was. `is_routed`: there is such a model.
    """

    id: UUID
    kind: str
    status: int
    code: str
    message: str
    user_id: str = ""
    api_key_id: str = ""
    model: str = ""
    is_routed: bool = False

    def row(self, at: datetime) -> dict[str, Any]:
        return {
            "id": self.id,
            "user_id": self.user_id,
            "api_key_id": self.api_key_id,
            "model": _storable(self.model, MAX_MODEL),
            "kind": self.kind,
            "status": self.status,
            "code": self.code,
            "message": _storable(self.message, MAX_MESSAGE),
            "at": at,
        }


@dataclass(slots=True)
class _Count:
    status: int
    count: int
    first_at: datetime
    last_at: datetime

    def add(self, other: _Count) -> None:
        self.count += other.count
        self.first_at = min(self.first_at, other.first_at)
        self.last_at, self.status = max((self.last_at, self.status), (other.last_at, other.status))


async def record(refusal: RefusalRecord, *, at: datetime) -> None:
    """Count a refusal and keep its row, once its answer is out; returns after a second at most."""
    written = _lanes.get().take(refusal, at)
    if written is not None:
        await asyncio.wait({written}, timeout=PATIENCE_S)


async def close() -> None:
    """Write what this loop has not written yet; called once, at shutdown."""
    if lane := _lanes.pop():
        await lane.close()


class _Lane:
    """What one event loop has to write, and the single task that writes while calls wait."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[tuple[dict[str, Any] | None, asyncio.Future[None]]] = deque()
        self._counts: dict[Key, _Count] = {}
        self._counted_since = 0.0
        self._hour = datetime.min.replace(tzinfo=UTC)
        self._left: dict[Caller, int] = {}
        self._began = -PAUSE_S
        self._drain: asyncio.Task[None] | None = None
        self._is_away = False

    def take(self, refusal: RefusalRecord, at: datetime) -> asyncio.Future[None] | None:
        """Count a refusal; return what its request has to wait for, if anything.

        What does not wait is counted by a statement that others wait for.
        """
        hour = at.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
        model = refusal.model if refusal.is_routed else ""
        key = (refusal.user_id, hour, refusal.api_key_id, model, refusal.code)
        self._count(key, _Count(refusal.status, 1, at, at))
        if len(self._waiting) >= MAX_WAITING:
            return None
        if not refusal.user_id and self._loop.time() - self._counted_since < STRANGERS_WAIT_S:
            return None
        row = refusal.row(at) if refusal.user_id and self._has_room(refusal, hour) else None
        written: asyncio.Future[None] = self._loop.create_future()
        self._waiting.append((row, written))
        if self._drain is None:
            self._drain = self._loop.create_task(self._drain_all())
        return written

    def _count(self, key: Key, count: _Count) -> None:
        if not self._counts:
            self._counted_since = self._loop.time()
        known = self._counts.get(key)
        if known is None and len(self._counts) >= MAX_COUNTS:
            _, hour, _, model, code = key
            key = ("", hour, "", model, code)
            known = self._counts.get(key)
        if known is None:
            self._counts[key] = count
        else:
            known.add(count)

    def _has_room(self, refusal: RefusalRecord, hour: datetime) -> bool:
        if hour > self._hour or len(self._left) >= MAX_CALLERS:
            self._hour, self._left = hour, {}
        caller = (refusal.user_id, refusal.api_key_id, refusal.code)
        left = self._left.get(caller, 0)
        if left >= ROWS_AN_HOUR:
            return False
        self._left[caller] = left + 1
        return True

    async def _drain_all(self) -> None:
        try:
            while self._waiting:
                if (pause := self._began + PAUSE_S - self._loop.time()) > 0:
                    await asyncio.sleep(pause)
                await self._write()
        finally:
            self._drain = None

    async def _write(self) -> None:
        """Send one statement. Without the database its rows are lost, and its counts wait."""
        self._began = self._loop.time()
        with self._batch() as rows:
            counts = {key: self._counts.pop(key) for key in [*islice(self._counts, COUNTS_AT_ONCE)]}
            self._counted_since = self._began
            try:
                await database.fetch(RECORD_SQL, _params(rows, counts))
            except database.AWAY:
                for key, count in counts.items():
                    self._count(key, count)
                if not self._is_away:
                    logger.warning("Unable to record refusals", extra={"rows": len(rows)})
                self._is_away = True
            except Exception:
                logger.exception("Refusals could not be recorded", extra={"rows": len(rows)})
            else:
                self._is_away = False

    @contextmanager
    def _batch(self) -> Iterator[list[dict[str, Any]]]:
        """Yield the next rows; whoever waits for one has waited afterwards, however it went."""
        count = min(len(self._waiting), MAX_BATCH)
        batch = [self._waiting.popleft() for _ in range(count)]
        try:
            yield [row for row, _ in batch if row is not None]
        finally:
            for _, written in batch:
                if not written.done():
                    written.set_result(None)

    async def close(self) -> None:
        try:
            async with asyncio.timeout(LAST_S):
                if self._drain is not None:
                    await self._drain
                self._is_away = False
                while self._counts and not self._is_away:
                    await self._write()
        except TimeoutError:
            self._is_away = True
        if self._is_away:
            lost = {"rows": len(self._waiting), "counts": len(self._counts)}
            logger.warning("Ended with refusals unwritten", extra=lost)


_lanes: PerLoop[_Lane] = PerLoop(_Lane)


def _params(rows: list[dict[str, Any]], counts: dict[Key, _Count]) -> dict[str, Any]:
    now = datetime.now(UTC)
    names = ("user_id", "hour", "api_key_id", "model", "code")
    counted = [
        dict(zip(names, key, strict=True))
        | {
            "status": each.status,
            "count": each.count,
            "first_at": each.first_at,
            "last_at": each.last_at,
        }
        for key, each in counts.items()
    ]
    return {
        "rows": orjson.dumps(rows).decode(),
        "counts": orjson.dumps(counted).decode(),
        "old": ids.first_uuid7_at(now - KEPT),
        "oldest": now - COUNTS_KEPT,
        "page": 2 * max(1, len(rows)),
    }


def _storable(text: str, length: int) -> str:
    """Return the beginning of what somebody wrote as a database can keep it."""
    kept = text[:length].replace("\x00", "\ufffd")
    return kept.encode(errors="replace").decode()


@dataclass(frozen=True, slots=True)
class ModelRefusals:
    """How often a model was refused with one code. `model` is empty for names no model has."""

    model: str
    code: str
    count: int
    last_at: datetime
    first_at: datetime
    status: int


def by_model(*, since: datetime) -> list[ModelRefusals]:
    """Return who was refused what since then, the most frequent first.

    Counted by hours: the hour in which `since` lies counts as a whole.
    """
    found = (
        _since(since)
        .values("model", "code")
        .annotate(n=Sum("count"), last=Max("last_at"), first=Min("first_at"), s=Max("status"))
        .order_by("-n", "model", "code")
        .values_list("model", "code", "n", "last", "first", "s")
    )
    return [ModelRefusals(*row) for row in found]


def _since(since: datetime) -> QuerySet[RefusalHour]:
    hour = since.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    return RefusalHour.objects.filter(hour__gte=hour, last_at__gte=since)


def forget(*, user_id: str, at: datetime) -> None:
    """Delete what was refused to a user who leaves; again, nothing."""
    RefusedRequest.objects.filter(user_id=user_id).delete()
    RefusalHour.objects.filter(user_id=user_id).delete()


def clear_expired(*, at: datetime) -> int:
    """Delete refusals older than a week; return how many there were.

    Writing new ones does too, but only while somebody is refused.
    """
    old = ids.first_uuid7_at(at - KEPT)
    return expiry.clear(table="refused_request", column="id", before=old)


def clear_expired_counts(*, at: datetime) -> int:
    """Delete counts of refusals older than 25 months; return how many there were."""
    return expiry.clear(table="refusal_hour", column="hour", before=at - COUNTS_KEPT)
