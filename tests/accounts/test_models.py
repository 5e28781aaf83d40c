from datetime import timedelta

import pytest
from django.db import IntegrityError, connection, transaction

from accounts.models import APIKey, User
from tests.factories import accounts as make

pytestmark = pytest.mark.django_db
NOW = make.NOW


def assert_refused(constraint, write):
    with pytest.raises(IntegrityError, match=constraint), transaction.atomic():
        write()


class TestUserConstraints:
    def test_an_address_is_unique_in_any_case(self):
        make.user(email="Mio@Example.com")

        assert_refused("user_email_uniq", lambda: User.objects.create_user("mIO@example.COM"))

    @pytest.mark.parametrize("user_id", ["", "a:b", "a b", "ä", "x" * 65, "line\n"])
    def test_an_id_can_be_part_of_a_redis_key(self, user_id):
        write = lambda: User.objects.create_user("a@example.com", id=user_id)  # noqa: E731

        assert_refused("user_id_shape", write)

    @pytest.mark.parametrize("email", ["", "nobody", "a@b@c", "a b@example.com"])
    def test_an_address_has_two_sides(self, email):
        assert_refused("user_email_shape", lambda: User.objects.create_user(email))

    @pytest.mark.parametrize("details", [{"ban_reason": "spam"}, {"ban_expires_at": NOW}])
    def test_ban_details_come_with_a_ban(self, details):
        assert_refused(
            "user_ban_details_only_with_a_ban",
            lambda: User.objects.create_user("a@example.com", **details),
        )


class TestUserManager:
    def test_finds_by_address_in_any_case(self):
        user = make.user(email="Mio@Example.com")

        assert User.objects.get_by_natural_key("mio@EXAMPLE.com") == user

    def test_makes_an_operator_for_djangos_own_command(self):
        root = User.objects.create_superuser("root@example.com", "a long password")

        assert (root.is_staff, root.is_superuser, root.email_verified) == (True, True, True)
        assert root.created_at is not None
        assert len(root.pk) == 21


class TestAPIKeyConstraints:
    @pytest.mark.parametrize(
        ("constraint", "columns"),
        [
            ("api_key_public_id_shape", {"public_id": "tooshort"}),
            ("api_key_public_id_shape", {"public_id": "has-a-dash-1"}),
            ("api_key_secret_hash_is_sha256", {"secret_hash": b"x" * 31}),
            ("api_key_name_not_empty", {"name": ""}),
            ("api_key_expires_after_creation", {"expires_at": NOW}),
            ("api_key_lists_are_short", {"allowed_models": ["m"] * 101}),
            ("api_key_lists_are_short", {"allowed_addresses": ["::1"] * 101}),
            ("api_key_limits_positive", {"limit_day": 0}),
            ("api_key_limits_positive", {"limit_month": -1}),
            ("api_key_limits_positive", {"limit_total": 0}),
            ("api_key_rates_not_negative", {"requests_per_minute": -1}),
            ("api_key_rates_not_negative", {"tokens_per_minute": -1}),
            ("api_key_rates_not_negative", {"parallel_requests": -1}),
        ],
    )
    def test_refuses(self, constraint, columns):
        key, _ = make.api_key()

        assert_refused(constraint, lambda: APIKey.objects.filter(pk=key.pk).update(**columns))

    def test_a_public_id_is_unique(self):
        taken, _ = make.api_key()
        key, _ = make.api_key()
        same = APIKey.objects.filter(pk=key.pk)

        assert_refused("api_key_public_id_uniq", lambda: same.update(public_id=taken.public_id))

    def test_every_constraint_is_tested(self):
        (mark,) = TestAPIKeyConstraints.test_refuses.pytestmark
        tested = {constraint for constraint, _ in mark.args[1]} | {"api_key_public_id_uniq"}

        assert tested == {constraint.name for constraint in APIKey._meta.constraints}

    def test_every_index_was_wanted(self):
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT indexname FROM pg_indexes WHERE tablename IN ('user', 'api_key')"
            )
            names = {name for (name,) in cursor.fetchall()}

        assert names == {
            "user_pkey",
            "user_email_uniq",
            "api_key_pkey",
            "api_key_public_id_uniq",
            "api_key_begins",
            "user_newest",
            "user_by_verified",
            "user_banned",
            "user_staff",
            "user_inactive",
            "api_key_user_newest",
        }


class TestRestricted:
    @pytest.mark.parametrize(
        "settings",
        [
            {"limit_day": 1},
            {"allowed_models": ["m"]},
            {"allowed_addresses": ["::1"]},
            {"expires_at": NOW + timedelta(days=1)},
            {"requests_per_minute": 1},
        ],
    )
    def test_any_restriction_counts(self, settings):
        assert make.api_key(**settings)[0].is_restricted

    def test_no_limit_on_rates_is_no_restriction(self):
        assert not make.api_key(requests_per_minute=0)[0].is_restricted
