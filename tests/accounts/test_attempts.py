from datetime import UTC, datetime, timedelta

import pytest
from django.conf import settings
from django.urls import reverse
from django_redis import get_redis_connection

from accounts import attempts
from tests.cache import forget
from tests.factories import accounts as make

AT = datetime(2026, 11, 21, 12, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _nobody_tried_yet():
    attempts._local.clear()
    forget()


def try_often(times, *, account="op@example.com", address="192.0.2.1", at=AT):
    for _ in range(times):
        attempts.take(account=account, address=address, at=at)


class TestTaking:
    def test_the_twenty_first_attempt_on_an_account_is_refused(self):
        try_often(20)

        with pytest.raises(attempts.TooManyAttempts) as refused:
            try_often(1, address="192.0.2.2", at=AT + timedelta(seconds=18))

        assert refused.value.retry_after_s == 42

    def test_an_account_is_the_same_in_any_case(self):
        try_often(20, account="Op@Example.com")

        with pytest.raises(attempts.TooManyAttempts):
            try_often(1, address="192.0.2.2")

    def test_the_twenty_first_attempt_from_an_address_is_refused(self):
        for number in range(20):
            try_often(1, account=f"u{number}@example.com")

        with pytest.raises(attempts.TooManyAttempts):
            try_often(1, account="another@example.com")

    def test_a_new_minute_starts_anew(self):
        try_often(20)

        try_often(1, at=AT + timedelta(seconds=60))

    def test_instances_count_together(self):
        try_often(20)
        attempts._local.clear()  # as another process would begin

        with pytest.raises(attempts.TooManyAttempts):
            try_often(1)

    def test_losing_redis_does_not_open_the_door(self):
        try_often(20)
        forget()

        with pytest.raises(attempts.TooManyAttempts):
            try_often(1)

    def test_no_address_is_written_into_redis(self):
        try_often(1)

        keys = get_redis_connection("default").keys(f"{settings.REDIS_PREFIX}:cache:*")
        assert any(b"attempts" in key for key in keys)
        assert not any(b"example" in key for key in keys)


@pytest.mark.django_db
class TestLogin:
    def test_the_right_password_is_refused_after_twenty_wrong_ones(self, client):
        user = make.user(is_staff=True, is_superuser=True, password="correct horse")
        url = reverse("admin:login")
        for _ in range(20):
            client.post(url, {"username": user.email, "password": "wrong"})

        answer = client.post(url, {"username": user.email, "password": "correct horse"})

        assert answer.status_code == 200
        assert "Too many attempts" in answer.content.decode()

    def test_the_right_password_opens(self, client):
        user = make.user(is_staff=True, is_superuser=True, password="correct horse")

        answer = client.post(
            reverse("admin:login"), {"username": user.email, "password": "correct horse"}
        )

        assert answer.status_code == 302
