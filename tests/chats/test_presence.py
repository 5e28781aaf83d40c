"""Every instance says how many sockets and users it serves, when it is asked and only then."""

from __future__ import annotations

import asyncio

import pytest
from django.conf import settings as configured
from django_redis import get_redis_connection

from airi_server.admin import connections
from airi_server.kernel import instance, pubsub, redis
from airi_server.kernel.threads import in_thread
from airi_server.runtime import instances
from chats import presence

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.asyncio]
ask = in_thread(presence.ask)


@pytest.fixture
def elsewhere(fleet):
    return fleet.start(INSTANCE_ID="elsewhere")


async def asked_until(count):
    """Ask until the instances serve so many sockets: opening and closing takes a moment."""
    async with asyncio.timeout(10):
        while True:
            found = await ask()
            if sum(each.sockets for each in found.present) == count:
                return {each.instance: (each.sockets, each.users) for each in found.present}
            await asyncio.sleep(0.05)


class TestPresence:
    async def test_of_two_instances_is_counted_by_each(self, people, elsewhere):
        for name in ("ria", "ria", "mio"):
            await people.join(name)
        far = [await people.join("ria", base_url=elsewhere.base_url) for _ in range(2)]

        found = await asked_until(5)

        (there,) = (name for name in found if name != instance.ID)
        assert there.startswith("elsewhere.")
        assert found == {instance.ID: (3, 2), there: (2, 1)}
        for client in far:
            await client.close()
        assert (await asked_until(3))[there] == (0, 0)

    async def test_of_an_instance_that_has_to_connect_first_is_waited_for(self, hot):
        async with asyncio.timeout(10):
            while not (await ask()).present:  # it does not listen yet
                await asyncio.sleep(0.05)
        await redis.close()

        found = await ask()

        assert [each.instance for each in found.present] == [instance.ID]

    async def test_is_kept_nowhere(self, people):
        await people.join("ria")

        await ask()

        left = get_redis_connection("default").keys(redis.key("chats", "presence", "*"))
        assert left == []

    async def test_of_what_runs_and_says_nothing_is_said_to_be_missing(
        self, people, elsewhere, monkeypatch
    ):
        await people.join("ria")
        monkeypatch.setattr(presence, "_say", lambda *_, **__: None)

        found = await in_thread(connections.now)()

        (there,) = (each for each in found.instances if each.instance.startswith("elsewhere."))
        assert (there.sockets, there.users) == (0, 0)
        assert found.silent == [instances.shown(instance.ID)]

    async def test_without_redis_is_our_own(self, people, settings):
        await people.join("ria")
        nowhere = {**configured.CACHES["default"], "LOCATION": "redis://127.0.0.1:1/0"}
        settings.CACHES = {"default": nowhere}

        found = await in_thread(connections.now)()

        assert not found.has_asked
        assert found.silent == []
        assert [(each.sockets, each.users) for each in found.instances] == [(1, 1)]

    async def test_answers_go_only_where_answers_belong(self, people):
        await people.join("ria")
        other = redis.key("somewhere", "else")

        pubsub._receive(b"", pubsub._encode(presence.TOPIC, {"answers": other}))
        await ask()

        assert not get_redis_connection("default").exists(other)


class TestInstances:
    async def test_that_live_are_known_by_their_sessions(self, hot, elsewhere):
        live = await in_thread(instances.live)()

        assert instances.shown(instance.ID) in live
        assert [name for name in live if name.startswith("elsewhere.")]

    async def test_of_a_long_name_are_spelled_as_postgresql_cuts_it_off(self):
        name = "x" * 80

        assert instances.shown(name) == f"airi {name}"[:63].removeprefix("airi ")
