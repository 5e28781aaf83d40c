"""Operator settings in the admin: seen, changed with a reason, refused with one."""

from __future__ import annotations

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission
from django.urls import reverse

from airi_server.runtime import options as runtime
from airi_server.runtime.models import OptionRevision, PublishedVersion
from billing import options
from billing.models import PriceVersion
from tests.factories import accounts
from tests.factories import billing as make

pytestmark = pytest.mark.django_db
LIST = reverse("admin:runtime_optionrevision_changelist")


def page(name="FLUX_PER_REQUEST"):
    return reverse("admin:runtime_optionrevision_change", args=[name])


def staff(client, *names, **columns):
    user = accounts.user(is_staff=True, **columns)
    user.user_permissions.set(Permission.objects.filter(codename__in=names))
    client.force_login(user)
    return user


@pytest.fixture
def operator(client):
    return staff(client, "change_options")


class TestList:
    def test_shows_every_setting_with_value_default_and_help(
        self, client, operator, django_assert_num_queries
    ):
        runtime.put("FLUX_PER_REQUEST", 7, by="ria", at=make.NOW)
        runtime.put("FLUX_PER_REQUEST", 8, by="zoe", at=make.NOW)

        # session, user, permissions (2); newest ids, newest revisions
        with django_assert_num_queries(6):
            answer = client.get(LIST)

        rows = {row.name: row for row in answer.context["rows"]}
        assert set(rows) == set(runtime.REGISTRY)
        assert list(rows) == sorted(rows)
        changed = rows["FLUX_PER_REQUEST"]
        assert (changed.value, changed.default, changed.newest.changed_by) == ("8", "5", "zoe")
        assert rows["FLUX_PER_1K_TOKENS"].value == "1"
        unset = [row for row in rows.values() if row.default == "not set"]
        assert all(runtime.REGISTRY[row.name].default is runtime.UNSET for row in unset)
        assert rows["INITIAL_USER_FLUX"].help in answer.content.decode()


class TestChange:
    def test_puts_the_value_with_who_and_why(self, client, operator):
        answer = client.post(page(), {"value": " 9 ", "note": "costs went up"}, follow=True)

        assert answer.redirect_chain == [(LIST, 302)]
        assert options.FLUX_PER_REQUEST.read() == 9
        revision = OptionRevision.objects.get()
        assert (revision.changed_by, revision.note) == (operator.get_username(), "costs went up")
        entry = LogEntry.objects.get()
        assert entry.get_change_message() == "Set FLUX_PER_REQUEST to 9: costs went up"
        assert PriceVersion.objects.get().flux_per_request == 9
        assert set(PublishedVersion.objects.values_list("name", flat=True)) == {"options", "prices"}
        shown = client.get(page())
        (line,) = shown.context["history"]
        assert (line.text, line.note) == ("9", "costs went up")

    @pytest.mark.parametrize(
        ("fields", "words"),
        [
            ({"value": "-1"}, "greater than or equal to 0"),
            ({"value": "1.5"}, "valid integer"),
            ({"value": "true"}, "valid integer"),
            ({"value": "null"}, "valid integer"),
            ({"value": "nine"}, "not JSON"),
            ({"value": ""}, "required"),
            ({"note": ""}, "required"),
            ({"note": "x" * 201}, "at most 200"),
        ],
    )
    def test_a_mistake_is_shown_and_nothing_written(self, client, operator, fields, words):
        answer = client.post(page(), {"value": "9", "note": "why", **fields})

        assert answer.status_code == 200
        assert words in answer.content.decode()
        assert not OptionRevision.objects.exists()
        assert not LogEntry.objects.exists()

    def test_an_unknown_setting_is_not_found(self, client, operator):
        for name in ("NOTHING", "1", "FLUX_PER_REQUEST%00"):
            path = LIST + f"{name}/change/"
            assert client.get(path).status_code == 404
            assert client.post(path, {"value": "1", "note": "x"}).status_code == 404


class TestPermissions:
    def test_who_may_look_may_not_change(self, client):
        staff(client, "view_optionrevision", "change_optionrevision")
        runtime.put("FLUX_PER_REQUEST", 7, by="ria", at=make.NOW, note="<b>why</b>")

        assert client.get(LIST).status_code == 200
        shown = client.get(page())
        assert shown.context["form"] is None
        assert "&lt;b&gt;why" in shown.content.decode()
        assert client.post(page(), {"value": "9", "note": "x"}).status_code == 403
        assert client.post(LIST, {"action": "delete_selected"}).status_code == 403
        assert options.FLUX_PER_REQUEST.read() == 7

    def test_others_see_nothing(self, client):
        staff(client, "view_fluxaccount")

        assert client.get(LIST).status_code == client.get(page()).status_code == 403

    def test_history_is_neither_added_to_nor_deleted(self, client):
        staff(client, is_superuser=True)
        revision = runtime.put("FLUX_PER_REQUEST", 7, by="ria", at=make.NOW)

        assert client.post(LIST + f"{revision.pk}/delete/", {"post": "yes"}).status_code == 403
        assert client.get(LIST + "add/").status_code in (403, 404)
        assert OptionRevision.objects.count() == 1
