"""Probes: liveness touches nothing; readiness asks PostgreSQL and Redis, for at most a second.

Upstreams are deliberately no part of readiness: restarting us does not heal a provider.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any, Final

import hiredis
from django.conf import settings
from django.http import HttpRequest, JsonResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_safe

from airi_server.kernel import database, redis

BOUND_S: Final = 1.0


class Draining:
    """Whether this process has been told to stop: readiness fails first."""

    is_on = False


@csrf_exempt
@require_safe
async def livez(_request: HttpRequest) -> JsonResponse:
    return JsonResponse({"status": "live"})


@csrf_exempt
@require_safe
async def readyz(_request: HttpRequest) -> JsonResponse:
    db, cache = await asyncio.gather(_check(database.fetch("SELECT 1", {})), _check(_ping()))
    ready = db == cache == "ok" and not Draining.is_on
    body = {"status": "ready" if ready else "not_ready", "checks": {"db": db, "redis": cache}}
    return JsonResponse(body, status=200 if ready else 503)


@csrf_exempt
@require_safe
async def root(_request: HttpRequest) -> JsonResponse:
    return JsonResponse(
        {
            "service": "airi-api",
            "message": "AIRI server: an OpenAI-compatible API on prepaid Flux.",
            "docs": f"{settings.WEB_APP_URL}/docs",
            "ui": settings.WEB_APP_URL,
        }
    )


async def _ping() -> Any:
    link = redis.link()
    if not link.is_up:
        link.dial()
        await asyncio.sleep(0.05)
    return await link.send("PING")


async def _check(question: Awaitable[Any]) -> str:
    try:
        async with asyncio.timeout(BOUND_S):
            await question
    except (TimeoutError, OSError, hiredis.HiredisError, *database.AWAY):
        return "fail"
    return "ok"
