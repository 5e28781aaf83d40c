"""Which keys rest after a failure: known here at once, to every instance through Redis.

401 rests a key until an operator publishes a revision. 402 and 403 may be about one request (its
length, its contents), so they rest it for 5 s, four times longer each time up to an hour. 429 rests
it for its `Retry-After`, 1 s to 10 min; five server errors or timeouts in a row for 2 s, doubling
to a minute. One probe goes when the time is up. Without Redis each instance learns for itself.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import orjson
from django_redis import get_redis_connection
from redis.exceptions import RedisError

from airi_server.kernel import notify, redis
from llmrouter.routing import failures
from llmrouter.routing.failures import AttemptFailed
from llmrouter.routing.planning import Attempt

logger = logging.getLogger(__name__)

TOPIC: Final = "health"
STRIKES: Final = 5
FIRST_REST_S: Final = 2.0
LONGEST_REST_S: Final = 60.0
REFUSED_REST_S: Final = 5.0
LONGEST_REFUSED_REST_S: Final = 3600.0
PROBE_S: Final = 30.0
DEFAULT_RETRY_AFTER_S: Final = 5.0
CATCH_UP_TRIES: Final = 20
CATCH_UP_PAUSE_S: Final = 0.1


@dataclass(slots=True)
class _Record:
    """What is known of one key.

    `strikes` counts failures in a row that trip the breaker, `refusals` every 402 and 403 since
    the last success; `probe` is the attempt that tries the key after its rest; `revision` is the
    one in force when it failed.
    """

    until: float = 0.0
    reason: str = ""
    strikes: int = 0
    refusals: int = 0
    probe: Attempt | None = None
    revision: int | None = None


_records: dict[str, _Record] = {}
_revision: int | None = None
_NOTHING: Final[Mapping[str, float]] = {}


def resting(revision: int) -> Mapping[str, float]:
    """Return `health_id` → the epoch second until which it rests; empty when all is well.

    A new revision wakes everything: an operator has looked.
    """
    global _revision  # noqa: PLW0603  the newest revision this process has routed with
    if revision != _revision:
        if _revision is None:
            _drop_before(revision)
        elif _records:
            _records.clear()
            redis.link().tell("DEL", _key())
        _revision = revision
    if not _records:
        return _NOTHING
    return {name: record.until for name, record in _records.items() if record.until}


def _drop_before(revision: int) -> None:
    """Forget what was told of older revisions while this process was not there to see them go."""
    for name in [n for n, record in _records.items() if record.revision not in (None, revision)]:
        del _records[name]


def rest_of(health_id: str) -> tuple[float, str]:
    """Return until when a key rests, in epoch seconds, and the reason of its last failure."""
    record = _records.get(health_id)
    return (record.until, record.reason) if record else (0.0, "")


def claim(attempt: Attempt) -> bool:
    """Return whether the key may be tried now; a key that has rested is tried by one at a time.

    Asked again at the last moment, because a plan is some milliseconds old when it is walked.
    Follow it with `note_success`, `note_failure` or `give_back`.
    """
    record = _records.get(attempt.key.health_id)
    if record is None or not record.until:
        return True
    now = time.time()
    if record.until > now:
        return False
    record.until = now + PROBE_S
    record.probe = attempt
    return True


def give_back(attempt: Attempt) -> None:
    """Nothing was learnt: whoever comes next may be the probe."""
    record = _records.get(attempt.key.health_id)
    if record is not None and record.probe is attempt:
        record.until = time.time()
        record.probe = None


def note_success(attempt: Attempt) -> None:
    """Forget what was held against the key."""
    record = _records.pop(attempt.key.health_id, None)
    if record is not None and record.until:
        redis.link().tell("HDEL", _key(), attempt.key.health_id)
        notify.send_soon(TOPIC, id=attempt.key.health_id, until=0)


def note_failure(attempt: Attempt, failed: AttemptFailed) -> None:
    """Rest the key if the failure says so, here and everywhere."""
    now = time.time()
    record = _records.setdefault(attempt.key.health_id, _Record())
    record.reason = failed.reason
    record.probe = None
    record.revision = _revision
    rest_s = _rest_s(record, failed)
    if rest_s <= 0:
        record.until = 0.0
        return
    record.until = now + rest_s
    if failed.status in (401, 402, 403):
        logger.error(
            "A provider refuses a key",
            extra={"upstream": attempt.upstream.id, "key": attempt.key.id, "status": failed.status},
        )
    until = None if math.isinf(rest_s) else record.until
    facts = {"until": until, "reason": failed.reason, "revision": _revision}
    redis.link().tell("HSET", _key(), attempt.key.health_id, orjson.dumps(facts))
    notify.send_soon(TOPIC, id=attempt.key.health_id, **facts)


def _rest_s(record: _Record, failed: AttemptFailed) -> float:
    if failed.status == 401:
        return math.inf
    if failed.status in (402, 403):
        record.refusals += 1
        longer = 4.0 ** min(6, record.refusals - 1)
        return min(LONGEST_REFUSED_REST_S, REFUSED_REST_S * longer)
    if failed.status == 429:
        asked = failures.seconds_of(
            failed.retry_after, now=datetime.now(UTC), default=DEFAULT_RETRY_AFTER_S
        )
        return min(600.0, max(1.0, asked)) if math.isfinite(asked) else DEFAULT_RETRY_AFTER_S
    record.strikes += 1
    if record.strikes < STRIKES:
        return 0.0
    return min(LONGEST_REST_S, FIRST_REST_S * 2.0 ** min(10, record.strikes - STRIKES))


def forget() -> None:
    """Drop everything this process knows; for tests and for a fresh start."""
    global _revision  # noqa: PLW0603  the newest revision this process has routed with
    _records.clear()
    _revision = None


def resting_from_redis() -> dict[str, tuple[float, str]]:
    """Return what every instance told: `health_id` → (until, reason). Empty without Redis."""
    try:
        told = get_redis_connection("default").hgetall(_key())
    except RedisError:
        return {}
    return {
        name.decode(): (_until(facts), str(facts.get("reason", "")))
        for name, value in told.items()
        if (facts := _told(value))
    }


def _told(value: bytes) -> dict[str, Any] | None:
    """Return the facts of one key as they were told, or None if they make no sense."""
    try:
        facts = orjson.loads(value)
        _until(facts)
    except (ValueError, TypeError, AttributeError):
        return None
    return dict(facts)


def _until(facts: Mapping[str, Any]) -> float:
    until = facts.get("until")
    return math.inf if until is None else float(until)


def _key() -> str:
    return redis.key("health")


def _learn(facts: dict[str, Any]) -> None:
    """Take another instance's word for it; the worst a wrong one does is one rest too many."""
    name, until, revision = str(facts["id"]), facts["until"], facts.get("revision")
    if None not in (revision, _revision) and revision != _revision:
        return
    if until == 0:
        _records.pop(name, None)
        return
    record = _records.setdefault(name, _Record(strikes=STRIKES - 1))
    record.until = _until(facts)
    record.reason = str(facts.get("reason", ""))
    record.revision = revision


def _catch_up(_facts: dict[str, Any]) -> None:
    """Read what was told while this instance did not listen."""
    _read_told(redis.link(), CATCH_UP_TRIES)


def _read_told(link: redis.RedisLink, tries: int) -> None:
    def learn(reply: asyncio.Future[Any]) -> None:
        if reply.cancelled() or reply.exception():
            # This connection came up later than the one that listens.
            if tries > 1:
                loop.call_later(CATCH_UP_PAUSE_S, _read_told, link, tries - 1)
            return
        told = reply.result()
        for name, value in zip(told[::2], told[1::2], strict=True):
            facts = _told(value)
            if facts and _until(facts) > time.time():
                _learn({**facts, "id": name.decode(), "until": facts.get("until")})

    loop = asyncio.get_running_loop()
    link.send("HGETALL", _key()).add_done_callback(learn)


notify.on(TOPIC, _learn)
notify.on(notify.CONNECTED, _catch_up)
