import asyncio
from collections.abc import AsyncIterator

import pytest_asyncio

from airi_server.kernel import database, redis
from airi_server.kernel.threads import in_thread
from tests.chats.clients import Client, envelope_a
from tests.factories import accounts as make_account
from tests.factories import chats as make


@pytest_asyncio.fixture
async def hot_loop(transactional_db):
    """A loop whose links and pool close with the test."""
    yield
    await redis.close()
    await database.close()


class People:
    """Users by first name, each with a key, and the sockets they have opened."""

    def __init__(self, served):
        self.served = served
        self.keys = {}
        self._clients = []

    async def know(self, name):
        if name not in self.keys:
            self.keys[name] = await in_thread(make_account.api_key)()
        return self.keys[name]

    def id_of(self, name):
        return self.keys[name][0].user_id

    def token_of(self, name):
        return self.keys[name][1]

    async def room(self, owner, *others):
        """Make a chat and return its id."""
        for name in (owner, *others):
            await self.know(name)
        chat = await in_thread(make.chat)(
            *(self.id_of(name) for name in others), owner=self.id_of(owner)
        )
        return chat.pk

    async def join(self, name, *, base_url=None, envelope=envelope_a):
        """Open a socket, past its first frame."""
        await self.know(name)
        client = await self.open(
            f"/ws/chat?token={self.token_of(name)}", base_url=base_url, envelope=envelope
        )
        frame = await client.event()
        assert frame["type"] == "eventa:adapters:hono-ws:connected"
        if base_url is not None:
            await client.hears_others()
        return client

    async def open(self, path, *, base_url=None, envelope=envelope_a, **more):
        url = (base_url or self.served.base_url) + path
        client = Client(await self.served.session.ws_connect(url, **more), envelope)
        self._clients.append(client)
        return client

    async def leave(self):
        await asyncio.gather(*(client.close() for client in self._clients))
        self._clients.clear()


@pytest_asyncio.fixture
async def people(served) -> AsyncIterator[People]:
    made = People(served)
    yield made
    await made.leave()
