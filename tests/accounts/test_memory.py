"""What a process remembers of credentials, and how it learns that it should not."""

import asyncio
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from time import monotonic

import pytest
from django.conf import settings

from accounts import auth, keys, users
from accounts.auth import Memory, Principal, authenticate
from accounts.credentials import NOTHING, CredentialStanding
from accounts.models import APIKey
from airi_server.kernel import database
from airi_server.kernel.errors import Unauthorized
from airi_server.kernel.threads import in_thread
from airi_server.runtime import published
from tests.accounts.test_credentials import wrong_secret
from tests.factories import accounts as make

GOOD = CredentialStanding(principal=Principal("u", *[None] * 9))


async def call(token):
    """Authenticate as the entry does it."""
    await published.refresh()
    return await authenticate(f"Bearer {token}", address="192.0.2.1")


async def is_refused(token):
    try:
        await call(token)
    except Unauthorized:
        return True
    return False


async def settle(seconds, condition):
    """Wait until `condition` holds; return how long that took."""
    started = monotonic()
    while not await condition():
        assert monotonic() - started < seconds, "too late"
        await asyncio.sleep(0.02)
    return monotonic() - started


def silently_disable(token):
    """Disable the key as an instance would whose hint got lost: no version, no message."""
    APIKey.objects.filter(public_id=token[8:20]).update(disabled_at=make.NOW)


@pytest.mark.django_db(transaction=True)
@pytest.mark.asyncio
class TestMemory:
    async def test_a_second_call_asks_nobody(self, token, hot_loop):
        first = await call(token)
        before = database.round_trips

        assert await call(token) is first
        assert database.round_trips == before

    async def test_a_miss_is_one_round_trip(self, token, hot_loop):
        before = database.round_trips

        await call(token)

        assert database.round_trips == before + 1

    async def test_a_flood_of_one_bad_key_asks_once(self, token, hot_loop):
        bad, before = wrong_secret(token), database.round_trips

        for _ in range(50):
            assert await is_refused(bad)

        assert database.round_trips == before + 1

    async def test_a_flood_of_garbage_asks_nobody(self, hot_loop):
        before = database.round_trips

        for number in range(50):
            assert await is_refused(f"sk-airi-{number}")

        assert database.round_trips == before
        assert not auth.CREDENTIALS.current().refused

    async def test_a_good_key_is_forgotten_after_ten_seconds(self, token, hot_loop, monkeypatch):
        await call(token)
        await in_thread(silently_disable)(token)

        monkeypatch.setattr(auth, "monotonic", lambda: monotonic() + 9.5)
        await call(token)
        monkeypatch.setattr(auth, "monotonic", lambda: monotonic() + 10)
        assert await is_refused(token)

    async def test_a_bad_key_is_forgotten_after_two_seconds(self, token, hot_loop, monkeypatch):
        await in_thread(silently_disable)(token)
        assert await is_refused(token)
        await in_thread(APIKey.objects.update)(disabled_at=None)

        assert await is_refused(token)
        monkeypatch.setattr(auth, "monotonic", lambda: monotonic() + 2)
        await call(token)

    async def test_nothing_outlives_the_expiry(self, hot_loop, monkeypatch):
        now = datetime.now(UTC)
        soon = now + timedelta(seconds=3)
        _, token = await in_thread(make.api_key)(at=now, expires_at=soon)
        await call(token)

        monkeypatch.setattr(auth, "monotonic", lambda: monotonic() + 3)
        before = database.round_trips
        await call(token)

        assert database.round_trips == before + 1

    async def test_a_ban_is_not_remembered_past_its_end(self, token, hot_loop):
        now = datetime.now(UTC)
        key = await in_thread(APIKey.objects.get)()
        await in_thread(users.ban)(
            user_id=key.user_id, reason="spam", until=now + timedelta(seconds=0.5), at=now
        )
        assert await is_refused(token)

        await asyncio.sleep(0.55)
        await call(token)


class TestBounds:
    def test_a_full_memory_starts_over(self, monkeypatch):
        monkeypatch.setattr(auth, "MAX_KEPT", 3)
        memory = Memory()

        for number in range(10):
            memory.keep(b"%d" % number, NOTHING, until=0)

        assert len(memory.refused) == 1

    def test_bad_keys_do_not_push_out_good_ones(self, monkeypatch):
        monkeypatch.setattr(auth, "MAX_KEPT", 3)
        memory = Memory()
        memory.keep(b"good", GOOD, until=monotonic() + 1)

        for number in range(10):
            memory.keep(b"%d" % number, NOTHING, until=0)

        assert memory.recall(b"good") is GOOD


def disable(public_id):
    """Disable a key; called in another process."""
    key = APIKey.objects.get(public_id=public_id)
    keys.disable(user_id=key.user_id, public_id=public_id, at=make.NOW)


def disable_elsewhere(fleet, token, **patches):
    fleet.call(f"{__name__}:{disable.__name__}", token[8:20], **patches)


@pytest.mark.django_db(transaction=True)
@pytest.mark.asyncio
class TestChangesArrive:
    @pytest.mark.parametrize("act", ["disable", "delete", "ban"])
    async def test_at_once_where_they_were_made(self, token, hot_loop, act):
        await call(token)
        key = await in_thread(APIKey.objects.get)()
        names = {"user_id": key.user_id, "public_id": key.public_id}

        if act == "disable":
            await in_thread(keys.disable)(**names, at=make.NOW)
        elif act == "delete":
            await in_thread(keys.delete)(**names)
        else:
            await in_thread(users.ban)(user_id=key.user_id, reason="", until=None, at=make.NOW)

        assert await is_refused(token)

    async def test_by_a_message_from_another_process(self, fleet, token, hot_loop, monkeypatch):
        monkeypatch.setattr(published, "POLL_S", 600)
        monkeypatch.setattr(auth, "KEEP_S", 600)
        await call(token)

        await asyncio.to_thread(disable_elsewhere, fleet, token)

        await settle(10, lambda: is_refused(token))

    async def test_by_the_next_look_at_the_versions_without_redis(
        self, fleet, token, hot_loop, monkeypatch
    ):
        monkeypatch.setattr(published, "POLL_S", 600)
        monkeypatch.setattr(auth, "KEEP_S", 600)
        published._watches.get().due = 0
        await call(token)
        lost = {"default": {**settings.CACHES["default"], "LOCATION": "redis://127.0.0.1:1/0"}}
        await asyncio.to_thread(disable_elsewhere, fleet, token, CACHES=lost)

        assert not await is_refused(token)
        published._watches.get().due = 0
        assert await is_refused(token)

    async def test_what_was_read_before_a_change_is_never_recalled(self, token, hot_loop):
        """A miss that read the old state, and comes back after the change, must not be kept."""
        memory = auth.CREDENTIALS.current()
        key = await in_thread(APIKey.objects.get)()
        await in_thread(keys.disable)(user_id=key.user_id, public_id=key.public_id, at=make.NOW)
        memory.keep(sha256(token.encode()).digest(), GOOD, until=monotonic() + 10)

        assert await is_refused(token)
