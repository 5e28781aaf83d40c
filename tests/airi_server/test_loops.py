"""Per-loop singletons end with their loop, also those that nobody asks for any more."""

from __future__ import annotations

import asyncio
import gc
import weakref

from airi_server.kernel.loops import PerLoop


class Made:
    """It refers to its loop, as pools and links do."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()


async def made_in(*singletons):
    return [weakref.ref(each.get()) for each in singletons]


def test_is_one_for_each_loop():
    singleton = PerLoop(Made)

    async def twice():
        return singleton.get() is singleton.get()

    assert asyncio.run(twice())
    assert asyncio.run(twice())


def test_goes_once_its_loop_has_ended_and_anything_is_made_for_another():
    asked, forgotten = PerLoop(Made), PerLoop(Made)
    before = asyncio.run(made_in(asked, forgotten))

    [now] = asyncio.run(made_in(asked))
    gc.collect()

    assert [each() for each in before] == [None, None]
    assert now() is not None
