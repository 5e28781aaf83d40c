"""Two instances on one database: one effect for a key, deploys nobody notices, clocks apart."""

from __future__ import annotations

import asyncio
import itertools
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from airi_server.kernel.threads import in_thread
from billing.models import LLMRequestLog
from tests.factories import billing as make
from tests.factories import gateway
from tests.fakes.upstream import DONE, answer, frames, stream
from tests.faults import crowd
from tests.faults.crowd import Call
from tests.faults.gates import Gate
from tests.lab import books
from tests.lab.balancer import ReadyBalancer

pytestmark = pytest.mark.asyncio
HOUR_S = 3600
NOTICED_S = 4
"""Within this a balancer that is told by /readyz sends nothing more, however busy the machine."""
FOUND = LLMRequestLog.objects


async def started(fleet, *how):
    """Start an instance for each of the given circumstances, all at once."""
    instances = [fleet.launch(**each) for each in how]
    for each in instances:
        await asyncio.to_thread(each.ready)
    return instances


async def stop(*instances):
    for each in instances:
        each.send(signal.SIGTERM)
    for each in instances:
        await asyncio.to_thread(each.wait, 40)


async def test_fifty_at_once_with_one_client_key_have_one_effect(fleet, upstream):
    await gateway.route(upstream.base_url)
    caller = await gateway.caller(flux=1000)
    upstream.script(answer(after_s=0.3))
    both = await started(fleet, {}, {})

    calls = [Call(both[n % 2].base_url, caller.key, client_key="once") for n in range(50)]
    answers = await crowd.ask_all(calls)
    again = await crowd.ask_all(calls[:2])
    await stop(*both)

    assert {told.status for told in answers} <= {200, 409}
    assert {told.text for told in (*answers, *again) if told.status == 200} == {again[0].text}
    assert {told.status for told in again} == {200}
    assert len(upstream.seen) == 1
    assert await books.charges_of(caller.user_id) == [1]
    await books.are_in_order()


async def test_a_rolling_restart_fails_nobody_and_leaves_nothing_open(fleet, upstream):
    await gateway.route(upstream.base_url)
    caller = await gateway.caller(flux=100_000)
    bodies: Iterator[dict[str, Any]] = itertools.cycle([crowd.BODY, crowd.STREAM])

    async def step(request):
        streamed = (await request.json()).get("stream")
        made = stream(frames(*["word"] * 5), pause_s=0.03) if streamed else answer(after_s=0.1)
        return await made(request)

    upstream.script(step)
    instances = await started(fleet, *({"SHUTDOWN_DELAY_S": NOTICED_S} for _ in range(2)))
    enough = asyncio.Event()
    async with ReadyBalancer(*instances) as balancer, crowd.session() as clients:
        working = [
            asyncio.create_task(
                crowd.keep_asking(
                    clients, lambda: Call(balancer.base_url, caller.key, next(bodies)), enough
                )
            )
            for _ in range(6)
        ]
        for number in (0, 1):
            await stop(instances[number])
            port = instances[number].port
            (instances[number],) = await started(fleet, {"port": port})
            balancer.instances = tuple(instances)
        await asyncio.sleep(0.3)
        enough.set()
        answers = [told for mine in await asyncio.gather(*working) for told in mine]
    await stop(*instances)

    assert {(told.status, told.cut) for told in answers} == {(200, False)}
    streams = [told for told in answers if told.text.startswith(b"data:")]
    assert len(streams) > 5
    assert all(told.text.endswith(DONE) for told in streams)
    assert sum(await books.charges_of(caller.user_id)) == len(answers)
    instance_ids = FOUND.values_list("instance_id", flat=True).distinct()
    assert await in_thread(instance_ids.count)() == 4
    await books.are_in_order()


async def test_clocks_two_hours_apart_move_no_flux_and_end_nothing_early(fleet, upstream):
    """Deadlines, days of spending and who is gone: all of it on the database's clock."""
    await gateway.route(upstream.base_url)
    caller = await gateway.caller(flux=1000)
    limited = await gateway.caller(flux=1000, limit_day=6)
    gate = Gate()
    upstream.script(gate.step)
    both = await started(fleet, {"clock_shift_s": HOUR_S}, {"clock_shift_s": -HOUR_S})
    fast, slow = (each.base_url for each in both)

    streaming = asyncio.create_task(
        crowd.ask_all([Call(url, caller.key, crowd.STREAM) for url in (fast, slow)])
    )
    async with asyncio.timeout(20):
        while await in_thread(FOUND.filter(state="streaming").count)() < 2:
            await asyncio.sleep(0.02)
    untouched = await asyncio.to_thread(fleet.reconcile, "--settle")
    gate.open()
    streamed = await streaming
    upstream.script(answer())
    calls = [Call(url, limited.key, client_key="once") for url in (fast, slow)]
    calls += [Call(url, limited.key) for url in (fast, slow, fast, slow)]
    (first,), (replay,), *later = [await crowd.ask_all([each]) for each in calls]
    await stop(*both)

    assert "0 ended" in untouched
    assert all(told.text.endswith(DONE) for told in streamed)
    assert (first.status, replay.text) == (200, first.text)
    assert [told.status for (told,) in later] == [200, 402, 402, 402]
    assert await books.charges_of(caller.user_id) == [1, 1]
    assert await books.charges_of(limited.user_id) == [1, 1]
    off = "abs(extract(epoch FROM clock_timestamp() - opened_at)) > 600"
    assert await in_thread(make.run)(f"SELECT 1 FROM llm_request_log WHERE {off}", {}) == []
    await books.are_in_order()
