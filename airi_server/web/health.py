"""Probes: liveness touches nothing; readiness asks PostgreSQL and Redis, for less than a second.

Without PostgreSQL nothing works, so only that and the shutdown are no readiness. Redis is reported:
it is everybody's, and without it everything goes on, so to be taken out of a balancer for it would
take out every instance at once. Upstreams are deliberately no part of it: restarting us does not
heal a provider.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from typing import Any, ClassVar, Final

import hiredis
from django.http import HttpRequest, JsonResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_safe

from airi_server.kernel import database, redis

logger = logging.getLogger(__name__)
BOUND_S: Final = 0.8

FAILURES: Final = (TimeoutError, OSError, hiredis.HiredisError, *database.AWAY)
_left: set[asyncio.Future[Any]] = set()
"""Abandoned checks, kept until they end: to cancel one could take seconds."""


class Draining:
    """Whether this process has been told to stop: readiness fails first."""

    is_on = False


class Told:
    """What the log was told last: probes come every second, and only a change is worth a line."""

    checks: ClassVar = {"db": "ok", "redis": "ok"}


@csrf_exempt
@require_safe
async def livez(_request: HttpRequest) -> JsonResponse:
    return JsonResponse({"status": "live"})


@csrf_exempt
@require_safe
async def readyz(_request: HttpRequest) -> JsonResponse:
    db, cache = await asyncio.gather(_check(database.fetch("SELECT 1", {})), _check(_ping()))
    checks = {"db": db, "redis": cache}
    if checks != Told.checks:
        Told.checks = checks
        logger.warning("What the server needs has changed", extra=checks)
    if db == "ok" and not Draining.is_on:
        return JsonResponse({"status": "ready", "checks": checks})
    answer = JsonResponse({"status": "not_ready", "checks": checks}, status=503)
    answer._has_been_logged = True  # type: ignore[attr-defined]  # noqa: SLF001  Django's own mark
    return answer


async def _ping() -> Any:
    link = redis.link()
    if not link.is_up:
        link.dial()
        await asyncio.sleep(0.05)
    return await link.send("PING")


async def _check(question: Awaitable[Any]) -> str:
    asked = asyncio.ensure_future(question)
    _left.add(asked)
    asked.add_done_callback(_forget)
    done, _ = await asyncio.wait({asked}, timeout=BOUND_S)
    if not done or isinstance(asked.exception(), FAILURES):
        return "fail"
    asked.result()
    return "ok"


def _forget(asked: asyncio.Future[Any]) -> None:
    _left.discard(asked)
    if not asked.cancelled():
        asked.exception()
