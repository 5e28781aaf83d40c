"""One-time tickets: a browser opens a socket with one instead of putting a key into a URL.

A ticket lives in Redis, by its hash, and is gone once it was presented or after `KEEP_S`. It
stands for the key that asked for it, and opens a socket only where that key would.
"""

from __future__ import annotations

import asyncio
import hashlib
from datetime import datetime
from typing import Final

import orjson
from django_redis import get_redis_connection
from redis import Redis
from redis.exceptions import RedisError

from accounts.revalidation import Caller
from airi_server.kernel import ids, redis
from airi_server.kernel.errors import TooManyRequests, Unavailable
from chats import options

PREFIX: Final = "wst_"
LENGTH: Final = 43
KEEP_S: Final = 30
PAUSE_S: Final = 0.05
TRIES: Final = 20


class TooManyTickets(TooManyRequests):
    """As many as a key may have sockets were made while one is good."""


class TicketsAway(Unavailable):
    """Redis is away: tickets can neither be made nor looked at."""


def is_ticket(token: str) -> bool:
    return token.startswith(PREFIX)


def issue(caller: Caller, *, at: datetime) -> str:
    """Return a new ticket for a caller; no more than they may have sockets while one is good.

    Raises:
        TicketsAway: Nothing was made.
        TooManyTickets: The key has been given so many.
    """
    ticket = PREFIX + ids.base62(LENGTH)
    facts = orjson.dumps([caller.user_id, caller.api_key_id])
    store, limit = get_redis_connection("default"), options.CHAT_SOCKETS_PER_KEY.read()
    try:
        if limit and _counted(store, caller, at) > limit:
            raise TooManyTickets(
                f"At most {limit:,} tickets are made for a key in {KEEP_S} seconds.",
                retry_after_s=KEEP_S - int(at.timestamp()) % KEEP_S,
            )
        store.set(_key(ticket), facts, ex=KEEP_S)
    except RedisError:
        raise TicketsAway("Tickets are not available right now.", retry_after_s=1) from None
    return ticket


def _counted(store: Redis, caller: Caller, at: datetime) -> int:
    """Count a ticket in the window that is running, and return how many there are in it."""
    window = str(int(at.timestamp()) // KEEP_S)
    name = redis.key("ws-tickets", caller.api_key_id, window)
    with store.pipeline() as pipe:
        pipe.incr(name)
        pipe.expire(name, 2 * KEEP_S)
        return int(pipe.execute()[0])


async def redeem(ticket: str, *, address: str) -> Caller | None:
    """Take a ticket at an address; None if there is no such ticket, or not any more.

    The caller still has to stand: whoever was banned in the meantime holds a valid ticket, and so
    does whoever took it to an address that the key is not for.

    Raises:
        TicketsAway: It is unknown whether the ticket was taken.
    """
    try:
        found = await (await _connected()).ask("GETDEL", _key(ticket))
    except redis.FAILURES:
        raise TicketsAway("Tickets are not available right now.", retry_after_s=1) from None
    if not found:
        return None
    user_id, api_key_id = orjson.loads(found)
    return Caller(user_id, api_key_id, address)


async def _connected() -> redis.RedisLink:
    """Return the link, waiting a moment for it: the first ticket of a process needs it dialed."""
    link = redis.link()
    for _ in range(TRIES):
        if link.is_up:
            break
        await asyncio.sleep(PAUSE_S)
    return link


def _key(ticket: str) -> str:
    digest = hashlib.sha256(ticket.encode("utf-8", "replace")).hexdigest()
    return redis.key("ws-ticket", digest)
