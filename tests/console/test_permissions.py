"""Every page of the console for everybody who could ask for it, generated from the URLconf.

A page that `pages.py` does not name fails, and so does a name without a page.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from airi_server.runtime.audit import AuditEntry
from tests.console import rows
from tests.console.pages import PAGES, PUBLIC, STAFF, SUPERUSER, Needs, Page
from tests.console.walk import Place, places

pytestmark = pytest.mark.django_db
PLACES = places()
OWN_TRANSACTION = pytest.mark.django_db(transaction=True)
LISTED = [
    pytest.param(name, marks=[OWN_TRANSACTION] if name == "reconciliation" else [])
    for name in sorted(PLACES.keys() & PAGES.keys())
]
SOMETHING_ELSE = "contenttypes.view_contenttype"
"""A permission that opens no page."""

LOGIN, LET_THROUGH, REFUSED = "to the login", "let through", "refused"


def test_every_page_is_listed_and_every_listed_page_exists():
    listed = PAGES.keys() | PUBLIC

    assert PLACES.keys() - listed == set(), "say in tests/console/pages.py who may use these"
    assert listed - PLACES.keys() == set(), "these are in tests/console/pages.py and nowhere else"


@pytest.mark.parametrize("name", LISTED)
def test_a_page_is_for_those_who_may(name: str):
    page = PAGES[name]
    url = PLACES[name].url(rows.make().keys)
    seen, expected, traces = {}, {}, {}
    for who, client, may_look, may_act in _everybody(page):
        shown = page.shown if may_look else page.refused
        expected[who] = (shown if who not in LED_AWAY else LOGIN, _act(who, may_act))
        before = _changes()
        looked = _got(client.get(url))
        traces[who] = (_changes() - before, int(may_look and page.is_taken))
        seen[who] = (looked, _posted(client.post(url), page))

    assert seen == expected
    assert [who for who, (left, due) in traces.items() if left != due] == []


def test_a_refusal_is_written_down():
    url = PLACES["billing_fluxaccount_freeze"].url(rows.make().keys)
    client = rows.client_of(is_staff=True)

    client.get(url)

    newest = AuditEntry.objects.order_by("-id")[0]
    assert (newest.action, newest.subject_id) == ("refused", url)


LED_AWAY = ("nobody", "a user")


def _everybody(page: Page) -> Iterator[tuple[str, Client, bool, bool]]:
    """Return who, their client, and whether they may look and act."""
    yield "nobody", Client(), False, False
    yield "a user", rows.client_of(*_parts((*page.look, *page.act))), False, False
    named = dict.fromkeys((SOMETHING_ELSE, *page.look, *page.act, *page.not_enough))
    for needed in named:
        if needed == SUPERUSER:
            continue
        client = rows.client_of(*_parts((needed,)), is_staff=True)
        yield f"staff with {needed}", client, _has(needed, page.look), _has(needed, page.act)
    superuser = rows.client_of(is_staff=True, is_superuser=True)
    yield "a superuser", superuser, bool(page.look), bool(page.act)


def _changes() -> int:
    return AuditEntry.objects.exclude(action="refused").count()


def _has(needed: str, needs: Needs) -> bool:
    held = set(_parts((needed,)))
    return any(held >= set(_parts((enough,))) for enough in needs if enough != SUPERUSER)


def _parts(needs: Needs) -> tuple[str, ...]:
    return tuple(part for part in "+".join(needs).split("+") if part not in ("", SUPERUSER))


def _act(who: str, may_act: bool) -> str:
    if who in LED_AWAY:
        return LOGIN
    return LET_THROUGH if may_act else REFUSED


def _got(answer: Any) -> int | str:
    return LOGIN if _is_login(answer) else answer.status_code


def _posted(answer: Any, page: Page) -> str:
    if _is_login(answer):
        return LOGIN
    if answer.status_code in {page.refused, 405}:
        return REFUSED
    return LET_THROUGH if answer.status_code < 500 else f"a bug: {answer.status_code}"


def _is_login(answer: Any) -> bool:
    return answer.status_code == 302 and str(answer.url).startswith(reverse("admin:login"))


class TestPublicPages:
    def test_the_login_is_for_everybody(self, client):
        assert client.get(reverse("admin:login")).status_code == 200
        assert client.post(reverse("admin:login")).status_code == 200

    def test_staff_are_past_it(self):
        answer = rows.client_of(is_staff=True).get(reverse("admin:login"))

        assert answer.headers["Location"] == reverse("admin:index")

    def test_logging_out_takes_a_post(self):
        staff = rows.client_of(is_staff=True)

        assert staff.get(reverse("admin:logout")).status_code == 405
        assert staff.post(reverse("admin:logout")).status_code in {200, 302}
        assert _is_login(staff.get(reverse("admin:index")))


class TestTheTestItself:
    def test_a_page_for_all_staff_lets_other_permissions_in(self):
        assert _has(SOMETHING_ELSE, STAFF)
        assert not _has(SOMETHING_ELSE, ())

    def test_permissions_that_belong_together_are_only_enough_together(self):
        assert _has("a.b+a.c", ("a.b+a.c",))
        assert not _has("a.b", ("a.b+a.c",))

    def test_an_address_is_filled_in_by_its_model(self):
        place = Place("accounts_user_ban", "accounts/user/<path:object_id>/ban/", ("object_id",))

        assert place.url({"accounts_user": "u1"}).endswith("/accounts/user/u1/ban/")
