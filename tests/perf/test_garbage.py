"""What requests leave behind for the garbage collector: nothing, or memory would grow between runs.

The collector runs seldom on purpose. A request in a cycle keeps its body, its answer and its tasks
until then.
"""

from __future__ import annotations

import asyncio
import gc

import pytest

from airi_server.kernel import disconnects
from tests.factories import gateway
from tests.fakes.upstream import answer, frames, stream

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.asyncio]

PATH = "/v1/chat/completions"
BODY = {"model": "chat-default", "messages": [{"role": "user", "content": "Hello?"}]}
OURS = ("airi_server.", "accounts.", "billing.", "llmrouter.", "uvicorn.")
PAUSE_S = 0.05


@pytest.fixture
def collected():
    """Collect what is there already; then return a function that tells what has come since."""
    found: list[type] = []

    def collect():
        gc.set_debug(gc.DEBUG_SAVEALL)
        try:
            gc.collect()
            found[:] = [type(each) for each in gc.garbage]
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
        names = (f"{kind.__module__}.{kind.__qualname__}" for kind in found)
        return sorted({name for name in names if name.startswith(OURS)})

    gc.collect()
    gc.disable()
    yield collect
    gc.enable()


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """Have every request watch its client, as only slow ones do."""
    monkeypatch.setattr(disconnects, "PATIENCE_S", PAUSE_S / 2)


@pytest.mark.parametrize(
    ("step", "streamed"),
    [
        (answer(), False),
        (answer(after_s=4 * PAUSE_S), False),
        (stream(frames("a", "b"), pause_s=PAUSE_S), True),
    ],
    ids=["plain", "plain and slow", "stream"],
)
async def test_an_answer_leaves_nothing(served, upstream, still, collected, step, streamed):
    caller = await gateway.caller(flux=100_000)
    await gateway.route(upstream.base_url)
    body = {**BODY, "stream": streamed}
    upstream.script(step)
    await served.post(PATH, body, caller.key)
    await still()
    collected()

    upstream.script(step, step, step)
    for _ in range(3):
        assert (await served.post(PATH, body, caller.key)).status == 200
    await still()
    await asyncio.sleep(0)

    assert collected() == []
