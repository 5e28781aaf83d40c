"""Checking the books from the console, and what is written down about it."""

from __future__ import annotations

from typing import Any

import pytest
from django.urls import reverse

from airi_server.admin import reconciliation as pages
from airi_server.runtime import audit
from billing import reconciliation_runs
from billing.models import LLMRequestLog
from billing.reconciliation import EVERYTHING
from tests.airi_server.console import staff
from tests.billing.conftest import books  # noqa: F401  a fixture
from tests.billing.corruption import corrupt
from tests.factories import billing as make

PAGE = reverse("admin:reconciliation")
SEE, CHECK = pages.SEE, pages.CHECK


@pytest.mark.django_db(transaction=True)
class TestCheck:
    def test_agreeing_books_are_said_to_agree_and_the_check_is_kept(self, client, books):  # noqa: F811
        operator = staff(client, SEE, CHECK)

        answer = client.post(PAGE, follow=True)

        assert "The books agree." in answer.content.decode()
        (run,) = reconciliation_runs.before_now()
        assert (run.by, run.broken, run.scope) == (operator.email, 0, "")
        (entry,) = audit.of(audit.Subject.of(run))
        assert (entry.action, entry.actor_id) == (CHECK, operator.pk)
        assert entry.sentence.startswith("Checked the books: 0 broken")

    def test_broken_rows_and_orphans_are_listed_and_counted(self, client, books, monkeypatch):  # noqa: F811
        monkeypatch.setattr(pages, "SHOWN", 1)
        corrupt("UPDATE user_flux SET flux = flux + 1 WHERE user_id = 'ria'", books)
        LLMRequestLog.objects.filter(settled_at=None).update(deadline_at=make.NOW)
        staff(client, SEE, CHECK)

        answer = client.post(PAGE, follow=True)

        page, run = answer.content.decode(), answer.context["run"]
        assert answer.redirect_chain == [(reverse("admin:reconciliation_run", args=[run.pk]), 302)]
        assert "The books disagree in 2 places." in page
        assert (len(run.findings["broken"]), run.broken, run.orphans) == (1, 2, 1)
        assert "the first 1 of 2" in page
        assert "balance 51, but the entries add up to 50" in page
        assert run.findings["orphans"][0]["id"] in page
        again = client.get(answer.redirect_chain[0][0]).content.decode()
        assert "balance 51, but the entries add up to 50" in again
        assert audit.AuditEntry.objects.filter(action=CHECK).count() == 1

    def test_a_check_by_a_command_has_kept_only_its_counts(self, client):
        counts: dict[str, Any] = {"duration_ms": 5, "broken": 2, "orphans": 0}
        run = reconciliation_runs.record(scope=EVERYTHING, by="manage.py", at=make.NOW, **counts)
        staff(client, SEE)

        page = client.get(reverse("admin:reconciliation_run", args=[run.pk])).content.decode()

        assert "disagree in 2 places" in page
        assert "is not kept" in page

    def test_a_check_that_takes_too_long_is_stopped_and_says_so(self, client, books, monkeypatch):  # noqa: F811
        monkeypatch.setattr(pages, "LIMIT_S", 0.0)
        monkeypatch.setattr(
            "billing.reconciliation.CHECKS", (("I0", "SELECT '', '', pg_sleep(5)::text"),)
        )
        staff(client, SEE, CHECK)

        answer = client.post(PAGE, follow=True)

        assert answer.redirect_chain == [(PAGE, 302)]
        assert "was stopped after" in answer.content.decode()
        assert reconciliation_runs.newest() is None


@pytest.mark.django_db
class TestPermissions:
    def test_who_may_look_may_not_check(self, client):
        staff(client, SEE)

        shown = client.get(PAGE)

        assert "Nobody has checked the books yet." in shown.content.decode()
        assert "Check now</button>" not in shown.content.decode()
        assert client.post(PAGE).status_code == 403

    @pytest.mark.parametrize("permissions", [(), (CHECK,), ("billing.view_llmrequestlog",)])
    def test_who_may_not_see_accounts_sees_nothing(self, client, permissions):
        staff(client, *permissions)

        assert client.get(PAGE).status_code == client.post(PAGE).status_code == 403
