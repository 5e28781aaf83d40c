"""One decision table, held against both ways of reading: the statement and the ORM."""

import asyncio
import dataclasses
import hmac
from datetime import timedelta
from ipaddress import ip_network
from typing import Any

import pytest
from django.db import transaction

from accounts import credentials, keys, users
from accounts.credentials import NOTHING, APIKeys, CredentialStanding
from accounts.models import APIKey, User
from airi_server.kernel import database
from tests.factories import accounts as make

NOW = make.NOW
MINUTE = timedelta(minutes=1)
LATER = NOW + MINUTE


def ban(key, **columns):
    User.objects.filter(pk=key.user_id).update(banned=True, **columns)


# What happened to the key, and whether it stands at NOW and until when it says so.
TABLE = {
    "untouched": (lambda key: None, True, None),
    "disabled": (lambda key: change(key, disabled=True), False, None),
    "expired": (lambda key: expire(key, NOW), False, None),
    "expires soon": (lambda key: expire(key, LATER), True, LATER),
    "banned": (ban, False, None),
    "banned for now": (lambda key: ban(key, ban_expires_at=LATER), False, LATER),
    "ban is over": (lambda key: ban(key, ban_expires_at=NOW), True, None),
    "not active": (
        lambda key: users.change(user_id=key.user_id, at=NOW, is_active=False),
        False,
        None,
    ),
    "deleted": (lambda key: keys.delete(user_id=key.user_id, public_id=key.public_id), False, None),
}


def change(key, **changes):
    keys.change(user_id=key.user_id, public_id=key.public_id, at=NOW, **changes)


def expire(key, at):
    created_at = NOW - timedelta(days=1)
    APIKey.objects.filter(pk=key.pk).update(created_at=created_at, expires_at=at)


def both(token, at=NOW):
    """Resolve with the statement and with the ORM."""
    return by_statement(token, at), by_orm(token, at)


def wrong_secret(token):
    return token[:-1] + ("a" if token[-1] != "a" else "b")


@pytest.mark.django_db(transaction=True)
class TestDecision:
    @pytest.mark.parametrize("case", TABLE)
    def test_follows_the_table_whoever_reads(self, case):
        happen, stands, changes_at = TABLE[case]
        key, token = make.api_key()
        happen(key)

        standing, twin = both(token)

        assert standing == twin
        assert (standing.principal is not None) is stands
        assert standing.changes_at == (changes_at and changes_at.timestamp())

    @pytest.mark.parametrize("spoil", [wrong_secret, lambda t: t[:8] + "A" * 12 + t[20:]])
    def test_the_whole_key_counts(self, spoil):
        _, token = make.api_key()

        assert both(spoil(token)) == (NOTHING, NOTHING)

    def test_a_principal_carries_what_was_set(self):
        key, token = make.api_key(
            allowed_models=["m", "n"],
            allowed_addresses=["10.0.0.0/8"],
            limit_day=1,
            limit_month=2,
            limit_total=3,
            requests_per_minute=4,
            tokens_per_minute=0,
            expires_at=LATER,
        )
        principal = credentials.Principal(
            user_id=key.user_id,
            api_key_id=key.public_id,
            allowed_models=frozenset({"m", "n"}),
            requests_per_minute=4,
            tokens_per_minute=0,
            parallel_requests=None,
            limit_day=1,
            limit_month=2,
            limit_total=3,
            expires_at=LATER.timestamp(),
        )
        networks = (ip_network("10.0.0.0/8"),)
        expected = CredentialStanding(principal, networks, LATER.timestamp())

        assert both(token) == (expected, expected)

    def test_a_list_nobody_can_read_allows_nothing(self):
        key, token = make.api_key()
        APIKey.objects.filter(pk=key.pk).update(allowed_addresses=["spoilt"])

        assert both(token)[0].networks == ()

    def test_compares_in_constant_time(self, monkeypatch):
        compared = []
        monkeypatch.setattr(hmac, "compare_digest", lambda *pair: compared.append(pair))
        _, token = make.api_key()

        both(token)

        assert [len(bytes(one)) for pair in compared for one in pair] == [32] * 4


def last_use(key):
    key.refresh_from_db()
    return key.last_used_at


def by_statement(token, at):
    async def resolve():
        try:
            return await APIKeys().resolve(token, at=at)
        finally:
            await database.close()

    return asyncio.run(resolve())


def by_orm(token, at):
    return APIKeys().resolve_sync(token, at=at)


@pytest.mark.django_db(transaction=True)
class TestLastUse:
    @pytest.mark.parametrize("read", [by_statement, by_orm])
    def test_is_touched_at_most_once_a_minute(self, read):
        key, token = make.api_key()

        for seconds, expected in [(0, 0), (59, 0), (60, 60), (61, 60), (119, 60), (120, 120)]:
            read(token, NOW + timedelta(seconds=seconds))

            assert last_use(key) == NOW + timedelta(seconds=expected)

    @pytest.mark.parametrize("read", [by_statement, by_orm])
    def test_its_owner_is_seen_at_most_once_a_minute(self, read):
        owner = make.user()
        tokens = [make.api_key(owner=owner)[1] for _ in range(2)]

        for seconds, expected in [(0, 0), (30, 0), (61, 61), (100, 61), (161, 161)]:
            read(tokens[seconds % 2], NOW + timedelta(seconds=seconds))

            owner.refresh_from_db()
            assert owner.last_seen_at == NOW + timedelta(seconds=expected)

    def test_an_owner_being_changed_is_read_without_waiting(self):
        key, token = make.api_key()

        with transaction.atomic():
            User.objects.select_for_update().get(pk=key.user_id)
            standing = by_statement(token, NOW)

        key.user.refresh_from_db()
        assert standing.principal is not None
        assert (last_use(key), key.user.last_seen_at) == (NOW, None)

    def test_a_wrong_secret_is_no_use(self):
        key, token = make.api_key()

        both(wrong_secret(token))

        assert last_use(key) is None
        key.user.refresh_from_db()
        assert key.user.last_seen_at is None

    def test_never_goes_back(self):
        key, token = make.api_key()
        both(token, at=LATER)

        both(token, at=NOW)

        assert last_use(key) == LATER

    def test_a_key_being_changed_is_read_without_waiting(self):
        key, token = make.api_key()

        with transaction.atomic():
            APIKey.objects.select_for_update().get(pk=key.pk)
            standing = by_statement(token, NOW)

        assert standing.principal is not None
        assert last_use(key) is None

    def test_concurrent_uses_touch_once(self):
        key, token = make.api_key()

        async def run():
            uses = (APIKeys().resolve(token, at=NOW) for _ in range(20))
            try:
                return await asyncio.gather(*uses)
            finally:
                await database.close()

        standings = asyncio.run(run())

        assert len(set(map(repr, standings))) == 1
        assert last_use(key) == NOW


class TestRecognizes:
    @pytest.mark.parametrize(
        "token",
        [
            "",
            "sk-airi-",
            "sk-airi-" + "a" * 51,
            "sk-airi-" + "a" * 53,
            "sk-airi-" + "a" * 51 + "-",
            "sk-airi-" + "a" * 51 + "ä",
            "sk-airi-" + "a" * 51 + "\n",
            "sk-airi-" + "a" * 51 + "٣",
            "SK-AIRI-" + "a" * 52,
            "sk-openai" + "a" * 51,
        ],
    )
    def test_nothing_but_a_key(self, token):
        assert credentials.kind_of(token) is None

    def test_a_key(self):
        assert isinstance(credentials.kind_of("sk-airi-" + "a" * 52), APIKeys)


class TestRepresentation:
    def test_a_stored_key_hides_its_hash(self):
        columns: Any = {field.name: None for field in dataclasses.fields(credentials.StoredKey)}
        stored = credentials.StoredKey(**{**columns, "secret_hash": b"secret"})

        assert "secret" not in repr(stored).replace("secret_hash", "")
