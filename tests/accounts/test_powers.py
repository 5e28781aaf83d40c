"""Nobody below a superuser touches operators, and nobody makes themselves more powerful."""

import pytest

from accounts.models import APIKey, User
from tests.accounts.console import allow, tick, url
from tests.factories import accounts as make

pytestmark = pytest.mark.django_db

BOSS = "boss@example.com"
POWERS = {"is_staff": "on", "is_superuser": "on", "is_active": "on"}
EVERYTHING = (
    "add_user", "change_user", "ban_user", "unban_user", "verify_user", "set_user_password",
    "add_apikey", "change_apikey", "delete_apikey",
)  # fmt: skip


@pytest.fixture
def operator(clerk):
    """Somebody with every permission who is no superuser."""
    allow(clerk, *EVERYTHING)
    return clerk


@pytest.fixture(autouse=True)
def admins(settings):
    settings.ADMIN_EMAILS = [BOSS]


def powerful(kind):
    if kind == "listed":
        return make.user(email="Boss@Example.com")
    return make.user(is_staff=True, is_superuser=kind == "superuser")


@pytest.mark.usefixtures("operator")
class TestOthers:
    @pytest.mark.parametrize("kind", ["staff", "superuser", "listed"])
    @pytest.mark.parametrize("page", ["change", "ban", "unban", "verify", "password"])
    def test_operators_are_left_to_superusers(self, client, kind, page):
        user = powerful(kind)

        answer = client.post(url("user", page, user.pk), {"email": user.email, "reason": "x"})

        assert answer.status_code == 403

    @pytest.mark.parametrize("kind", ["staff", "superuser", "listed"])
    def test_ticking_one_spares_everybody(self, client, kind):
        both = [make.user(), powerful(kind)]

        tick(client, "user", "verify_selected", *both)

        assert not User.objects.filter(email_verified=True).exists()

    @pytest.mark.parametrize("kind", ["staff", "superuser", "listed"])
    def test_nobody_gets_a_key_of_theirs(self, client, kind):
        owner = powerful(kind)

        answer = client.post(url("apikey", "add"), {"owner": owner.email, "name": "mine"})

        assert "their powers" in answer.content.decode()
        assert not APIKey.objects.exists()

    @pytest.mark.parametrize("page", ["change", "disable", "enable", "delete"])
    def test_their_keys_are_theirs(self, client, page):
        key, _ = make.api_key(owner=powerful("staff"), limit_day=5)

        answer = client.post(url("apikey", page, key.pk), {"name": "x", "reason": "x"})

        assert answer.status_code == 403

    def test_powers_sent_along_are_ignored(self, client):
        user = make.user()

        client.post(url("user", "change", user.pk), {"email": user.email, **POWERS})
        client.post(url("user", "add"), {"email": "new@example.com", **POWERS})

        assert User.objects.filter(is_staff=True).count() == 1
        assert User.objects.filter(email="new@example.com").exists()

    def test_an_address_that_may_do_everything_is_not_made_verified(self, client):
        sent = {"email": BOSS.upper(), "verified": "on"}

        answer = client.post(url("user", "add"), sent)

        assert "only superusers" in answer.content.decode()
        assert not User.objects.filter(email__iexact=BOSS).exists()

    def test_nor_taken_by_somebody_who_is_verified(self, client):
        user = make.user(verified=True)

        client.post(url("user", "change", user.pk), {"email": BOSS, "is_active": "on"})

        user.refresh_from_db()
        assert (user.email, user.email_verified) == (BOSS, False)


class TestOneself:
    @pytest.mark.parametrize("page", ["change", "ban", "verify", "password"])
    def test_an_operator_is_left_alone_by_themselves(self, client, operator, page):
        sent = {"email": operator.email, "reason": "x", **POWERS}

        assert client.post(url("user", page, operator.pk), sent).status_code == 403

    def test_a_superuser_cannot_ban_themselves(self, client, root):
        answer = client.post(url("user", "ban", root.pk), {"reason": "oops"})

        root.refresh_from_db()
        assert (answer.status_code, root.banned) == (403, False)

    def test_an_operator_manages_their_own_keys(self, client, operator):
        client.post(url("apikey", "add"), {"owner": operator.email, "name": "mine"})

        assert APIKey.objects.get().user == operator
