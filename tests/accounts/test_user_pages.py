"""The list of people and the page of one."""

import pytest

from accounts import users
from accounts.models import User
from tests.accounts.console import allow, audited, url
from tests.factories import accounts as make

pytestmark = pytest.mark.django_db

NOW = make.NOW


def listed(client, **query):
    return list(client.get(url("user", "changelist"), query).context["cl"].queryset)


@pytest.mark.usefixtures("root")
class TestList:
    @pytest.mark.parametrize("term", ["MIO@example.com", "mio@example.com "])
    def test_finds_by_whole_address(self, client, term):
        mio = make.user(email="Mio@example.com")
        make.user(email="other@example.com")

        assert listed(client, q=term) == [mio]

    def test_finds_by_id(self, client):
        mio = make.user()
        make.user()

        assert listed(client, q=mio.pk) == [mio]

    @pytest.mark.parametrize("part", [slice(0, 12), slice(0, 20), slice(8, 20)])
    def test_finds_by_how_a_key_begins(self, client, part):
        key, plaintext = make.api_key()
        make.api_key()

        assert listed(client, q=plaintext[part]) == [key.user]

    @pytest.mark.parametrize("term", ["%", "sk-airi-", "sk-airi-%", "x" * 5000, "@", "a\\"])
    def test_finds_nobody_by_nonsense(self, client, term):
        make.api_key()

        assert listed(client, q=term) == []

    def test_a_whole_key_is_not_repeated(self, client):
        _, plaintext = make.api_key()

        answer = client.get(url("user", "changelist"), {"q": plaintext})

        assert (answer.status_code, plaintext[20:] in answer["Location"]) == (302, False)

    @pytest.mark.parametrize(
        ("name", "columns"),
        [
            ("banned", {"banned": True}),
            ("email_verified", {"email_verified": True}),
            ("is_staff", {"is_staff": True}),
            ("is_active", {"is_active": True}),
        ],
    )
    def test_filters(self, client, root, name, columns):
        User.objects.filter(pk=root.pk).update(is_staff=True, is_active=True)
        wanted, other = make.user(), make.user()
        opposite = {column: not value for column, value in columns.items()}
        User.objects.filter(pk=wanted.pk).update(**columns)
        User.objects.filter(pk=other.pk).update(**opposite)

        found = listed(client, **{f"{name}__exact": "1"})

        assert (wanted in found, other in found) == (True, False)

    @pytest.mark.parametrize("lookup", ["password__startswith", "email__contains"])
    def test_nothing_else_can_be_probed(self, client, lookup):
        user = make.user(email="z@example.com")

        assert listed(client, **{lookup: "y"}) == listed(client)
        assert user in listed(client, **{lookup: "y"})

    def test_says_until_when_somebody_is_banned(self, client):
        user = make.user()
        users.ban(user_id=user.pk, reason="spam", until=NOW.replace(year=2999), at=NOW)

        page = client.get(url("user", "changelist")).content.decode()

        assert "Banned until 2999-03-01 12:00 UTC" in page


class TestPage:
    @pytest.mark.usefixtures("root")
    def test_an_id_may_look_quoted(self, client):
        user = User.objects.create_user("mio@x.example", id="_5F_41-")
        key, _ = make.api_key(owner=user)

        answer = client.get(url("user", "change", user.pk))
        verify = next(one["path"] for one in answer.context["actions_detail"])
        client.post(verify)
        history = client.get(url("user", "history", user.pk)).content.decode()
        owner = client.get(url("apikey", "change", key.pk)).content.decode()

        assert "Verified the address mio@x.example" in history
        assert url("user", "change", user.pk) in owner

    def test_tells_standing_keys_and_history(self, client, root):
        key, _ = make.api_key()
        users.ban(user_id=key.user_id, reason="spam", until=None, at=NOW)
        client.post(url("user", "unban", key.user_id), {"reason": "a mistake"})
        users.ban(user_id=key.user_id, reason="spam again", until=None, at=NOW)

        page = client.get(url("user", "change", key.user_id)).content.decode()

        for words in ("Banned for good", "spam again", key.prefix, "a mistake", root.email):
            assert words in page
        assert f"?q={key.user_id}" in page

    def test_links_only_to_what_the_operator_may_open(self, client, clerk):
        user = make.user()
        clerk.user_permissions.clear()
        allow(clerk, "view_user", "view_llmrequestlog")

        answer = client.get(url("user", "change", user.pk))

        assert [link.title for link in answer.context["links"]] == ["Requests"]
        assert b"New API key" not in answer.content

    @pytest.mark.parametrize(
        ("granted", "buttons"),
        [
            ("ban_user", ["Ban"]),
            ("verify_user", ["Verify"]),
            ("set_user_password", ["Set password"]),
        ],
    )
    def test_offers_what_the_operator_may_do(self, client, clerk, granted, buttons):
        allow(clerk, granted)

        answer = client.get(url("user", "change", make.user().pk))

        assert [action["title"] for action in answer.context["actions_detail"]] == buttons

    def test_offers_nothing_about_operators(self, client, clerk):
        allow(clerk, "ban_user", "change_user")

        answer = client.get(url("user", "change", make.user(is_staff=True).pk))

        assert answer.context["actions_detail"] == []


@pytest.mark.usefixtures("root")
class TestEditing:
    def test_changes_only_what_was_changed(self, client):
        user = make.user()
        User.objects.filter(pk=user.pk).update(banned=True)

        sent = {"email": user.email, "name": "Mio", "is_active": "on"}
        answer = client.post(url("user", "change", user.pk), sent)

        user.refresh_from_db()
        assert answer.status_code == 302
        assert (user.name, user.banned) == ("Mio", True)
        assert audited(user) == [
            ("accounts.change_user", f"Changed {user}. name: nothing → Mio"),
        ]

    def test_saving_the_same_leaves_no_trace(self, client):
        user = make.user()

        sent = {"email": user.email, "is_active": "on"}
        answer = client.post(url("user", "change", user.pk), sent)

        assert answer.status_code == 302
        assert audited(user) == []

    @pytest.mark.parametrize(
        ("email", "verified"), [("MIO@x.example", True), ("o@x.example", False)]
    )
    def test_a_new_address_has_to_be_verified_again(self, client, email, verified):
        user = make.user(email="mio@x.example", verified=True)

        client.post(url("user", "change", user.pk), {"email": email, "is_active": "on"})

        user.refresh_from_db()
        assert (user.email, user.email_verified) == (email, verified)

    def test_a_taken_address_is_told_at_the_field(self, client):
        make.user(email="taken@x.example")
        user = make.user()

        sent = {"email": "TAKEN@x.example", "is_active": "on"}
        answer = client.post(url("user", "change", user.pk), sent)

        assert answer.status_code == 200
        assert audited(user) == []

    def test_nobody_edits_their_own_powers(self, client, root):
        client.post(url("user", "change", root.pk), {"email": root.email, "name": "Root"})

        root.refresh_from_db()
        assert (root.name, root.is_superuser, root.is_active) == ("Root", True, True)

    @pytest.mark.parametrize("email", ["a\x00b@x.example", "x" * 300 + "@x.example", ""])
    def test_nonsense_is_refused_on_the_form(self, client, email):
        user = make.user()

        answer = client.post(url("user", "change", user.pk), {"email": email, "is_active": "on"})

        assert answer.status_code == 200

    def test_nobody_is_deleted_here(self, client):
        assert client.post(url("user", "delete", make.user().pk)).status_code == 403
