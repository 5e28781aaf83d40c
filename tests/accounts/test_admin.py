from datetime import UTC, datetime

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission
from django.urls import reverse

from accounts.models import APIKey, User
from tests.factories import accounts as make

pytestmark = pytest.mark.django_db


@pytest.fixture
def root(client):
    user = make.user(is_staff=True, is_superuser=True)
    client.force_login(user)
    return user


@pytest.fixture
def clerk(client):
    """A member of staff who may see everything and change nothing."""
    user = make.user(is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__startswith="view_"))
    client.force_login(user)
    return user


def allow(user, *names):
    user.user_permissions.add(*Permission.objects.filter(codename__in=names))


def url(model, page, *args):
    return reverse(f"admin:accounts_{model}_{page}", args=args)


@pytest.mark.usefixtures("root")
class TestUsers:
    def test_adds_one_who_can_log_in(self, client):
        fields = {"email": "mio@example.com", "password": "a long password", "verified": "on"}

        answer = client.post(url("user", "add"), fields)

        user = User.objects.get(email="mio@example.com")
        assert answer.status_code == 302
        assert user.check_password("a long password")
        assert (user.email_verified, user.is_staff) == (True, False)

    @pytest.mark.parametrize(
        ("fields", "words"),
        [
            ({"email": "TAKEN@example.com"}, "already in use"),
            ({"email": "nobody"}, "valid email"),
            ({"email": "mio@example.com", "password": "short"}, "too short"),
        ],
    )
    def test_shows_refusals_on_the_form(self, client, fields, words):
        make.user(email="taken@example.com")

        answer = client.post(url("user", "add"), fields)

        assert answer.status_code == 200
        assert words in answer.content.decode()

    def test_bans_and_ends_the_ban(self, client):
        user = make.user()
        client.post(url("user", "ban", user.pk), {"reason": "spam"})
        user.refresh_from_db()
        assert (user.banned, user.ban_reason, user.ban_expires_at) == (True, "spam", None)
        assert LogEntry.objects.latest("id").get_change_message() == "Banned: spam"

        action = {"action": "unban_selected", "_selected_action": [user.pk]}
        client.post(url("user", "changelist"), action)

        user.refresh_from_db()
        assert not user.banned

    def test_a_ban_needs_a_reason_and_a_future(self, client):
        user = make.user()
        past = {"reason": "spam", "until_0": "2001-01-01", "until_1": "00:00"}

        for fields in ({}, past):
            assert client.post(url("user", "ban", user.pk), fields).status_code == 200

        user.refresh_from_db()
        assert not user.banned

    def test_verifies(self, client):
        user = make.user()

        action = {"action": "verify_selected", "_selected_action": [user.pk]}
        client.post(url("user", "changelist"), action)

        user.refresh_from_db()
        assert user.email_verified

    def test_sets_a_password(self, client):
        user = make.user()

        client.post(url("user", "password", user.pk), {"password": "a long password"})

        user.refresh_from_db()
        assert user.check_password("a long password")

    def test_changes_only_what_was_changed(self, client):
        user = make.user()
        page = client.get(url("user", "change", user.pk))
        fields = page.context["adminform"].form.initial
        User.objects.filter(pk=user.pk).update(banned=True)

        sent = {"email": fields["email"], "name": "Mio", "is_active": "on"}
        answer = client.post(url("user", "change", user.pk), sent)

        user.refresh_from_db()
        assert answer.status_code == 302
        assert (user.name, user.banned) == ("Mio", True)

    @pytest.mark.parametrize("term", ["MIO@example.com", "mio@example.com "])
    def test_finds_by_whole_address(self, client, term):
        mio = make.user(email="Mio@example.com")
        make.user(email="other@example.com")

        answer = client.get(url("user", "changelist"), {"q": term})

        assert list(answer.context["cl"].queryset) == [mio]

    def test_nobody_is_deleted_here(self, client):
        assert client.post(url("user", "delete", make.user().pk)).status_code == 403

    @pytest.mark.parametrize("user_id", ["nobody", "a\x00b"])
    def test_a_stranger_is_not_found(self, client, user_id):
        assert client.get(f"/admin/accounts/user/{user_id}/ban/").status_code == 404


@pytest.mark.usefixtures("root")
class TestAPIKeys:
    def test_shows_a_new_key_once(self, client):
        owner = make.user(email="mio@example.com")

        answer = client.post(
            url("apikey", "add"),
            {
                "owner": "MIO@example.com",
                "name": "laptop",
                "limit_day": "5",
                "allowed_models": "m,n",
            },
        )

        key = APIKey.objects.get()
        assert "no-store" in answer["Cache-Control"]
        assert answer.content.decode().count(key.prefix) == 1
        assert (key.user_id, key.limit_day, key.allowed_models) == (owner.pk, 5, ["m", "n"])

    @pytest.mark.parametrize(
        "fields",
        [
            {"owner": "nobody@example.com"},
            {"limit_day": "0"},
            {"requests_per_minute": "-1"},
            {"allowed_addresses": "nowhere"},
            {"expires_at_0": "2001-01-01", "expires_at_1": "00:00"},
            {"limit_total": "9" * 30},
            {"name": ""},
        ],
    )
    def test_shows_refusals_on_the_form(self, client, fields):
        make.user(email="mio@example.com")

        answer = client.post(
            url("apikey", "add"), {"owner": "mio@example.com", "name": "laptop", **fields}
        )

        assert answer.status_code == 200
        assert "errorlist" in answer.content.decode()
        assert not APIKey.objects.exists()

    def test_changes_limits(self, client):
        key, _ = make.api_key(limit_day=5)

        fields = {"name": key.name, "limit_day": "", "limit_month": "7"}
        answer = client.post(url("apikey", "change", key.pk), fields)

        key.refresh_from_db()
        assert answer.status_code == 302
        assert (key.limit_day, key.limit_month) == (None, 7)

    def test_an_expired_key_can_be_renamed(self, client):
        now = datetime.now(UTC)
        key, _ = make.api_key(expires_at=now)
        fields = {"name": "old", "expires_at_0": now.date(), "expires_at_1": f"{now:%H:%M:%S}"}

        client.post(url("apikey", "change", key.pk), fields)

        key.refresh_from_db()
        assert (key.name, key.expires_at) == ("old", now)

    def test_disables_and_enables(self, client):
        key, _ = make.api_key()

        for action, disabled in (("disable_selected", True), ("enable_selected", False)):
            client.post(
                url("apikey", "changelist"), {"action": action, "_selected_action": [key.pk]}
            )
            key.refresh_from_db()
            assert (key.disabled_at is not None) is disabled

    @pytest.mark.parametrize("how", ["one", "many"])
    def test_deletes(self, client, how):
        key, _ = make.api_key()

        if how == "one":
            client.post(url("apikey", "delete", key.pk), {"post": "yes"})
        else:
            action = {"action": "delete_selected", "_selected_action": [key.pk], "post": "yes"}
            client.post(url("apikey", "changelist"), action)

        assert not APIKey.objects.exists()

    @pytest.mark.parametrize("cut", [len("sk-airi-") + 3, len("sk-airi-") + 12, None])
    def test_finds_by_how_a_key_begins(self, client, cut):
        key, plaintext = make.api_key()
        make.api_key()

        answer = client.get(url("apikey", "changelist"), {"q": plaintext[:cut]})

        assert list(answer.context["cl"].queryset) == [key]

    def test_wildcards_find_nothing(self, client):
        make.api_key()

        answer = client.get(url("apikey", "changelist"), {"q": "%"})

        assert not answer.context["cl"].queryset


class TestPermissions:
    def test_a_clerk_may_only_look(self, client, clerk):
        user, (key, _) = make.user(), make.api_key()
        writes = [
            (url("user", "add"), {"email": "x@example.com"}),
            (url("user", "ban", user.pk), {"reason": "spam"}),
            (url("user", "password", user.pk), {"password": "a long password"}),
            (url("user", "change", user.pk), {"name": "x"}),
            (url("apikey", "add"), {"owner": user.email, "name": "x"}),
            (url("apikey", "change", key.pk), {"name": "x"}),
            (url("apikey", "delete", key.pk), {"post": "yes"}),
        ]

        assert [client.post(*write).status_code for write in writes] == [403] * len(writes)
        for model, pk in (("user", user.pk), ("apikey", key.pk)):
            assert client.get(url(model, "changelist")).status_code == 200
            assert client.get(url(model, "change", pk)).status_code == 200

    def test_each_action_has_its_own(self, client, clerk):
        allow(clerk, "ban_user")
        user = make.user()

        client.post(url("user", "ban", user.pk), {"reason": "spam"})

        user.refresh_from_db()
        assert user.banned
        assert client.post(url("user", "password", user.pk), {}).status_code == 403

    def test_staff_cannot_raise_themselves(self, client, clerk):
        allow(clerk, "change_user", "ban_user", "add_user")
        root = make.user(is_superuser=True, is_staff=True)
        powers = {"is_staff": "on", "is_superuser": "on", "is_active": "on"}

        for who in (clerk, root):
            sent = {"email": who.email, **powers}
            assert client.post(url("user", "change", who.pk), sent).status_code == 403
            assert client.post(url("user", "password", who.pk), {}).status_code == 403
            assert client.post(url("user", "ban", who.pk), {}).status_code == 403
        user = make.user()
        client.post(url("user", "change", user.pk), {"email": user.email, **powers})
        client.post(url("user", "add"), {"email": "new@example.com", **powers})

        assert User.objects.filter(is_staff=True).count() == 2
