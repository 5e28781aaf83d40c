"""The lists of the books: what each filter and each search finds, and how one goes on."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import connection
from django.urls import reverse

from airi_server.kernel.ids import uuid7
from airi_server.pages import paging
from airi_server.pages.filters import LineChangeList
from billing import ledger
from billing.admin.entries import FIND_ENTRY_AT_SQL, FIND_ENTRY_OF_USER_AT_SQL, EntryPages
from billing.models import FluxAccount, FluxTransaction, LLMRequestLog
from tests.factories import accounts
from tests.factories import billing as make

pytestmark = pytest.mark.django_db
LISTS = (FluxAccount, FluxTransaction, LLMRequestLog)


@pytest.fixture(autouse=True)
def root(client):
    client.force_login(accounts.user(is_staff=True, is_superuser=True))
    return client


@pytest.fixture
def books():
    """Mio settled one request and voided one, Ria has one open and could not pay for another."""
    price = make.price()
    make.make_account(100, "mio")
    make.make_account(100, "ria", frozen=False)
    make.make_account(5, "kim", frozen=True)
    # Ids of one millisecond have no order among them.
    first, second, third, fourth = sorted(uuid7() for _ in range(4))
    made = {
        "paid": make.ticket(
            "mio", price, id=first, api_key_id="K" * 12, client_key="mine", model="a"
        ),
        "void": make.ticket("mio", price, id=second, model="b"),
        "open": make.ticket("ria", price, id=third, model="a"),
        "short": make.ticket("ria", price, id=fourth, model="c"),
    }
    for one in made.values():
        make.open_one(one, 40)
    make.settle_one(make.settlement(made["paid"], 7))
    make.settle_one(make.settlement(made["void"], None, error_code="BAD_GATEWAY"))
    make.settle_one(make.settlement(made["short"], 90))
    return {name: ticket.id for name, ticket in made.items()}


def listed(client, model, /, **query):
    address = reverse(f"admin:billing_{model._meta.model_name}_changelist")
    answer = client.get(address, query)
    assert answer.status_code == 200, answer.content
    return answer.context["cl"]


def found(client, model, /, **query):
    return [row.pk for row in listed(client, model, **query).result_list]


class TestRequests:
    @pytest.mark.parametrize(
        ("query", "names"),
        [
            ({}, ["short", "open", "void", "paid"]),
            ({"model": "a"}, ["open", "paid"]),
            ({"state": "open"}, ["open"]),
            ({"state": "under-way"}, ["open"]),
            ({"state": "voided"}, ["void"]),
            ({"state": "nonsense"}, ["short", "open", "void", "paid"]),
            ({"outcome": "completed"}, ["short", "paid"]),
            ({"error": "BAD_GATEWAY"}, ["void"]),
            ({"unbilled": "yes"}, ["short"]),
            ({"failed": "yes"}, ["void"]),
            ({"failed": "yes", "last": "1h", "model": "b"}, ["void"]),
            ({"failed": "yes", "model": "a"}, []),
            ({"failed": "yes", "user": "ria"}, []),
            ({"unbilled": "yes", "user": "mio"}, []),
            ({"user": "mio", "model": "a"}, ["paid"]),
            ({"q": "mio"}, ["void", "paid"]),
            ({"q": "mio", "user": "ria"}, []),
            ({"q": "mine"}, ["paid"]),
            ({"q": "sk-airi-KKKKKKKKKKKK"}, ["paid"]),
            ({"q": "sk-airi-KKKKKKKKKKKK" + "s" * 40}, ["paid"]),
            ({"q": "sk-airi-zzzzzzzzzzzz"}, []),
            ({"q": "nobody@example.com"}, []),
            ({"last": "1h"}, ["short", "open", "void", "paid"]),
            ({"to": "2001-01-01T00:00"}, []),
            ({"from": "not a time"}, ["short", "open", "void", "paid"]),
            ({"from": "0001-01-01T00:00", "to": "9999-12-31T23:59"}, None),
            ({"user": "mio\x00", "q": "\x00"}, ["void", "paid"]),
            ({"after": "nonsense", "before": "\x00"}, None),
        ],
    )
    def test_are_found(self, client, books, query, names):
        expected = ["short", "open", "void", "paid"] if names is None else names

        assert found(client, LLMRequestLog, **query) == [books[name] for name in expected]

    def test_are_found_by_id_and_by_the_ledgers_key(self, client, books):
        assert found(client, LLMRequestLog, q=f" {books['paid']} ") == [books["paid"]]
        assert found(client, LLMRequestLog, q=f"llm:{books['open']}") == [books["open"]]

    def test_of_a_key_are_found_through_its_owner(self, client):
        user = accounts.user()
        key, plaintext = accounts.api_key(owner=user)
        make.make_account(100, user.pk)
        ticket = make.ticket(user.pk, make.price(), api_key_id=key.public_id)
        make.open_one(ticket, 5)

        assert found(client, LLMRequestLog, q=plaintext) == [ticket.id]

    def test_show_whose_they_are_with_one_query_for_the_page(self, client):
        user = accounts.user(email="mio@example.com")
        make.make_account(100, user.pk)
        ticket = make.ticket(user.pk, make.price())
        make.open_one(ticket, 5)

        rows = listed(client, LLMRequestLog, q="MIO@example.com").result_list

        assert [(row.pk, row.email) for row in rows] == [(ticket.id, "mio@example.com")]


class TestEntries:
    def test_are_found_by_kind_user_key_and_time(self, client, books):
        paid = f"llm:{books['paid']}"

        def keys(**query):
            rows = listed(client, FluxTransaction, **query).result_list
            return [(row.user_id, row.kind, row.request_id) for row in rows]

        debit = ("mio", "debit", paid)
        assert keys(kind="debit", user="mio") == [debit]
        assert keys(q=paid) == keys(q=str(books["paid"])) == [debit]
        assert keys(q=paid, user="mio") == [debit]
        assert keys(q=paid, user="ria") == []
        assert {kind for _, kind, _ in keys(kind="credit")} == {"credit"}
        assert len(keys(kind="credit")) == 3
        assert keys(kind="credit", user="kim") == [("kim", "credit", None)]
        assert keys(kind="reversal") == keys(q="grant:x:nobody") == []
        assert debit in keys(last="24h")
        assert ("mio", "credit", None) not in keys(last="24h")  # make.NOW is long ago
        assert keys(last="24h", user="mio")[0] == debit
        assert keys(to="2001-01-01T00:00") == keys(to="2001-01-01T00:00", user="mio") == []

    @pytest.mark.parametrize("sql", [FIND_ENTRY_AT_SQL, FIND_ENTRY_OF_USER_AT_SQL])
    def test_the_place_of_an_instant_is_what_a_walk_would_find(self, sql):
        key = "id" if sql == FIND_ENTRY_AT_SQL else "user_seq"
        FluxTransaction.objects.bulk_create(_entry(n) for n in range(1, 10))
        rows = list(FluxTransaction.objects.order_by("id"))
        half = timedelta(hours=12)

        places = [_place(sql, row.created_at) for row in rows]

        assert places == [getattr(row, key) for row in rows]
        assert _place(sql, rows[3].created_at + half) == getattr(rows[4], key)
        assert _place(sql, rows[0].created_at - half) == getattr(rows[0], key)
        assert _place(sql, rows[-1].created_at + half) == getattr(rows[-1], key) + 1

    @pytest.mark.parametrize("sql", [FIND_ENTRY_AT_SQL, FIND_ENTRY_OF_USER_AT_SQL])
    def test_an_empty_ledger_has_no_place(self, sql):
        assert _place(sql, make.NOW) is None


class TestAccounts:
    def test_are_found(self, client, books):
        assert found(client, FluxAccount) == ["kim", "mio", "ria"]
        assert found(client, FluxAccount, frozen="yes") == ["kim"]
        assert found(client, FluxAccount, frozen="no") == ["mio", "ria"]
        assert found(client, FluxAccount, holds="yes") == ["ria"]
        assert found(client, FluxAccount, q="mio") == ["mio"]
        assert found(client, FluxAccount, q=str(books["paid"])) == []


class TestPaging:
    @pytest.fixture(autouse=True)
    def _short_pages(self, monkeypatch):
        monkeypatch.setattr(EntryPages, "list_per_page", 3)

    @pytest.fixture
    def ids(self):
        ledger.open_account(user_id="mio")
        for n in range(9):
            at = make.NOW + timedelta(days=n)
            ledger.credit(user_id="mio", amount=1, request_id=None, description="", at=at)
        return list(FluxTransaction.objects.order_by("-id").values_list("id", flat=True))

    @pytest.mark.parametrize("query", ["?", "?user=mio", "?kind=credit"])
    def test_goes_onward_to_the_end_and_all_the_way_back(self, client, ids, query):
        expected = ids if "kind" not in query else ids[:-1]
        base = reverse("admin:billing_fluxtransaction_changelist")

        def walk(address, link):
            pages, last = [], address
            while address:
                changes = client.get(base + address).context["cl"]
                pages.append([row.pk for row in changes.result_list])
                address, last = getattr(changes, link), address
            return pages, last

        onward, last = walk(query, "onward_url")
        back, _ = walk(last, "back_url")

        assert sum(onward, []) == expected  # noqa: RUF017  a few short lists
        assert [len(page) for page in onward][:3] == [3, 3, 3]
        assert sum(reversed(back), []) == expected  # noqa: RUF017

    def test_looks_through_a_slice_and_says_where_it_stopped(self, client, ids, monkeypatch):
        monkeypatch.setattr(paging.KeysetQuery, "_edge", _edge_after(2))

        changes = listed(client, FluxTransaction, kind="debit")

        assert (list(changes.result_list), changes.page.looked_to) == ([], ids[1])
        text = client.get(reverse("admin:billing_fluxtransaction_changelist"), {"kind": "debit"})
        assert "Look further" in text.content.decode()
        assert changes.onward_url.endswith(f"after={ids[1]}&kind=debit")

    def test_counts_nothing(self, client, ids, django_assert_max_num_queries):
        with django_assert_max_num_queries(12) as sent:
            listed(client, FluxTransaction)

        assert not [query for query in sent if "COUNT(" in query["sql"].upper()]

    def test_a_cursor_does_not_survive_another_filter(self, client, ids):
        address = reverse("admin:billing_fluxtransaction_changelist")

        page = client.get(address, {"after": ids[4], "kind": "credit"}).content.decode()

        assert 'type="hidden" name="after"' not in page
        assert isinstance(listed(client, FluxTransaction), LineChangeList)


class TestEmptyLists:
    @pytest.mark.parametrize("model", LISTS)
    def test_say_what_to_do_next(self, client, model):
        address = reverse(f"admin:billing_{model._meta.model_name}_changelist")

        page = client.get(address, {"q": "nobody"})

        assert page.context["cl"].model_admin.empty_title in page.content.decode()
        assert "Reset filters" in page.content.decode()


def _edge_after(rows):
    def edge(line, found):
        if line.filtered == paging.NOTHING:
            return None
        keys = list(found.values_list(line.key, flat=True)[rows - 1 : rows + 1])
        return keys[0] if len(keys) > 1 else None

    return edge


def _entry(seq):
    return FluxTransaction(
        user_id="mio", user_seq=seq, kind="credit", amount=1, balance_before=seq - 1,
        balance_after=seq, description="", created_at=make.NOW + timedelta(days=seq),
    )  # fmt: skip


def _place(sql, at):
    with connection.cursor() as cursor:
        cursor.execute(sql, {"user_id": "mio", "at": at})
        return cursor.fetchone()[0]
