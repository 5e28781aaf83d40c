from datetime import timedelta

import pytest
from django.contrib.auth import authenticate

from accounts import users
from accounts.models import User
from airi_server.kernel.errors import InvalidRequest, NotFound
from airi_server.runtime.models import PublishedVersion
from tests.factories import accounts as make

pytestmark = pytest.mark.django_db
NOW = make.NOW
LATER = NOW + timedelta(days=1)


def credentials_version():
    row = PublishedVersion.objects.filter(name="credentials").first()
    return row.version if row else 0


class TestCreate:
    def test_keeps_the_address_as_it_was_written(self):
        user = make.user(email="Mio@Example.com", verified=True)

        user.refresh_from_db()
        assert (user.email, user.email_verified, user.created_at) == ("Mio@Example.com", True, NOW)
        assert not user.has_usable_password()

    def test_refuses_a_taken_address(self):
        make.user(email="mio@example.com")

        with pytest.raises(users.EmailTaken):
            make.user(email="MIO@example.com")

    @pytest.mark.parametrize(
        "email", ["", "mio", "mio@", "a\x00@example.com", '"a b"@example.com', "x" * 250 + "@a.de"]
    )
    def test_refuses_what_is_no_address(self, email):
        with pytest.raises(users.InvalidEmail):
            make.user(email=email)

    @pytest.mark.parametrize("password", ["", "short", "x" * 129, "long\x00enough"])
    def test_refuses_a_weak_password(self, password):
        with pytest.raises(users.WeakPassword):
            make.user(password=password)

        assert not User.objects.exists()


class TestBan:
    def test_is_announced(self):
        user, before = make.user(), credentials_version()

        users.ban(user_id=user.pk, reason="spam", until=LATER, at=NOW)

        user.refresh_from_db()
        assert user.is_banned(NOW)
        assert not user.is_banned(LATER)
        assert credentials_version() == before + 1

    def test_ends(self):
        user = make.user()
        users.ban(user_id=user.pk, reason="spam", until=None, at=NOW)

        users.unban(user_id=user.pk, at=NOW)

        user.refresh_from_db()
        assert not user.is_banned(NOW)

    def test_refuses_an_end_that_has_passed(self):
        with pytest.raises(InvalidRequest):
            users.ban(user_id=make.user().pk, reason="spam", until=NOW, at=NOW)

    @pytest.mark.parametrize("act", [users.unban, users.verify])
    def test_nobody_is_not_found(self, act):
        with pytest.raises(NotFound):
            act(user_id="nobody", at=NOW)

    def test_keeps_from_logging_in(self):
        user = make.user(email="mio@example.com", password="a long password")

        assert authenticate(username="MIO@example.com", password="a long password") == user
        users.ban(user_id=user.pk, reason="spam", until=None, at=NOW)
        assert authenticate(username="MIO@example.com", password="a long password") is None


class TestChange:
    def test_refuses_the_address_of_somebody_else(self):
        make.user(email="mio@example.com")

        with pytest.raises(users.EmailTaken):
            users.change(user_id=make.user().pk, at=NOW, email="MIO@example.com")

    def test_sets_a_password(self):
        user = make.user()

        users.set_password(user_id=user.pk, password="a long password", at=NOW)

        user.refresh_from_db()
        assert user.check_password("a long password")


class TestSession:
    def test_of_a_banned_user_ends(self, client):
        user = make.user(is_staff=True, is_superuser=True)
        client.force_login(user)
        assert client.get("/admin/").status_code == 200

        users.ban(user_id=user.pk, reason="spam", until=None, at=NOW)

        assert client.get("/admin/").status_code == 302
