"""A form acts once: loaded again, sent from the page before, or clicked twice at once."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Event

import pytest
from django.db import connection, transaction
from django.urls import reverse
from django.utils import timezone

from accounts.models import APIKey
from airi_server.kernel.errors import Conflict
from airi_server.runtime import used_forms
from airi_server.runtime.audit import AuditEntry
from airi_server.runtime.models import UsedForm
from tests.billing.test_ledger import at_once
from tests.console import rows
from tests.console.test_audit_rows import ACTING, PLACES, as_shown, example, prepare

GUARDED_OTHERWISE = {
    "accounts_apikey_change", "accounts_user_change", "auth_group_add", "auth_group_change",
    "auth_group_delete", "billing_priceversion_add", "grant_flux",
    "llmrouter_routerdefaults_change",
    "llmrouter_routermodel_add", "llmrouter_routermodel_change", "llmrouter_routermodel_delete",
    "llmrouter_routerupstream_change", "llmrouter_routerupstream_delete",
    "llmrouter_routerupstream_test", "reconciliation", "setting",
}  # fmt: skip
ADD_KEY = reverse("admin:accounts_apikey_add")


def superuser():
    return rows.client_of(is_staff=True, is_superuser=True)


def filled_in(client, owner):
    """Return the form of a new key, as a browser would send it."""
    return {"owner": owner, "name": "another", "once": client.get(ADD_KEY).context["once"]}


@pytest.mark.django_db
class TestNewKey:
    def test_is_made_once_and_a_reload_leads_to_its_page(self):
        client, owner = superuser(), rows.api_key_of("mio@example.com")[0].user
        form = filled_in(client, owner.email)

        first = client.post(ADD_KEY, form)
        again = client.post(ADD_KEY, form, follow=True)

        key = APIKey.objects.get(user=owner, name="another")
        page = reverse("admin:accounts_apikey_change", args=[key.pk])
        assert (first.status_code, first["Content-Location"]) == (200, page)
        assert first.context["plaintext"] not in again.content.decode()
        assert again.redirect_chain == [(page, 302)]
        assert "nothing was done again" in again.content.decode()

    def test_of_two_forms_are_two(self):
        client, owner = superuser(), rows.api_key_of("mio@example.com")[0].user

        for _ in range(2):
            client.post(ADD_KEY, filled_in(client, owner.email))

        assert APIKey.objects.filter(user=owner, name="another").count() == 2

    def test_that_was_refused_can_be_sent_again(self):
        client = superuser()
        form = filled_in(client, "mio@example.com")

        refused = client.post(ADD_KEY, form)
        assert refused.context["once"] == form["once"]
        owner = rows.api_key_of("mio@example.com")[0].user
        client.post(ADD_KEY, form)

        assert APIKey.objects.filter(user=owner, name="another").exists()

    @pytest.mark.parametrize("token", ["", "short", "a b c d e f", "x" * 65, "x\0xxxxxxxxx"])
    def test_with_no_token_of_ours_is_made_each_time(self, token):
        client, owner = superuser(), rows.api_key_of("mio@example.com")[0].user
        form = {"owner": owner.email, "name": "another", "once": token}

        for _ in range(2):
            assert client.post(ADD_KEY, form).status_code == 200

        assert APIKey.objects.filter(user=owner, name="another").count() == 2


@pytest.mark.django_db(transaction=True)
def test_two_clicks_at_once_make_one_key():
    client, owner = superuser(), rows.api_key_of("mio@example.com")[0].user
    form = filled_in(client, owner.email)

    def click(_):
        other = superuser()
        other.cookies = client.cookies
        return other.post(ADD_KEY, form).status_code

    assert sorted(at_once(4, click)) == [200, 302, 302, 302]
    assert APIKey.objects.filter(user=owner, name="another").count() == 1


@pytest.mark.django_db
def test_deleting_twice_leads_to_the_list_and_not_to_a_missing_page():
    client, key = superuser(), rows.api_key_of("mio@example.com")[0]
    url = reverse("admin:accounts_apikey_delete", args=[key.pk])
    form = {"reason": "lost", "once": client.get(url).context["once"]}

    answers = [client.post(url, form) for _ in range(2)]

    assert [each["Location"] for each in answers] == [
        reverse("admin:accounts_apikey_changelist")
    ] * 2
    assert client.post(url, {**form, "once": used_forms.new_token()}).status_code in (302, 404)
    assert not APIKey.objects.filter(pk=key.pk).exists()


@pytest.mark.django_db
def test_an_action_on_several_rows_is_done_once():
    client, key = superuser(), rows.api_key_of("mio@example.com")[0]
    url = reverse("admin:accounts_apikey_changelist")
    chosen = {"action": "disable_selected", "_selected_action": [str(key.pk)]}
    token = client.post(url, chosen).context["once"]
    form = {**chosen, "reason": "lost", "_apply": "", "once": token}

    for _ in range(2):
        assert client.post(url, form).status_code == 302

    assert AuditEntry.objects.filter(action="accounts.change_apikey").count() == 1


@pytest.mark.parametrize("name", ACTING)
def test_no_form_that_confirms_acts_twice(name):
    world = rows.make()
    prepare(name, world)
    url, client = PLACES[name].url(world.keys), superuser()
    token = (client.get(url).context or {}).get("once")
    if token is None:
        # No form that confirms: guarded by what it was looking at (`expected`, `seen`) or a key.
        assert name in GUARDED_OTHERWISE
        return
    form = {**as_shown(client, url), **example(name, world), "once": token}
    first = client.post(url, form)
    after = AuditEntry.objects.count()

    again = client.post(url, form)

    assert AuditEntry.objects.count() == after
    assert again.status_code == 302
    assert again["Location"] == (first.get("Location") or first.get("Content-Location"))


@pytest.mark.django_db
class TestUsedForms:
    def test_are_kept_for_a_day(self):
        now = timezone.now()
        old = now - used_forms.KEPT - timedelta(seconds=1)
        used_forms.first_time("a" * 20, at=old, act=lambda: "/a")
        used_forms.first_time("b" * 20, at=now - timedelta(hours=1), act=lambda: "/b")

        used_forms.first_time("c" * 20, at=now, act=lambda: "/c")

        assert set(UsedForm.objects.values_list("location", flat=True)) == {"/b", "/c"}

    def test_whose_act_fails_are_not_used(self):
        def refused():
            raise Conflict("not now")

        with pytest.raises(Conflict), transaction.atomic():
            used_forms.first_time("a" * 20, at=timezone.now(), act=refused)

        assert used_forms.location_of("a" * 20) is None


@pytest.mark.django_db(transaction=True)
def test_a_form_that_is_still_being_acted_on_is_said_to_be():
    begun, may_end = Event(), Event()

    def act() -> str:
        begun.set()
        may_end.wait(30)
        return "/done"

    def claim(act: Callable[[], str]) -> str | None:
        with transaction.atomic():
            return used_forms.first_time("a" * 20, at=timezone.now(), act=act)

    def claim_and_leave(act: Callable[[], str]) -> str | None:
        led_to = claim(act)
        connection.close()
        return led_to

    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(claim_and_leave, act)
        assert begun.wait(30)
        with pytest.raises(used_forms.StillRunning):
            claim(lambda: "/twice")
        may_end.set()
        assert first.result() is None

    assert claim(lambda: "/twice") == "/done"
