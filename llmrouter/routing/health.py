"""Health of keys and targets: what this process has found and others have told.

What is held against whom is decided in `scopes`, from evidence. This module gives it the clock,
tells the other instances what has failed and what has served since, and keeps how breakers stand in
Redis for those that start, and for people: to them a key has failed until it serves, also when its
rest is over. Without Redis each instance learns for itself. A new revision, and a test by an
operator that works, hold nothing against anybody any longer.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

import orjson
from django_redis import get_redis_connection
from redis.exceptions import RedisError

from airi_server.kernel import instance, pubsub, redis, resources
from llmrouter.configuration.routes import Key, Upstream
from llmrouter.routing import evidence
from llmrouter.routing.breakers import RULES
from llmrouter.routing.evidence import BreakerOutcome, BreakerState, FailedAttempt, name_of
from llmrouter.routing.failures import AttemptFailed, Blame
from llmrouter.routing.planning import WELL, Ask, Attempt, HealthVerdict
from llmrouter.routing.scopes import Scopes

logger = logging.getLogger(__name__)

TOPIC: Final = "health"
KEEP_STANDING_LUA: Final = resources.read_text("llmrouter", "lua/keep_standing.lua")
CATCH_UP_TRIES: Final = 20
CATCH_UP_PAUSE_S: Final = 0.1

Standings = Mapping[str, tuple[BreakerState, ...]]
"""`health_id` or `target_id` → what is held against it."""

_scopes: Scopes = Scopes()
_revision: int | None = None


def asking_for(caller: str, revision: int) -> Ask | None:
    """Return what tells how each candidate is for a caller; None while all is well.

    A new revision wakes everything: an operator has looked.
    """
    if revision != _revision:
        _turn(revision)
    if not _scopes.unwell:
        return None
    now = time.monotonic()
    _scopes.sweep(now)

    def ask(upstream: Upstream, key: Key) -> HealthVerdict:
        return _scopes.verdict(upstream, key, caller, now)

    return ask


def _turn(revision: int) -> None:
    global _revision  # noqa: PLW0603  the newest revision this process has routed with
    _revision = revision
    _scopes.wake(time.monotonic())


def try_acquire(attempt: Attempt, caller: str, *, has_others: bool) -> HealthVerdict:
    """Return whether an attempt may go now: rank `FIRST`; `LAST` is after the others.

    Asked again at the last moment, because a plan is some time old when it is walked. Follow it
    with `note_success`, `note_failure` or `give_back`.
    """
    if not _scopes.unwell:
        return WELL
    return _scopes.try_acquire(attempt, caller, has_others=has_others, now=time.monotonic())


def give_back(attempt: Attempt) -> None:
    """Nothing was learnt: whoever comes next may be the probe."""
    _scopes.give_back(attempt)


def note_success(attempt: Attempt, caller: str, began: float) -> None:
    """Note that an answer to what was sent at `began` has begun just now.

    The key was good when the request was sent, and perhaps not since; the target is good now.
    """
    now = time.monotonic()
    if _scopes.unwell:
        _scopes.give_back(attempt)
    key_id, target_id = attempt.key.health_id, attempt.upstream.target_id
    if _scopes.succeed(key_id, caller, began, now):
        _tell_cleared(key_id, began, now)
    if _scopes.succeed(target_id, caller, now, now):
        _tell_cleared(target_id, now, now)


def note_failure(
    attempt: Attempt,
    failed: AttemptFailed,
    *,
    caller: str,
    fingerprint: Callable[[], str],
    began: float,
) -> float:
    """Hold a failure against whom it blames, here and everywhere; return how long the caller rests.

    `fingerprint` names what was asked, and `began` is when it was sent, by `time.monotonic`.
    """
    is_probe = _scopes.give_back(attempt)
    if failed.blame is None:
        return 0.0
    is_of_key = RULES[failed.blame].of_key
    now = time.monotonic()
    found = FailedAttempt(
        scope=attempt.key.health_id if is_of_key else attempt.upstream.target_id,
        blame=failed.blame,
        caller=name_of(caller),
        fingerprint=fingerprint(),
        at=now,
        dispatched_at=began,
        asked_s=failed.wait_s,
        is_probe=is_probe,
        reason=failed.reason,
    )
    outcome = _scopes.fail(found)
    _alert(attempt, failed, outcome)
    if outcome.is_told:
        _tell(evidence.of_failure(found, now))
        _keep(found.scope, failed.blame, now, failed.words)
    return outcome.rest_s


def _alert(attempt: Attempt, failed: AttemptFailed, outcome: BreakerOutcome) -> None:
    """Log what somebody has to look at, once until it is well again."""
    is_dead, is_doubt = failed.blame is Blame.DEAD, failed.blame is Blame.DOUBT
    facts = {"upstream": attempt.upstream.id, "key": attempt.key.id, "status": failed.status}
    if (is_dead and outcome.is_first) or (is_doubt and outcome.opens):
        logger.error("A provider refuses a key", extra=facts)
    elif outcome.opens and not is_dead:
        facts |= {"model": attempt.upstream.model, "reason": failed.reason}
        logger.warning("An upstream fails for several callers", extra=facts)


def wake(*scope_ids: str) -> None:
    """Hold nothing against these any longer: somebody has seen them serve. From any thread."""
    for scope_id in scope_ids:
        _scopes.wake_one(scope_id)
        pubsub.send(TOPIC, by=instance.ID, what=evidence.WOKEN, scope=scope_id)
    fields = [_field(scope_id, blame) for scope_id in scope_ids for blame in Blame]
    try:
        get_redis_connection("default").hdel(_key(), *fields)
    except RedisError:
        logger.warning("Unable to tell that an upstream works")


def forget() -> None:
    """Drop everything this process knows; for tests and for a fresh start."""
    global _revision, _scopes
    _scopes, _revision = Scopes(), None


def standings_from_redis(revision: int) -> Standings:
    """Return what instances hold against whom, by this revision. Empty without Redis."""
    return read_standings(revision) or {}


def read_standings(revision: int) -> Standings | None:
    """Return the same, None without Redis.

    Also what is held against nobody any longer, because its rest is long over: as long as nobody
    has succeeded since, the last that is known of it is that it failed.
    """
    try:
        with get_redis_connection("default").pipeline(transaction=False) as asked:
            now, kept = asked.time().hgetall(_key()).execute()
    except RedisError:
        return None
    told = _standings(kept.items(), now[0] * 1000 + now[1] // 1000)
    return _by_scope((scope_id, standing) for of, scope_id, standing in told if of == revision)


def own_standings() -> Standings:
    """Return what this process holds against whom: without Redis that is all that is known."""
    return _by_scope(_scopes.standings(time.monotonic()))


def _by_scope(standings: Iterable[tuple[str, BreakerState]]) -> Standings:
    found: defaultdict[str, list[BreakerState]] = defaultdict(list)
    for scope_id, standing in standings:
        if standing.rest_s or standing.is_open or RULES[standing.blame].is_plain:
            found[scope_id].append(standing)
    return {scope_id: tuple(each) for scope_id, each in found.items()}


def _standings(kept: Any, now_ms: int) -> Iterator[tuple[int, str, BreakerState]]:
    """Yield what makes sense of what Redis keeps, with its revision; `now_ms` is its own clock."""
    for field, value in kept:
        try:
            scope_id, _, blame = field.decode().partition(":")
            since, until, facts = value.split(b" ", 2)
            told = orjson.loads(facts)
            standing = BreakerState(
                Blame(blame),
                level=max(-1, min(16, int(told["level"]))),
                rest_s=evidence.seconds((int(until) - now_ms) / 1000),
                since_s=max(0.0, (now_ms - int(since)) / 1000),
                reason=evidence.word(told["reason"]),
                words=evidence.words(told.get("words", "")),
            )
            revision = int(told["revision"])
        except (ValueError, TypeError, KeyError, AttributeError):
            continue
        yield revision, scope_id, standing


def _key() -> str:
    return redis.key("health")


def _field(scope_id: str, blame: Blame) -> str:
    return f"{scope_id}:{blame}"


def _tell(facts: dict[str, Any]) -> None:
    pubsub.send_soon(TOPIC, by=instance.ID, revision=_revision, **facts)


def _tell_cleared(scope_id: str, since: float, now: float) -> None:
    _tell(evidence.of_success(scope_id, since, now))
    _drop_cleared(scope_id, now)


def _drop_cleared(scope_id: str, now: float) -> None:
    gone = [blame for blame in Blame if _scopes.standing(scope_id, blame, now) is None]
    if gone:
        redis.link().tell("HDEL", _key(), *(_field(scope_id, blame) for blame in gone))


def _keep(scope_id: str, blame: Blame, now: float, words: str) -> None:
    """Keep in Redis how a breaker stands, for instances that start and for people."""
    standing = _scopes.standing(scope_id, blame, now)
    if standing is None or not (standing.rest_s or standing.is_open):
        return
    facts = {
        "level": standing.level, "reason": standing.reason, "revision": _revision, "words": words
    }  # fmt: skip
    redis.link().tell(
        "EVAL", KEEP_STANDING_LUA, 1, _key(), _field(scope_id, blame),
        round(standing.rest_s * 1000), round(standing.since_s * 1000), orjson.dumps(facts),
        _revision or 0,
    )  # fmt: skip


def _learn(facts: dict[str, Any]) -> None:
    """Take another instance's word for it; what is known better here is answered."""
    what = facts.get("what")
    if what is None or facts.get("by") == instance.ID:
        return
    if what != evidence.WOKEN and facts.get("revision") != _revision:
        return
    now = time.monotonic()
    if answer := _scopes.learn(facts, now):
        _tell(answer)
    if what == evidence.CLEARED:
        # What this instance has kept of it may have come after it was cleared.
        _drop_cleared(evidence.word(facts["scope"]), now)


def _catch_up(_facts: dict[str, Any]) -> None:
    """Read what was told while this instance did not listen."""
    _read_kept(redis.link(), CATCH_UP_TRIES)


def _adopt(kept: list[tuple[int, str, BreakerState]]) -> None:
    """Take over what stands by the revision in force: the newest, before the first request."""
    global _revision  # noqa: PLW0603  as above
    if _revision is None:
        _revision = max((revision for revision, _, _ in kept), default=None)
    for revision, scope_id, standing in kept:
        if revision != _revision:
            continue
        if standing.rest_s or standing.is_open:
            _scopes.adopt(scope_id, standing, time.monotonic())
        else:
            _scopes.lapse(scope_id)


def _read_kept(link: redis.RedisLink, tries: int) -> None:
    def adopt(reply: asyncio.Future[Any]) -> None:
        if reply.cancelled() or reply.exception() or asked.exception():
            # This connection came up later than the one that listens.
            if tries > 1:
                loop.call_later(CATCH_UP_PAUSE_S, _read_kept, link, tries - 1)
            return
        now, told = asked.result(), reply.result()
        try:
            now_ms = int(now[0]) * 1000 + int(now[1]) // 1000
            kept = list(_standings(zip(told[::2], told[1::2], strict=True), now_ms))
        except (ValueError, TypeError, IndexError):
            return  # That was not Redis.
        _adopt(kept)

    loop = asyncio.get_running_loop()
    asked = link.send("TIME")
    link.send("HGETALL", _key()).add_done_callback(adopt)


pubsub.on(TOPIC, _learn)
pubsub.on(pubsub.CONNECTED, _catch_up)
