"""No page of the console asks the database for one row after another: generated from the URLconf.

Whatever is on it, a page needs a handful of statements for the session, the operator and what
stands around, and a few for what it shows.
"""

from __future__ import annotations

from typing import Final

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from tests.console import rows
from tests.console.pages import PAGES
from tests.console.walk import places
from tests.factories import accounts, chats
from tests.factories import billing as make

pytestmark = pytest.mark.django_db
PLACES: Final = places()
MOST: Final = 30
MANY: Final = 50


def count(client: Client, url: str) -> int:
    """Return how many statements a page takes when it is opened for the second time."""
    client.get(url)
    with CaptureQueriesContext(connection) as found:
        client.get(url)
    return len(found)


def test_every_page_takes_few():
    world = rows.make()
    client = rows.client_of(is_staff=True, is_superuser=True)
    pages = {name: PLACES[name].url(world.keys) for name in PLACES.keys() & PAGES.keys()}

    counts = {name: count(client, url) for name, url in sorted(pages.items())}

    assert {name: number for name, number in counts.items() if number >= MOST} == {}


@pytest.mark.parametrize("page", ["accounts_user_change", "billing_fluxaccount_change"])
def test_a_person_with_many_of_everything_takes_as_few(page):
    world = rows.make()
    client = rows.client_of(is_staff=True, is_superuser=True)
    url = PLACES[page].url(world.keys)
    before = count(client, url)
    price = make.price()
    for _ in range(MANY):
        accounts.api_key(owner=world.user)
        chats.chat(owner=world.user.pk)
        ticket = make.ticket(world.user.pk, price)
        make.open_one(ticket, 1)
        make.settle_one(make.settlement(ticket, 1))

    assert count(client, url) == before < MOST
