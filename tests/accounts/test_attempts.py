from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from django.conf import settings
from django_redis import get_redis_connection

from accounts import attempts
from tests.cache import forget

AT = datetime(2026, 11, 21, 12, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _nobody_tried_yet():
    attempts._local.clear()
    forget()


def try_often(times, *, account="op@example.com", address="192.0.2.1", at=AT, device=None):
    for _ in range(times):
        attempts.take(account=account, address=address, at=at, device=device)


def is_refused(**attempt):
    try:
        try_often(1, **attempt)
    except attempts.TooManyAttempts:
        return True
    return False


class TestTaking:
    def test_the_twenty_first_attempt_on_an_account_is_refused(self):
        try_often(20)

        with pytest.raises(attempts.TooManyAttempts) as refused:
            try_often(1, address="192.0.2.2", at=AT + timedelta(seconds=18))

        assert refused.value.retry_after_s == 42

    def test_an_account_is_the_same_in_any_case(self):
        try_often(20, account="Op@Example.com")

        assert is_refused(address="192.0.2.2")

    def test_the_twenty_first_attempt_from_an_address_is_refused(self):
        for number in range(20):
            try_often(1, account=f"u{number}@example.com")

        assert is_refused(account="another@example.com")

    def test_all_of_a_64_is_one_address_and_the_next_one_is_another(self):
        for number in range(20):
            address = f"2001:db8:0:1:{number:x}:{number:x}::1"
            try_often(1, account=f"u{number}@example.com", address=address)

        assert is_refused(account="another@example.com", address="2001:db8:0:1:ffff::")
        assert not is_refused(account="another@example.com", address="2001:db8:0:2::1")

    def test_an_ipv4_address_is_the_same_in_both_notations(self):
        for number in range(20):
            address = ("192.0.2.1", "::ffff:192.0.2.1")[number % 2]
            try_often(1, account=f"u{number}@example.com", address=address)

        assert is_refused(account="another@example.com")

    def test_an_address_that_is_refused_uses_up_nothing_of_an_account(self):
        for number in range(20):
            try_often(1, account=f"u{number}@example.com")
        assert all(is_refused() for _ in range(30))

        assert not is_refused(address="192.0.2.2")

    def test_a_new_minute_starts_anew(self):
        try_often(20)

        assert not is_refused(at=AT + timedelta(seconds=60))

    def test_instances_count_together(self):
        try_often(20)
        attempts._local.clear()  # as another process would begin

        assert is_refused()

    def test_losing_redis_does_not_open_the_door(self):
        try_often(20)
        forget()

        assert is_refused()

    def test_nor_does_a_memory_that_is_full_of_earlier_minutes(self, monkeypatch):
        monkeypatch.setattr(attempts, "MAX_KEPT", 5)
        try_often(1, account="earlier@example.com", at=AT - timedelta(seconds=60))
        try_often(20)
        forget()

        try_often(1, account="another@example.com", address="192.0.2.2")

        assert is_refused()
        assert len(attempts._local) == 4

    def test_and_a_memory_that_is_full_is_emptied(self, monkeypatch):
        monkeypatch.setattr(attempts, "MAX_KEPT", 4)
        for number in range(50):
            try_often(1, account=f"u{number}@example.com", address=f"192.0.2.{number}")

        assert len(attempts._local) <= 4

    def test_of_a_thousand_at_once_no_more_than_twenty_are_taken(self):
        with ThreadPoolExecutor(8) as pool:
            refused = list(pool.map(lambda _: is_refused(), range(1_000)))

        assert 10 < refused.count(False) <= 20  # two that overtake each other may both be refused

    def test_is_logged_once_when_a_limit_is_reached(self, caplog):
        try_often(20)
        for number in range(5):
            assert is_refused(address=f"192.0.2.{2 + number}")

        (line,) = [one for one in caplog.records if one.name == "accounts.attempts"]
        assert line.limit == "account"
        assert "example" not in line.getMessage()

    def test_no_address_is_written_into_redis(self):
        try_often(1)

        keys = get_redis_connection("default").keys(f"{settings.REDIS_PREFIX}:cache:*")
        assert any(b"attempts" in key for key in keys)
        assert not any(b"example" in key for key in keys)


class TestKnownDevice:
    def test_is_let_in_when_others_have_used_up_account_and_address(self):
        try_often(20)
        assert is_refused()

        assert not is_refused(device="phone")

    def test_has_twenty_attempts_of_its_own(self):
        try_often(20, device="phone")

        assert is_refused(device="phone")
        assert not is_refused(device="laptop")
        assert not is_refused()

    def test_counts_for_one_account(self):
        try_often(20, device="phone")

        assert not is_refused(device="phone", account="another@example.com")
