"""The list of API keys, the page of one, and what operators do to them."""

from datetime import UTC, datetime

import pytest

from accounts.models import APIKey
from tests.accounts.console import allow, audited, tick, url
from tests.factories import accounts as make

pytestmark = pytest.mark.django_db

PREFIX = len("sk-airi-")


def listed(client, term):
    return list(client.get(url("apikey", "changelist"), {"q": term}).context["cl"].queryset)


@pytest.mark.usefixtures("root")
class TestCreating:
    def test_shows_a_new_key_once(self, client):
        owner = make.user(email="mio@example.com")

        fields = {"name": "laptop", "limit_day": "5", "allowed_models": "m,n\r\nm"}
        answer = client.post(url("apikey", "add"), {"owner": "MIO@example.com", **fields})

        key = APIKey.objects.get()
        assert "no-store" in answer["Cache-Control"]
        assert answer.content.decode().count(key.prefix) == 1
        assert (key.user_id, key.limit_day, key.allowed_models) == (owner.pk, 5, ["m", "n"])
        assert audited(key) == [("accounts.add_apikey", "Created “laptop” for mio@example.com.")]

    @pytest.mark.parametrize(
        "fields",
        [
            {"owner": "nobody@example.com"},
            {"limit_day": "0"},
            {"requests_per_minute": "-1"},
            {"allowed_addresses": "nowhere"},
            {"allowed_addresses": "10.0.0.0/8\n" + "x" * 65},
            {"allowed_models": "m" * 201},
            {"allowed_models": "a\x00b"},
            {"allowed_models": ",".join(map(str, range(101)))},
            {"expires_at_0": "2001-01-01", "expires_at_1": "00:00"},
            {"limit_total": "9" * 30},
            {"name": ""},
            {"name": "a\x00b"},
        ],
    )
    def test_shows_refusals_on_the_form(self, client, fields):
        make.user(email="mio@example.com")

        sent = {"owner": "mio@example.com", "name": "laptop", **fields}
        answer = client.post(url("apikey", "add"), sent)

        form = answer.context["form"]
        assert answer.status_code == 200
        assert set(form.errors) <= {"__all__"} | {name.rstrip("01").rstrip("_") for name in fields}
        assert form.errors
        assert not APIKey.objects.exists()


@pytest.mark.usefixtures("root")
class TestChanging:
    def test_changes_limits_and_says_which(self, client):
        key, _ = make.api_key(limit_day=5, allowed_models=["m"])

        fields = {"name": key.name, "limit_month": "7", "allowed_addresses": "10.0.0.1/8"}
        answer = client.post(url("apikey", "change", key.pk), fields)

        key.refresh_from_db()
        assert answer.status_code == 302
        assert (key.limit_day, key.limit_month, key.allowed_models) == (None, 7, [])
        assert key.allowed_addresses == ["10.0.0.0/8"]
        ((_, sentence),) = audited(key)
        for words in ("limit day: 5 → nothing", "limit month: nothing → 7", "models: m → nothing"):
            assert words in sentence

    def test_lists_that_stay_the_same_were_not_changed(self, client):
        key, _ = make.api_key(allowed_models=["m", "n"])

        fields = {"name": key.name, "allowed_models": "m\r\nn"}
        answer = client.post(url("apikey", "change", key.pk), fields)

        assert answer.status_code == 302
        assert audited(key) == []

    def test_an_expired_key_can_be_renamed(self, client):
        now = datetime.now(UTC)
        key, _ = make.api_key(expires_at=now)
        fields = {"name": "old", "expires_at_0": now.date(), "expires_at_1": f"{now:%H:%M:%S}"}

        client.post(url("apikey", "change", key.pk), fields)

        key.refresh_from_db()
        assert (key.name, key.expires_at) == ("old", now)

    @pytest.mark.parametrize("how", ["one", "ticked"])
    def test_disables_and_enables_with_a_reason(self, client, how):
        key, _ = make.api_key()

        for action, disabled in (("disable", True), ("enable", False)):
            if how == "one":
                client.post(url("apikey", action, key.pk), {"reason": "leaked"})
            else:
                tick(client, "apikey", f"{action}_selected", key, reason="leaked")
            key.refresh_from_db()
            assert (key.disabled_at is not None) is disabled
        assert audited(key) == [
            ("accounts.change_apikey", "Disabled: leaked"),
            ("accounts.change_apikey", "Enabled: leaked"),
        ]

    @pytest.mark.parametrize("how", ["one", "ticked"])
    def test_deletes_with_a_reason(self, client, how):
        key, _ = make.api_key()

        for fields in ({}, {"reason": "leaked"}):
            assert APIKey.objects.exists()
            if how == "one":
                client.post(url("apikey", "delete", key.pk), fields)
            else:
                tick(client, "apikey", "delete_selected", key, **fields)

        assert not APIKey.objects.exists()
        assert audited(key) == [
            ("accounts.delete_apikey", f"Deleted {key.prefix} of {key.user}: leaked")
        ]


@pytest.mark.usefixtures("root")
class TestFinding:
    @pytest.mark.parametrize("cut", [PREFIX + 3, PREFIX + 12])
    def test_finds_by_how_a_key_begins(self, client, cut):
        key, plaintext = make.api_key()
        make.api_key()

        assert listed(client, plaintext[:cut]) == [key]

    def test_finds_by_owner(self, client):
        key, _ = make.api_key(owner=make.user(email="Mio@example.com"))
        make.api_key()

        assert listed(client, key.user_id) == [key]
        assert listed(client, "mio@EXAMPLE.com") == [key]

    def test_a_whole_key_lands_on_its_public_part(self, client):
        key, plaintext = make.api_key()

        answer = client.get(url("apikey", "changelist"), {"q": f" {plaintext} "}, follow=True)

        assert list(answer.context["cl"].queryset) == [key]
        assert plaintext[PREFIX + 12 :] not in answer.content.decode() + repr(answer.redirect_chain)

    @pytest.mark.parametrize("term", ["%", "_", "sk-airi-%", "nobody@example.com", "x" * 5000])
    def test_finds_nothing_by_nonsense(self, client, term):
        make.api_key()

        assert listed(client, term) == []

    @pytest.mark.parametrize("lookup", ["secret_hash__startswith", "user__password__startswith"])
    def test_nothing_can_be_probed(self, client, lookup):
        key, _ = make.api_key()

        for guess in "ay":
            page = client.get(url("apikey", "changelist"), {lookup: guess})
            assert list(page.context["cl"].queryset) == [key]


class TestPermissions:
    def test_a_clerk_may_only_look(self, client, clerk):
        key, _ = make.api_key()
        writes = [
            (url("apikey", "add"), {"owner": key.user.email, "name": "x"}),
            (url("apikey", "change", key.pk), {"name": "x"}),
            (url("apikey", "delete", key.pk), {"reason": "x"}),
            (url("apikey", "disable", key.pk), {"reason": "x"}),
            (url("apikey", "enable", key.pk), {"reason": "x"}),
        ]

        assert [client.post(*write).status_code for write in writes] == [403] * len(writes)
        assert client.get(url("apikey", "changelist")).status_code == 200
        answer = client.get(url("apikey", "change", key.pk))
        assert answer.context["actions_detail"] == []

    def test_who_may_change_keys_is_offered_what_makes_sense(self, client, clerk):
        allow(clerk, "change_apikey")
        key, _ = make.api_key()

        offered = []
        for reason in ("leaked", "found"):
            answer = client.get(url("apikey", "change", key.pk))
            (button,) = answer.context["actions_detail"]
            offered.append(button["title"])
            client.post(button["path"], {"reason": reason})

        assert offered == ["Disable", "Enable"]
