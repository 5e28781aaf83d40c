import asyncio

import pytest
import pytest_asyncio
from django.contrib.auth.models import Permission

from airi_server.kernel import database, pubsub, redis
from airi_server.runtime import published
from tests.factories import accounts as make


@pytest_asyncio.fixture
async def hot_loop(transactional_db):
    """A loop as the entry prepares it, subscribed to hints; its links close with the test."""
    pubsub.listen()
    async with asyncio.timeout(5):
        while not pubsub._subscribers.get().is_up:
            await asyncio.sleep(0.01)
    await published.refresh()
    yield
    await pubsub.close()
    await redis.close()
    await database.close()


@pytest.fixture
def token(transactional_db):
    return make.api_key()[1]


@pytest.fixture
def root(client):
    user = make.user(is_staff=True, is_superuser=True)
    client.force_login(user)
    return user


@pytest.fixture
def clerk(client):
    """A member of staff who may see everything and change nothing."""
    user = make.user(is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__startswith="view_"))
    client.force_login(user)
    return user
