"""How many sockets and users each running instance serves now, asked when somebody wants to know.

Nothing is written down: a question goes out over Redis, each instance answers from its memory
into a list that expires, and whoever asked waits for as many answers as were listening.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Final

import orjson
from django_redis import get_redis_connection
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from redis.exceptions import RedisError

from airi_server.kernel import ids, instance, pubsub, redis
from chats import telemetry

logger = logging.getLogger(__name__)

TOPIC: Final = "chats.presence"
WAIT_S: Final = 0.5
"""How long an instance may take to answer; one that is busy for longer is in trouble."""
POLL_S: Final = 0.1
"""Shorter than what a connection waits for any answer."""
DIAL_S: Final = 0.02
KEPT_S: Final = 10


class Present(BaseModel):
    """One instance: sockets that are open, also before anybody has authenticated, and users."""

    model_config = ConfigDict(strict=True, frozen=True)

    instance: Annotated[str, StringConstraints(min_length=1, max_length=64)]
    sockets: Annotated[int, Field(ge=0)]
    users: Annotated[int, Field(ge=0)]


@dataclass(frozen=True, slots=True)
class Presence:
    """What was answered. Without Redis only this instance is known."""

    present: tuple[Present, ...]
    has_asked: bool


def here() -> Present:
    """Return what this process serves."""
    counts = telemetry.counts
    return Present(instance=instance.ID, sockets=counts.connections, users=counts.users)


def ask() -> Presence:
    """Ask every instance and wait for the answers, `WAIT_S` at most. From synchronous code."""
    answers = redis.key("chats", "presence", ids.nanoid())
    try:
        listening = pubsub.ask(TOPIC, answers=answers)
        found = {each.instance: each for each in _collected(answers, listening)}
    except RedisError:
        logger.warning("Unable to ask the instances for their sockets")
        return Presence((here(),), has_asked=False)
    return Presence(tuple(found[name] for name in sorted(found)), has_asked=True)


def _collected(answers: str, listening: int) -> Iterator[Present]:
    """Yield answers until everybody who was listening has given one, or the time is up."""
    connection = get_redis_connection("default")
    until = time.monotonic() + WAIT_S
    while listening > 0 and time.monotonic() < until:
        came = connection.blpop([answers], timeout=POLL_S)
        if came is None:
            continue
        listening -= 1
        try:
            yield Present.model_validate_json(came[1])
        except ValidationError:
            logger.warning("Ignored an answer that could not be read")


def _answer(facts: dict[str, Any]) -> None:
    """Say what this process serves; only into a list of answers, whatever the question names."""
    answers = str(facts["answers"])
    if answers.startswith(redis.key("chats", "presence", "")):
        _say(answers, tries=round(WAIT_S / DIAL_S))


def _say(answers: str, tries: int) -> None:
    link = redis.link()
    if not link.is_up and tries:  # its first use here has only begun to connect it
        asyncio.get_running_loop().call_later(DIAL_S, _say, answers, tries - 1)
        return
    link.tell("RPUSH", answers, orjson.dumps(here().model_dump()))
    link.tell("EXPIRE", answers, KEPT_S)


pubsub.on(TOPIC, _answer)
