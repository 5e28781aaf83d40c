"""What operators do to people: each thing with its permission, a reason and an audit row."""

from datetime import UTC, datetime

import pytest
from django.contrib.auth.models import Group

from accounts import users
from accounts.models import User
from tests.accounts.console import allow, audited, tick, url
from tests.factories import accounts as make

pytestmark = pytest.mark.django_db

NOW = make.NOW
NEW_YEAR = datetime(2999, 1, 1, tzinfo=UTC)


def banned(**columns):
    user = make.user(**columns)
    users.ban(user_id=user.pk, reason="spam", until=None, at=NOW)
    return user


@pytest.mark.usefixtures("root")
class TestCreating:
    def test_adds_one_who_can_log_in(self, client):
        fields = {"email": "mio@example.com", "password": "a long password", "verified": "on"}

        answer = client.post(url("user", "add"), fields)

        user = User.objects.get(email="mio@example.com")
        assert answer.status_code == 302
        assert user.check_password("a long password")
        assert (user.email_verified, user.is_staff) == (True, False)
        assert audited(user) == [("accounts.add_user", "Created mio@example.com, verified.")]

    def test_a_superuser_makes_staff_with_a_role(self, client):
        role = Group.objects.create(name="Billing")

        client.post(
            url("user", "add"), {"email": "mio@example.com", "is_staff": "on", "roles": role.pk}
        )

        user = User.objects.get(email="mio@example.com")
        assert (user.is_staff, list(user.groups.all())) == (True, [role])

    @pytest.mark.parametrize(
        ("fields", "words"),
        [
            ({"email": "TAKEN@example.com"}, "already in use"),
            ({"email": "nobody"}, "valid email"),
            ({"email": "a\x00b@example.com"}, "Null characters"),
            ({"email": "mio@example.com", "password": "short"}, "too short"),
        ],
    )
    def test_shows_refusals_on_the_form(self, client, fields, words):
        make.user(email="taken@example.com")

        answer = client.post(url("user", "add"), fields)

        assert answer.status_code == 200
        assert words in answer.content.decode()


@pytest.mark.usefixtures("root")
class TestOne:
    def test_is_banned_with_a_reason_and_an_end(self, client):
        user = make.user()

        until = {"until_0": "2999-01-01", "until_1": "00:00"}
        client.post(url("user", "ban", user.pk), {"reason": "spam", **until})

        user.refresh_from_db()
        assert (user.banned, user.ban_reason, user.ban_expires_at) == (True, "spam", NEW_YEAR)
        assert audited(user) == [("accounts.ban_user", "Banned until 2999-01-01 00:00 UTC: spam")]

    def test_a_ban_needs_a_reason_and_a_future(self, client):
        user = make.user()
        past = {"reason": "spam", "until_0": "2001-01-01", "until_1": "00:00"}

        for fields in ({}, past):
            assert client.post(url("user", "ban", user.pk), fields).status_code == 200

        user.refresh_from_db()
        assert not user.banned
        assert audited(user) == []

    def test_is_let_in_again_with_a_reason(self, client):
        user = banned()

        client.post(url("user", "unban", user.pk), {})
        client.post(url("user", "unban", user.pk), {"reason": "a mistake"})

        user.refresh_from_db()
        assert not user.banned
        assert audited(user) == [("accounts.unban_user", "Ended the ban: a mistake")]

    def test_is_verified_only_by_confirming(self, client):
        user = make.user()

        seen = []
        for ask in (client.get, client.post):
            ask(url("user", "verify", user.pk))
            user.refresh_from_db()
            seen.append(user.email_verified)

        assert seen == [False, True]
        assert [action for action, _ in audited(user)] == ["accounts.verify_user"]

    def test_gets_a_password_that_nobody_reads(self, client):
        user = make.user()

        fields = {"password": "a long password", "reason": "lost the old one"}
        client.post(url("user", "password", user.pk), fields)

        user.refresh_from_db()
        assert user.check_password("a long password")
        assert [action for action, _ in audited(user)] == ["accounts.set_user_password"]
        assert "a long password" not in repr(audited(user))

    def test_is_logged_out_by_a_new_password(self, client, root):
        other = make.user(is_staff=True, is_superuser=True)
        client.force_login(other)
        users.set_password(user_id=other.pk, password="another long one", at=NOW)

        assert client.get(url("user", "changelist")).status_code == 302

    @pytest.mark.parametrize("action", ["ban", "unban", "verify", "password"])
    @pytest.mark.parametrize("user_id", ["nobody", "a\x00b"])
    def test_a_stranger_is_not_found(self, client, action, user_id):
        assert client.post(f"/admin/accounts/user/{user_id}/{action}/").status_code == 404


@pytest.mark.usefixtures("root")
class TestSeveral:
    def test_are_asked_about_first(self, client):
        user = banned()

        answer = client.post(
            url("user", "changelist"),
            {"action": "unban_selected", "_selected_action": [user.pk]},
        )

        user.refresh_from_db()
        assert user.banned
        assert user.email in answer.content.decode()

    def test_are_let_in_together_and_audited_each(self, client):
        both = [banned(), banned()]

        answer = tick(client, "user", "unban_selected", *both, reason="amnesty")

        assert answer.status_code == 302
        assert not User.objects.filter(banned=True).exists()
        for user in both:
            assert audited(user) == [("accounts.unban_user", "Ended the ban: amnesty")]

    def test_are_verified(self, client):
        user = make.user()

        tick(client, "user", "verify_selected", user)

        user.refresh_from_db()
        assert user.email_verified
        assert len(audited(user)) == 1

    def test_nothing_happens_to_more_than_a_page(self, client):
        crowd = [make.user() for _ in range(101)]

        tick(client, "user", "verify_selected", *crowd)

        assert not User.objects.filter(email_verified=True).exists()


ACTIONS = {
    "ban_user": ("ban", {"reason": "spam"}),
    "unban_user": ("unban", {"reason": "a mistake"}),
    "verify_user": ("verify", {}),
    "set_user_password": ("password", {"password": "a long password", "reason": "lost"}),
}


class TestPermissions:
    @pytest.mark.parametrize("permission", ACTIONS)
    def test_each_action_has_its_own(self, client, clerk, permission):
        user = make.user()
        allow(clerk, permission)

        allowed = {
            name
            for name, (page, fields) in ACTIONS.items()
            if client.post(url("user", page, user.pk), fields).status_code == 302
        }

        assert allowed == {permission}
        assert [action for action, _ in audited(user)] == [f"accounts.{permission}"]

    @pytest.mark.parametrize("action", ["verify_selected", "unban_selected"])
    def test_what_is_ticked_needs_them_too(self, client, clerk, action):
        user = banned()

        tick(client, "user", action, user, reason="amnesty")

        user.refresh_from_db()
        assert (user.banned, user.email_verified) == (True, False)

    def test_a_clerk_may_only_look(self, client, clerk):
        user = make.user()

        for page, fields in [("add", {"email": "x@example.com"}), ("change", {"name": "x"})]:
            where = url("user", page, *([user.pk] if page == "change" else []))
            assert client.post(where, fields).status_code == 403
        assert client.get(url("user", "changelist")).status_code == 200
        assert client.get(url("user", "change", user.pk)).status_code == 200
