"""The console's door: what a login costs, what it gives away, and who may still try."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace
from unittest.mock import patch

import pytest
from django.conf import settings as configured
from django.contrib.auth.hashers import MD5PasswordHasher
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from accounts import attempts, users
from accounts.models import User
from airi_server.admin import login
from tests.cache import forget
from tests.factories import accounts as make

pytestmark = pytest.mark.django_db
URL = reverse("admin:login")
RIGHT = "correct horse"
COOKIE = configured.DEVICE_COOKIE_NAME


@pytest.fixture(autouse=True)
def _nobody_tried_yet(monkeypatch):
    attempts._local.clear()
    forget()
    # The end of a minute must not fall into a test.
    at = datetime(2026, 11, 21, 12, 0, 5, tzinfo=UTC)
    monkeypatch.setattr(login, "timezone", SimpleNamespace(now=lambda: at))


@pytest.fixture
def owner():
    return make.user(email="admin@example.com", is_staff=True, is_superuser=True, password=RIGHT)


@pytest.fixture
def hashes():
    """Count how often a password is hashed."""
    encode, made = MD5PasswordHasher.encode, []

    def counted(self, password, salt):
        made.append(password)
        return encode(self, password, salt)

    with patch.object(MD5PasswordHasher, "encode", counted):
        yield made


def log_in(client, email="admin@example.com", password="wrong", address="192.0.2.1", **more):
    fields = {"username": email, "password": password}
    return client.post(URL, fields, REMOTE_ADDR=address, **more)


def words(answer):
    """Return the errors of a form that was shown again."""
    return [str(error) for error in answer.context["form"].non_field_errors()]


def is_refused(answer):
    return answer.status_code == 200 and "Too many attempts" in words(answer)[0]


class TestBounds:
    def tried(self, rf, email, address="192.0.2.1", password="wrong"):
        """Fill in the form without the page around it; return whether the password was right."""
        request = rf.post(URL, REMOTE_ADDR=address)
        return login.LoginForm(request, {"username": email, "password": password}).is_valid()

    def test_of_a_thousand_logins_from_one_address_twenty_passwords_are_looked_at(
        self, rf, owner, hashes
    ):
        for number in range(999):
            assert not self.tried(rf, f"u{number}@example.com")

        assert not self.tried(rf, owner.email, password=RIGHT)
        assert len(hashes) == 20

    def test_of_a_thousand_logins_to_one_account_twenty_passwords_are_looked_at(
        self, rf, owner, hashes
    ):
        for number in range(1_000):
            assert not self.tried(rf, owner.email, f"198.51.{number // 250}.{number % 250}")

        assert not self.tried(rf, owner.email, password=RIGHT)
        assert len(hashes) == 20

    def test_another_spelling_of_an_account_is_no_other_account(self, client, owner):
        """What PostgreSQL compares as one address; Python has two."""
        for number in range(20):
            log_in(client, "admin@example.com", address=f"192.0.2.{number}")

        answer = log_in(client, "ADM\u0130N@example.com", password=RIGHT, address="192.0.2.99")

        assert is_refused(answer)

    def test_an_ipv6_client_that_moves_within_its_64_is_one_address(self, client, owner):
        for number in range(20):
            log_in(client, f"u{number}@example.com", address=f"2001:db8::{number:x}")

        assert is_refused(log_in(client, password=RIGHT, address="2001:db8::ffff"))

    def test_behind_a_proxy_callers_have_addresses_of_their_own(self, client, owner, settings):
        settings.TRUSTED_PROXIES = ["10.0.0.0/8"]
        for number in range(25):
            log_in(client, f"u{number}@example.com", address="10.0.0.1",
                   headers={"x-forwarded-for": "203.0.113.9"})  # fmt: skip

        other = log_in(client, password=RIGHT, address="10.0.0.1",
                       headers={"x-forwarded-for": "203.0.113.10"})  # fmt: skip
        assert other.status_code == 302

    def test_a_header_of_nobody_we_trust_moves_no_address(self, client, owner):
        for number in range(20):
            log_in(client, f"u{number}@example.com",
                   headers={"x-forwarded-for": f"203.0.113.{number}"})  # fmt: skip

        answer = log_in(client, password=RIGHT, headers={"x-forwarded-for": "203.0.113.99"})
        assert is_refused(answer)


class TestKnownDevice:
    def lock_out(self, client_class):
        """Use up the account from everywhere, and this very address."""
        stranger = client_class()
        for number in range(25):
            log_in(stranger, address=f"198.51.100.{number}")
        for number in range(25):
            log_in(stranger, f"u{number}@example.com")
        assert is_refused(log_in(stranger, password=RIGHT))

    def test_lets_the_owner_in_while_strangers_have_used_up_the_account(self, client, owner):
        assert log_in(client, password=RIGHT).status_code == 302
        client.cookies.pop(configured.SESSION_COOKIE_NAME)

        self.lock_out(type(client))

        assert log_in(client, password=RIGHT).status_code == 302

    def test_has_no_more_than_twenty_attempts_itself(self, client, owner, hashes):
        log_in(client, password=RIGHT)
        for _ in range(30):
            log_in(client)

        assert is_refused(log_in(client, password=RIGHT))
        assert len(hashes) == 21

    def test_of_another_account_does_not_help(self, client, owner):
        make.user(email="fresh@example.com", is_staff=True, password=RIGHT)
        assert log_in(client, "fresh@example.com", RIGHT).status_code == 302

        self.lock_out(type(client))

        assert is_refused(log_in(client, password=RIGHT))

    @pytest.mark.parametrize("cookie", ["forged", "x" * 4_000, "a.1:b", "\u00e9", ""])
    def test_is_not_made_by_writing_a_cookie(self, client, owner, cookie):
        client.cookies[COOKIE] = cookie

        self.lock_out(type(client))

        assert is_refused(log_in(client, password=RIGHT))

    def test_ends_with_the_password(self, client, owner):
        log_in(client, password=RIGHT)
        users.set_password(user_id=owner.pk, password="another horse", at=make.NOW)

        self.lock_out(type(client))

        assert is_refused(log_in(client, password="another horse"))

    def test_is_remembered_by_a_cookie_that_no_script_and_no_other_site_can_use(
        self, client, owner, settings
    ):
        settings.SESSION_COOKIE_SECURE = True

        cookie = log_in(client, password=RIGHT).cookies[COOKIE]

        assert (cookie["httponly"], cookie["secure"], cookie["samesite"]) == (True, True, "Lax")
        assert (cookie["max-age"], cookie["path"], cookie["domain"]) == (365 * 86_400, "/", "")

    def test_needs_no_https_where_a_session_does_not(self, client, owner):
        assert not log_in(client, password=RIGHT).cookies[COOKIE]["secure"]

    def test_is_remembered_by_nothing_but_a_login(self, client, owner):
        make.user(email="customer@example.com", password=RIGHT)

        answers = [
            log_in(client),
            log_in(client, "customer@example.com", RIGHT),
            client.get(URL),
        ]
        client.force_login(owner)
        answers += [client.get(URL), log_in(client)]

        assert [answer.status_code for answer in answers] == [200, 200, 200, 302, 200]
        assert not any(COOKIE in answer.cookies for answer in answers)


def somebody(kind):
    """Make a user of a kind and return their address; of nobody too."""
    match kind:
        case "unknown":
            return "nobody@example.com"
        case "banned":
            user = make.user(is_staff=True, password=RIGHT)
            users.ban(user_id=user.pk, reason="", until=None, at=make.NOW)
        case "inactive":
            user = make.user(is_staff=True, password=RIGHT)
            users.change(user_id=user.pk, is_active=False, at=make.NOW)
        case "without a password":
            user = make.user(is_staff=True)
        case "with a stored password nobody can read":
            user = make.user(is_staff=True)
            User.objects.filter(pk=user.pk).update(password="gibberish")
        case "customer":
            user = make.user(password=RIGHT)
        case _:
            user = make.user(is_staff=True, password=RIGHT)
    return user.email


KINDS = [
    "unknown", "banned", "inactive", "without a password", "with a stored password nobody can read",
    "customer", "staff",
]  # fmt: skip


class TestSilence:
    """Whoever does not know a password learns nothing about the account."""

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("device", ["", "x.1:y~z", "a" * 21 + ".1700000000:" + "b" * 43])
    def test_a_wrong_password_is_one_hash_and_the_same_answer(self, client, hashes, kind, device):
        email = somebody(kind)
        client.cookies[COOKIE] = device
        hashes.clear()

        with CaptureQueriesContext(connection) as asked:
            answer = log_in(client, email)

        assert len(hashes) == 1
        assert len(asked) == 3  # the user for the device, the address as compared, the user
        assert words(answer) == words(log_in(client, "nobody.else@example.com"))

    @pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "staff"])
    def test_a_right_password_without_a_right_to_enter_is_the_same_too(self, client, hashes, kind):
        email = somebody(kind)
        hashes.clear()

        answer = log_in(client, email, RIGHT)

        assert len(hashes) == 1
        assert words(answer) == words(log_in(client, "nobody.else@example.com"))

    @pytest.mark.parametrize("kind", KINDS)
    def test_of_a_used_up_account_is_no_hash_and_the_same_answer(self, client, hashes, kind):
        email = somebody(kind)
        for number in range(20):
            log_in(client, email, address=f"192.0.2.{number}")
        hashes.clear()

        with CaptureQueriesContext(connection) as asked:
            answer = log_in(client, email, RIGHT, address="192.0.2.99")

        assert hashes == []
        assert words(answer) == ["Too many attempts. Try again in 55 seconds."]
        assert len(asked) == 2

    def test_a_password_that_is_too_long_to_be_one_is_not_hashed(self, client, owner, hashes):
        hashes.clear()

        answer = log_in(client, password="x" * 5_000)

        assert answer.status_code == 200
        assert hashes == []
