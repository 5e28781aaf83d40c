import re
import threading
from datetime import timedelta

import pytest
from django.db import connection

from accounts import keys
from accounts.models import APIKey
from airi_server.kernel.errors import InvalidRequest, NotFound
from tests.accounts.test_users import credentials_version
from tests.factories import accounts as make

pytestmark = pytest.mark.django_db
NOW = make.NOW
LATER = NOW + timedelta(days=1)


class TestCreate:
    def test_returns_the_plaintext_once(self):
        key, plaintext = make.api_key()

        assert re.fullmatch(r"sk-airi-[A-Za-z0-9]{12}[A-Za-z0-9]{40}", plaintext)
        assert plaintext.startswith(key.prefix)
        assert plaintext not in repr(vars(APIKey.objects.get()))

    def test_stores_settings_in_one_spelling(self):
        key, _ = make.api_key(
            allowed_models=["m", "m", "n"],
            allowed_addresses=["10.1.2.3/8", "10.0.0.0/8", "::ffff:192.0.2.1", "2001:DB8::1"],
            limit_day=5,
            requests_per_minute=0,
        )

        key.refresh_from_db()
        assert key.allowed_models == ["m", "n"]
        assert key.allowed_addresses == ["10.0.0.0/8", "192.0.2.1/32", "2001:db8::1/128"]
        assert (key.limit_day, key.limit_month, key.requests_per_minute) == (5, None, 0)

    def test_refuses_a_stranger(self):
        with pytest.raises(NotFound):
            keys.create(user_id="nobody", name="laptop", at=NOW)

    @pytest.mark.parametrize("settings", [{"expires_at": NOW}, {"allowed_addresses": ["here"]}])
    def test_refuses_what_cannot_work(self, settings):
        with pytest.raises(InvalidRequest):
            make.api_key(**settings)

        assert not APIKey.objects.exists()

    def test_refuses_one_too_many(self, monkeypatch):
        monkeypatch.setattr(keys, "MAX_PER_USER", 2)
        owner = make.user()
        make.api_key(owner=owner)
        make.api_key(owner=owner)

        with pytest.raises(keys.TooManyKeys):
            make.api_key(owner=owner)

        make.api_key()

    @pytest.mark.django_db(transaction=True)
    def test_a_race_does_not_exceed_the_limit(self, monkeypatch):
        monkeypatch.setattr(keys, "MAX_PER_USER", 3)
        owner, refused = make.user(), []

        def run():
            try:
                make.api_key(owner=owner)
            except keys.TooManyKeys:
                refused.append(1)
            finally:
                connection.close()

        threads = [threading.Thread(target=run) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert (APIKey.objects.count(), len(refused)) == (3, 3)


class TestChange:
    def test_leaves_what_is_not_named(self):
        key, _ = make.api_key(limit_day=5, allowed_models=["m"])

        changed = keys.change(
            user_id=key.user_id, public_id=key.public_id, at=NOW, limit_day=None, name="desk"
        )

        changed.refresh_from_db()
        assert (changed.name, changed.limit_day, changed.allowed_models) == ("desk", None, ["m"])

    @pytest.mark.parametrize(
        ("changes", "announced"), [({"name": "desk"}, 0), ({"limit_day": 9}, 1), ({}, 0)]
    )
    def test_announces_what_matters(self, changes, announced):
        key, _ = make.api_key()
        before = credentials_version()

        keys.change(user_id=key.user_id, public_id=key.public_id, at=NOW, **changes)

        assert credentials_version() == before + announced

    def test_disabling_again_keeps_the_first_time(self):
        key, _ = make.api_key()
        user_id, public_id = key.user_id, key.public_id

        keys.disable(user_id=user_id, public_id=public_id, at=NOW)
        keys.disable(user_id=user_id, public_id=public_id, at=LATER)

        key.refresh_from_db()
        assert key.disabled_at == NOW
        enabled = keys.change(user_id=user_id, public_id=public_id, at=LATER, disabled=False)
        assert enabled.disabled_at is None

    @pytest.mark.parametrize("act", [keys.change, keys.disable, keys.delete])
    @pytest.mark.parametrize("public_id", [None, "AAAAAAAAAAAA", "", "\x00", "ä", "%"])
    def test_foreign_and_missing_are_the_same(self, act, public_id):
        key, _ = make.api_key()
        at = {} if act is keys.delete else {"at": NOW}

        with pytest.raises(NotFound):
            act(user_id=make.user().pk, public_id=public_id or key.public_id, **at)

        key.refresh_from_db()
        assert key.disabled_at is None


class TestDelete:
    def test_leaves_nothing(self):
        key, _ = make.api_key()
        before = credentials_version()

        keys.delete(user_id=key.user_id, public_id=key.public_id)

        assert not APIKey.objects.exists()
        assert credentials_version() == before + 1


class TestEnsureMayManage:
    def test_lets_sessions_and_plain_keys_pass(self):
        key, _ = make.api_key()

        keys.ensure_may_manage(user_id=key.user_id, public_id=None)
        keys.ensure_may_manage(user_id=key.user_id, public_id=key.public_id)

    def test_refuses_a_restricted_key(self):
        key, _ = make.api_key(limit_total=10)

        with pytest.raises(keys.RestrictedKey):
            keys.ensure_may_manage(user_id=key.user_id, public_id=key.public_id)

    def test_refuses_a_key_that_is_gone(self):
        with pytest.raises(keys.RestrictedKey):
            keys.ensure_may_manage(user_id=make.user().pk, public_id="AAAAAAAAAAAA")
