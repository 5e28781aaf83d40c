"""Every page of the console for everybody who could ask for it, generated from the URLconf.

A page that `pages.py` does not name fails, and so does a name without a page.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pytest
from django.conf import settings
from django.db import transaction
from django.test import Client
from django.urls import reverse

from airi_server.runtime.audit import AuditEntry
from tests.console import rows
from tests.console.pages import PAGES, PUBLIC, STAFF, SUPERUSER, Needs, Page
from tests.console.walk import Place, places

pytestmark = pytest.mark.django_db
PLACES = places()
OWN_TRANSACTION = pytest.mark.django_db(transaction=True)
LISTED = sorted(PLACES.keys() & PAGES.keys() - {"reconciliation"})
SOMETHING_ELSE = "contenttypes.view_contenttype"
"""A permission that opens no page."""

_POSTED = re.compile(r"<form[^>]*\bpost\b.*?</form>", re.DOTALL | re.IGNORECASE)
LOGIN, LET_THROUGH, REFUSED = "to the login", "let through", "refused"


def test_every_page_is_listed_and_every_listed_page_exists():
    listed = PAGES.keys() | PUBLIC

    assert PLACES.keys() - listed == set(), "say in tests/console/pages.py who may use these"
    assert listed - PLACES.keys() == set(), "these are in tests/console/pages.py and nowhere else"


class Who(NamedTuple):
    """Somebody who is logged in."""

    permissions: tuple[str, ...] = ()
    is_staff: bool = True
    is_all: bool = False


@dataclass(frozen=True)
class World:
    """One row of everything, and everybody who is sent to a page, logged in."""

    keys: Mapping[str, str]
    sessions: dict[Who, str] = field(default_factory=dict)

    def client_of(self, who: Who | None) -> Client:
        """Return a new client of somebody, who is made when they are first asked for."""
        client = Client()
        if who is None:
            return client
        if who not in self.sessions:
            made = rows.client_of(*who.permissions, is_staff=who.is_staff, is_superuser=who.is_all)
            self.sessions[who] = made.cookies[settings.SESSION_COOKIE_NAME].value
        client.cookies[settings.SESSION_COOKIE_NAME] = self.sessions[who]
        return client


@pytest.fixture(scope="class")
def world(django_db_setup, django_db_blocker):
    with django_db_blocker.unblock(), transaction.atomic():
        made = World(rows.make().keys)
        for name in LISTED:
            for _, who, *_ in _people(PAGES[name]):
                made.client_of(who)
        yield made
        transaction.set_rollback(True)


class TestPages:
    """What one of these changes is taken back, so all of them share a world that is made once."""

    @pytest.mark.parametrize("name", LISTED)
    def test_are_for_those_who_may(self, world: World, name: str):
        check(name, world)


@OWN_TRANSACTION
def test_the_books_are_for_those_who_may():
    """Apart, because their check insists on a transaction of its own."""
    check("reconciliation", World(rows.make().keys))


def check(name: str, world: World) -> None:
    page = PAGES[name]
    url = PLACES[name].url(world.keys)
    seen, expected, traces = {}, {}, {}
    bare: list[str] = []
    for called, who, may_look, may_act in _people(page):
        client = world.client_of(who)
        shown = page.shown if may_look else page.refused
        expected[called] = (shown if called not in LED_AWAY else LOGIN, _act(called, may_act))
        before = _changes()
        answer = client.get(url)
        bare += [] if answer.streaming else _bare_forms(answer.content.decode())
        traces[called] = (_changes() - before, int(may_look and page.is_taken))
        seen[called] = (_got(answer), _posted(client.post(url), page))

    assert seen == expected
    assert [called for called, (left, due) in traces.items() if left != due] == []
    assert bare == []


def test_a_refusal_is_written_down():
    url = PLACES["billing_fluxaccount_freeze"].url(rows.make().keys)
    client = rows.client_of(is_staff=True)

    client.get(url)

    newest = AuditEntry.objects.order_by("-id")[0]
    assert (newest.action, newest.subject_id) == ("refused", url)


LED_AWAY = ("nobody", "a user")


def _people(page: Page) -> Iterator[tuple[str, Who | None, bool, bool]]:
    """Return what to call somebody, who they are, and whether they may look and act."""
    yield "nobody", None, False, False
    both = _parts((*page.look, *page.act))
    yield "a user", Who(tuple(sorted(set(both))), is_staff=False), False, False
    named = dict.fromkeys((SOMETHING_ELSE, *page.look, *page.act, *page.not_enough))
    for needed in named:
        if needed == SUPERUSER:
            continue
        may_look, may_act = _has(needed, page.look), _has(needed, page.act)
        yield f"staff with {needed}", Who(_parts((needed,))), may_look, may_act
    yield "a superuser", Who(is_all=True), bool(page.look), bool(page.act)


def _bare_forms(html: str) -> list[str]:
    """Return the forms of a page that are posted without a token, and so are refused."""
    return [form for form in _POSTED.findall(html) if "csrfmiddlewaretoken" not in form]


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
    if _is_login(answer) or (answer.status_code == 403 and b"Log in</a>" in answer.content):
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
        assert staff.post(reverse("admin:logout")).status_code == 200
        assert _is_login(staff.get(reverse("admin:index")))


class TestTheTestItself:
    def test_a_page_for_all_staff_lets_other_permissions_in(self):
        assert _has(SOMETHING_ELSE, STAFF)
        assert not _has(SOMETHING_ELSE, ())

    def test_permissions_that_belong_together_are_only_enough_together(self):
        assert _has("a.b+a.c", ("a.b+a.c",))
        assert not _has("a.b", ("a.b+a.c",))

    def test_a_form_without_a_token_is_found(self):
        token = '<input name="csrfmiddlewaretoken">'
        bare = '<form method="get"></form><form id="a"\n method="POST"><input name="b"></form>'

        assert _bare_forms(f'<form method="post">{token}</form>{bare}') == [bare[26:]]

    def test_an_address_is_filled_in_by_its_model(self):
        place = Place("accounts_user_ban", "accounts/user/<path:object_id>/ban/", ("object_id",))

        assert place.url({"accounts_user": "u1"}).endswith("/accounts/user/u1/ban/")
