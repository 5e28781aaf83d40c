"""Who calls, what tests of whole exchanges ask of the rows, and how they hold a stream open."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import aiohttp
import orjson

from accounts.auth import Principal
from airi_server.kernel.ids import nanoid
from tests.factories import gateway

PATH = "/v1/chat/completions"
STREAM = {"model": "auto", "stream": True, "messages": [{"role": "user", "content": "hi"}]}


def principal(**fields):
    """Return who is calling, with a key and without a limit but those given."""
    rates = dict.fromkeys(("requests_per_minute", "tokens_per_minute", "parallel_requests"), 0)
    nothing = dict.fromkeys(Principal.__dataclass_fields__)
    return Principal(**{**nothing, **rates, "user_id": nanoid(), "api_key_id": nanoid(), **fields})


async def closed(count=1):
    """Return the rows once `count` of them have ended."""
    async with asyncio.timeout(15):
        while True:
            rows = await gateway.requests()
            if len(rows) == count and all(row.settled_at for row in rows):
                return rows
            await asyncio.sleep(0.02)


async def balance_is(caller, balance):
    account = await gateway.account(caller.user_id)
    assert (account.balance, account.held) == (balance, 0)
    debits = await gateway.debits(caller.user_id)
    assert len({debit.request_id for debit in debits}) == len(debits)


async def voided(caller):
    """Assert that nothing was charged and nothing is held; return the newest row."""
    row = (await gateway.requests())[-1]
    assert (row.state, row.flux_charged, row.usage_source) == ("voided", 0, "none")
    account = await gateway.account(caller.user_id)
    assert account.held == 0
    assert await gateway.debits(caller.user_id) == []
    return row


def interruption(body: bytes):
    """Return the error object of the last frame."""
    last = body.rstrip().split(b"\n\n")[-1]
    return orjson.loads(last.removeprefix(b"data: "))["error"]


@asynccontextmanager
async def opened(served, key, body=STREAM, path=PATH):
    """Begin a stream and leave it to the test to read; closing hangs up."""
    timeout = aiohttp.ClientTimeout(total=20)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        url = served.base_url + path
        async with session.post(url, json=body, headers=served.headers(key)) as response:
            yield response
            response.close()
