"""Pub/sub between instances over one Redis channel; lost, doubled and late messages do no harm.

A hint names a topic and carries small facts. Whoever receives one looks at PostgreSQL before
believing it; without Redis every listener has a slower way to the same knowledge.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import orjson
from django.conf import settings
from django_redis import get_redis_connection
from redis.exceptions import RedisError

from airi_server.kernel import redis
from airi_server.kernel.loops import PerLoop

logger = logging.getLogger(__name__)

Handler = Callable[[dict[str, Any]], None]
CONNECTED = "connected"
"""Topic raised locally whenever the subscription is (re)made: hints may have been missed."""

_handlers: defaultdict[str, list[Handler]] = defaultdict(list)


def on(topic: str, handler: Handler) -> None:
    """Call `handler` with each hint of `topic`. Register at import; handlers must not block."""
    _handlers[topic].append(handler)


def send(topic: str, **facts: Any) -> None:
    """Publish from synchronous code, after its transaction has committed; failure is ignored."""
    try:
        ask(topic, **facts)
    except RedisError:
        logger.warning("Unable to notify other instances", extra={"topic": topic})


def ask(topic: str, **facts: Any) -> int:
    """Publish from synchronous code, and return how many processes were listening.

    Raises:
        RedisError: Redis is away, and nobody has heard it.
    """
    return int(get_redis_connection("default").publish(_channel(), _encode(topic, facts)))


def send_soon(topic: str, **facts: Any) -> None:
    """Publish from the hot path without waiting."""
    redis.link().tell("PUBLISH", _channel(), _encode(topic, facts))


def _subscribed() -> redis.RedisLink:
    def subscribe() -> None:
        made.subscribe(_channel(), _receive)
        _dispatch(CONNECTED, {})

    made = redis.RedisLink(settings.REDIS_URL, on_up=subscribe)
    made.dial()
    return made


_subscribers = PerLoop(_subscribed)


def listen() -> None:
    """Subscribe this loop, once."""
    _subscribers.get()


async def close() -> None:
    if subscriber := _subscribers.pop():
        await subscriber.close()


def _channel() -> str:
    return redis.key("notify")


def _encode(topic: str, facts: dict[str, Any]) -> bytes:
    return orjson.dumps({"topic": topic, **facts})


def _receive(_channel: bytes, message: bytes) -> None:
    try:
        facts = orjson.loads(message)
        topic = str(facts.pop("topic"))
    except (ValueError, AttributeError, KeyError, TypeError):
        logger.warning("Ignored a hint that could not be read")
        return
    _dispatch(topic, facts)


def _dispatch(topic: str, facts: dict[str, Any]) -> None:
    for handler in _handlers.get(topic, ()):
        try:
            handler(facts)
        except Exception:
            # A hint from another version must not end the subscription.
            logger.exception("A hint could not be handled", extra={"topic": topic})
