"""Callers who stay are judged by the rule that let them in."""

from __future__ import annotations

import pytest

from accounts import revalidation
from accounts.revalidation import Caller
from airi_server.kernel import database
from airi_server.kernel.threads import in_thread
from tests.accounts.test_credentials import NOW, TABLE, change
from tests.factories import accounts as make

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.asyncio]
HERE = "10.0.0.1"


def caller_of(key, **other):
    return Caller(**{"user_id": key.user_id, "api_key_id": key.public_id, "address": HERE, **other})


@pytest.mark.parametrize("case", TABLE)
async def test_fall_when_their_key_would_be_refused(hot_loop, case):
    happen, stands, _ = TABLE[case]
    key, _token = await in_thread(make.api_key)()
    await in_thread(happen)(key)

    fallen = await revalidation.fallen({caller_of(key)}, at=NOW)

    assert fallen == (set() if stands else {caller_of(key)})


async def test_fall_one_by_one(hot_loop):
    (good, _), (bad, _) = await in_thread(make.api_key)(), await in_thread(make.api_key)()
    await in_thread(change)(bad, disabled=True)
    unknown = caller_of(good, api_key_id="A" * 12)
    foreign = caller_of(good, user_id="somebody")
    before = database.round_trips

    fallen = await revalidation.fallen({caller_of(good), caller_of(bad), unknown, foreign}, at=NOW)

    assert fallen == {caller_of(bad), unknown, foreign}
    assert database.round_trips == before + 1


async def test_fall_where_the_key_may_not_be_used_any_more(hot_loop):
    key, _token = await in_thread(make.api_key)()
    await in_thread(change)(key, allowed_addresses=["10.0.0.0/24"])

    fallen = await revalidation.fallen({caller_of(key), caller_of(key, address="10.1.0.1")}, at=NOW)

    assert fallen == {caller_of(key, address="10.1.0.1")}
