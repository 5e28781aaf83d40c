"""What the sockets report, by the names of the contract."""

from __future__ import annotations

import asyncio

import pytest
from opentelemetry.metrics import CallbackOptions

from chats import telemetry

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.asyncio]


async def test_counts_connections_and_users(people):
    before = telemetry.counts.connections
    await people.join("ria")
    again = await people.join("ria")
    await people.open("/ws/v2/chat")
    await people.join("mio")

    assert (telemetry.counts.connections - before, telemetry.counts.users) == (4, 2)
    await again.close()
    async with asyncio.timeout(5):
        while telemetry.counts.connections - before > 3:
            await asyncio.sleep(0.01)
    assert [o.value for o in telemetry._users(CallbackOptions())] == [2]


async def test_counts_a_message_once_whoever_receives_it(people, monkeypatch):
    counted: list[int] = []
    monkeypatch.setattr(telemetry, "messages_sent", counted.append)
    room = await people.room("ria", "mio")
    ria = await people.join("ria")
    for _ in range(3):
        await people.join("mio")

    await ria.send(room, "a", "b")
    await ria.send(room)

    assert counted == [2]
