"""The audit log as a page, and the two things the console itself writes into it."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.contrib.auth.models import Group
from django.urls import reverse
from django.utils import timezone

from airi_server.admin import refusals
from airi_server.runtime import audit
from airi_server.runtime.audit import AuditEntry
from tests.airi_server.console import staff
from tests.factories import accounts

pytestmark = pytest.mark.django_db
LIST = reverse("admin:runtime_auditentry_changelist")
SETTINGS = reverse("admin:settings")


def record(**facts):
    entry = {
        "action": "billing.grant_flux",
        "subject": audit.Subject("runtime.option", "FLUX_PER_REQUEST"),
        "by": audit.Actor("op@example.com", user_id="u9"),
        "at": timezone.now(),
        "sentence": "Granted 5 Flux.",
    }
    audit.record(**{**entry, **facts})


def refused():
    return list(AuditEntry.objects.filter(action="refused").order_by("id"))


def rows(client, **query):
    return [entry.sentence for entry in client.get(LIST, query).context["cl"].result_list]


class TestList:
    @pytest.fixture(autouse=True)
    def _entries(self, client):
        self.reader = staff(client, "runtime.view_auditentry")
        record(sentence="old", at=timezone.now() - timedelta(days=3))
        record(sentence="set", action="runtime.change_options")
        by = audit.Actor("was@example.com", user_id=self.reader.pk)
        record(sentence="mine", by=by, subject=audit.Subject("accounts.user", "u1"))

    def test_shows_the_newest_first(self, client):
        assert rows(client) == ["mine", "set", "old"]

    @pytest.mark.parametrize(
        ("query", "found"),
        [
            ({"action": "runtime.change_options"}, ["set"]),
            ({"who": "op@example.com"}, ["set", "old"]),
            ({"who": "was@example.com"}, ["mine"]),
            ({"last": "24h"}, ["mine", "set"]),
            ({"q": "u1"}, ["mine"]),
            ({"q": "FLUX_PER_REQUEST"}, ["set", "old"]),
            ({"q": "nothing"}, []),
            ({"who": "\x00", "q": "\x00"}, ["mine", "set", "old"]),
        ],
    )
    def test_is_filtered_by_action_actor_time_and_subject(self, client, query, found):
        assert rows(client, **query) == found

    def test_finds_somebody_by_the_address_of_today(self, client):
        assert rows(client, who=self.reader.email) == ["mine"]
        assert rows(client, q=self.reader.email) == ["mine"]

    def test_an_entry_shows_its_facts_and_leads_to_its_subject(self, client):
        record(sentence="full", facts={"amount": 5, "note": "<b>"})
        entry = AuditEntry.objects.get(sentence="full")

        page = client.get(reverse("admin:runtime_auditentry_change", args=[entry.pk]))

        shown = page.content.decode()
        assert "<dt>amount</dt><dd>5</dd><dt>note</dt><dd>&lt;b&gt;</dd>" in shown
        assert reverse("admin:setting", args=["FLUX_PER_REQUEST"]) in shown

    def test_a_subject_without_a_page_is_named(self, client):
        record(subject=audit.Subject("no.such", "x/y"), sentence="lost")

        assert "no.such x/y" in client.get(LIST).content.decode()

    def test_nobody_writes_to_it(self, client):
        staff(client, is_superuser=True)
        entry = AuditEntry.objects.earliest("id")

        for page in ("change", "delete"):
            url = reverse(f"admin:runtime_auditentry_{page}", args=[entry.pk])
            assert client.post(url, {"sentence": "x", "post": "yes"}).status_code == 403
        assert client.get(reverse("admin:runtime_auditentry_add")).status_code == 403


class TestRefusals:
    def test_staff_who_are_refused_leave_a_row_without_what_they_asked(self, client):
        user = staff(client)

        client.get(SETTINGS, {"secret": "canary"})

        (entry,) = refused()
        assert (entry.actor_id, entry.subject_kind, entry.subject_id) == (user.pk, "page", SETTINGS)
        assert entry.sentence == f"Was refused GET {SETTINGS}."
        assert "canary" not in str(vars(entry))

    def test_a_page_of_a_model_counts_too(self, client):
        staff(client)

        assert client.get(LIST).status_code == 403
        assert [entry.subject_id for entry in refused()] == [LIST]

    def test_the_same_page_leaves_one_row_a_minute(self, client, monkeypatch):
        staff(client)
        for _ in range(3):
            client.get(SETTINGS)
        assert len(refused()) == 1

        later = timezone.now() + refusals.QUIET + timedelta(seconds=1)
        monkeypatch.setattr(timezone, "now", lambda: later)
        client.get(SETTINGS)

        assert len(refused()) == 2

    def test_many_pages_leave_no_more_than_a_few_rows(self, client):
        staff(client)

        for number in range(refusals.MOST + 5):
            client.get(reverse("admin:setting", args=[f"x{number}"]))

        assert len(refused()) == refusals.MOST

    def test_who_does_not_work_here_leaves_none(self, client):
        unknown = client.get(SETTINGS)
        client.force_login(accounts.user())
        known = client.get(SETTINGS)

        assert [answer.status_code for answer in (unknown, known)] == [302, 302]
        assert refused() == []

    def test_who_may_look_leaves_none(self, client):
        staff(client, "runtime.change_options")

        assert client.get(SETTINGS).status_code == 200
        assert refused() == []


class TestLogins:
    def test_entering_leaves_a_row_with_the_address(self, client):
        user = accounts.user(is_staff=True, password="long enough")
        form = {"username": user.email, "password": "long enough"}

        answer = client.post(reverse("admin:login"), form, REMOTE_ADDR="192.0.2.7")

        assert (answer.status_code, answer.url) == (302, reverse("admin:index"))
        (entry,) = AuditEntry.objects.filter(action="login")
        assert (entry.actor_id, entry.sentence) == (user.pk, "Logged in from 192.0.2.7.")

    def test_failing_to_enter_leaves_none(self, client):
        user = accounts.user(is_staff=True, password="long enough")

        form = {"username": user.email, "password": "wrong"}
        answer = client.post(reverse("admin:login"), form)

        assert "correct" in answer.content.decode()
        assert not AuditEntry.objects.exists()


class TestGroups:
    def test_are_for_superusers_only(self, client):
        group = Group.objects.create(name="support")
        staff(client, "auth.view_group", "auth.change_group", "auth.add_group", "auth.delete_group")
        pages = [
            reverse("admin:auth_group_changelist"),
            reverse("admin:auth_group_add"),
            reverse("admin:auth_group_change", args=[group.pk]),
            reverse("admin:auth_group_delete", args=[group.pk]),
        ]

        assert {client.get(page).status_code for page in pages} == {403}
        staff(client, is_superuser=True)
        assert {client.get(page).status_code for page in pages} == {200}

    def test_a_change_is_recorded(self, client):
        user = staff(client, is_superuser=True)

        client.post(reverse("admin:auth_group_add"), {"name": "support", "permissions": []})

        (entry,) = AuditEntry.objects.filter(action="auth.add_group")
        assert entry.actor_id == user.pk
