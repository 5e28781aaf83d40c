"""Who may call the operators' API (contract §9.8, case 91)."""

import pytest

from accounts import operators, users
from accounts.auth import authenticate_sync
from airi_server.kernel.errors import Forbidden, Unauthorized
from tests.accounts.console import allow
from tests.factories import accounts as make

pytestmark = pytest.mark.django_db

PERMISSION = "billing.grant_flux"
BOSS = "boss@example.com"
REQUIRED = "Admin access required"
UNVERIFIED = "Admin access requires a verified email"


@pytest.fixture(autouse=True)
def admins(settings):
    settings.ADMIN_EMAILS = [BOSS]


def call(user, **limits):
    """Let a user call with a key of theirs, for one thing that operators do."""
    _, token = make.api_key(owner=user, **limits)
    principal = authenticate_sync(f"Bearer {token}", address="127.0.0.1", at=make.NOW)
    return operators.ensure(principal, PERMISSION)


def refusal(user, **limits):
    with pytest.raises(Forbidden) as refused:
        call(user, **limits)
    return refused.value.message


class TestListed:
    def test_somebody_else_is_refused(self):
        assert refusal(make.user(verified=True)) == REQUIRED

    def test_an_address_that_is_not_verified_is_refused(self):
        assert refusal(make.user(email=BOSS)) == UNVERIFIED

    def test_an_empty_list_lists_nobody(self, settings):
        settings.ADMIN_EMAILS = []

        assert refusal(make.user(email=BOSS, verified=True)) == REQUIRED

    def test_the_address_may_be_in_any_case(self):
        user = make.user(email="Boss@Example.COM", verified=True)

        actor = call(user)

        assert (actor, actor.user_id) == (user.email, user.pk)


class TestStaff:
    def test_with_the_permission_is_allowed(self):
        clerk = make.user(is_staff=True, verified=True)
        allow(clerk, "change_options")

        _, token = make.api_key(owner=clerk)
        principal = authenticate_sync(f"Bearer {token}", address="127.0.0.1", at=make.NOW)

        assert operators.ensure(principal, "runtime.change_options") == clerk.email

    def test_with_another_permission_is_refused(self):
        clerk = make.user(is_staff=True, verified=True)
        allow(clerk, "change_options")

        assert refusal(clerk) == REQUIRED

    def test_the_permission_without_staff_is_not_enough(self):
        user = make.user(verified=True)
        allow(user, "change_options")

        assert refusal(user) == REQUIRED

    def test_a_superuser_is_allowed(self):
        root = make.user(is_staff=True, is_superuser=True, verified=True)

        assert call(root).user_id == root.pk

    def test_without_a_verified_address_is_refused(self):
        assert refusal(make.user(is_staff=True, is_superuser=True)) == UNVERIFIED


class TestKeysOfOperators:
    @pytest.mark.parametrize("limits", [{"limit_day": 5}, {"allowed_models": ["m"]}])
    def test_a_restricted_one_is_refused(self, limits):
        assert refusal(make.user(email=BOSS, verified=True), **limits) == REQUIRED

    @pytest.mark.parametrize("state", ["banned", "inactive"])
    def test_one_of_somebody_kept_out_is_no_credential(self, state):
        user = make.user(email=BOSS, verified=True)
        if state == "banned":
            users.ban(user_id=user.pk, reason="stolen", until=None, at=make.NOW)
        else:
            users.change(user_id=user.pk, is_active=False, at=make.NOW)

        with pytest.raises(Unauthorized):
            call(user)
