"""The books as files: what the list shows, as CSV and as JSON, and a row about who took it."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from accounts.models import User
from airi_server.runtime.audit import AuditEntry
from billing import ledger
from tests.browser import people
from tests.browser.chromium import Page, expect
from tests.factories import billing

SEE = ("billing.view_fluxtransaction", "accounts.view_user")
EXPORT = "billing.export_books"


@pytest.fixture
def user() -> User:
    """Somebody with two entries, one of which begins like a formula of a spreadsheet."""
    user = people.person("mio")
    billing.make_account(300, user.pk)
    ledger.credit(user_id=user.pk, amount=20, request_id=None, description="=1+1", at=billing.NOW)
    return user


def take(page: Page, kind: str) -> str:
    with page.expect_download() as taken:
        page.get_by_role("link", name=kind, exact=True).click()
    assert taken.value.suggested_filename.endswith(f".{kind.lower()}")
    return Path(taken.value.path()).read_text()


def path_of(user: User) -> str:
    return f"/admin/billing/fluxtransaction/?q={user.pk}"


def test_a_list_is_taken_away_as_csv_and_json(console, user):
    page = console(*SEE, EXPORT, path=path_of(user))

    rows = list(csv.DictReader(take(page, "CSV").splitlines()))
    entries = json.loads(take(page, "JSON"))

    assert [row["amount"] for row in rows] == ["20", "300", "0"]
    assert [entry["amount"] for entry in entries] == [20, 300, 0]
    assert {row["user_id"] for row in rows} == {user.pk}
    assert rows[0]["description"] == "'=1+1"
    assert entries[0]["description"] == "=1+1"
    assert AuditEntry.objects.filter(action=EXPORT).count() >= 2


def test_without_the_permission_nothing_is_offered(console, user):
    page = console(*SEE, path=path_of(user))

    expect(page.get_by_text("=1+1")).to_be_visible()
    expect(page.locator("a[download]")).to_have_count(0)
