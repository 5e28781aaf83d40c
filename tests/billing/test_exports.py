"""Lists as files: what is in them, who may take them, and that no memory has to hold them."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import resource
from pathlib import Path

import pytest
from django.conf import settings
from django.contrib.auth.models import Permission
from django.db import connection
from django.test import Client
from django.urls import reverse

from airi_server.kernel.threads import in_thread
from airi_server.pages import exports
from airi_server.runtime.audit import AuditEntry
from billing.models import FluxAccount, FluxTransaction, LLMRequestLog
from tests.factories import accounts
from tests.factories import billing as make

ENTRIES = 100_000
FEWER = 40_000


def url(model, kind):
    return reverse(f"admin:billing_{model._meta.model_name}_export", args=[kind])


@pytest.fixture
def books(transactional_db):
    """Mio has an account, entries and a request; Ria has an account."""
    make.make_account(100, "mio")
    make.make_account(50, "ria")
    one = make.ticket("mio", make.price(), model='=cmd|"calc"')
    make.open_one(one, 10)
    make.settle_one(make.settlement(one, 7))
    return one


def clerk(*names):
    """Return a client of somebody who may do what is named, and nothing else."""
    client = Client()
    user = accounts.user(is_staff=True, email="clerk@example.com")
    user.user_permissions.set(Permission.objects.filter(codename__in=names))
    client.force_login(user)
    return client


def take(client, address, query=None):
    """Return the whole file."""

    async def read(response):
        return b"".join([part async for part in response.streaming_content])

    answer = client.get(address, query or {})
    assert answer.status_code == 200
    return asyncio.run(read(answer)).decode()


def table(text):
    return list(csv.DictReader(io.StringIO(text)))


@pytest.mark.usefixtures("books")
class TestFiles:
    @pytest.mark.parametrize("model", [FluxAccount, FluxTransaction, LLMRequestLog])
    def test_hold_the_rows_of_the_list(self, model):
        client = clerk("export_books", f"view_{model._meta.model_name}")

        rows = table(take(client, url(model, "csv")))

        assert len(rows) == model.objects.count()
        same = json.loads(take(client, url(model, "json")))
        assert [str(row["user_id"]) for row in same] == [row["user_id"] for row in rows]

    def test_follow_the_filters_and_the_search(self):
        client = clerk("export_books", "view_fluxtransaction")

        debits = table(take(client, url(FluxTransaction, "csv"), {"kind": "debit"}))
        rias = table(take(client, url(FluxTransaction, "csv"), {"q": "ria"}))

        assert [row["amount"] for row in debits] == ["7"]
        assert {row["user_id"] for row in rias} == {"ria"}
        assert rias

    def test_are_newest_first_unless_asked_otherwise(self):
        client = clerk("export_books", "view_fluxtransaction")
        ids = list(FluxTransaction.objects.order_by("id").values_list("id", flat=True))

        newest = json.loads(take(client, url(FluxTransaction, "json")))
        oldest = json.loads(take(client, url(FluxTransaction, "json"), {"order": "oldest"}))

        assert [row["id"] for row in newest] == ids[::-1]
        assert [row["id"] for row in oldest] == ids

    def test_of_nothing_are_files_too(self):
        client = clerk("export_books", "view_llmrequestlog")

        nothing = {"q": "nobody@example.com"}

        assert json.loads(take(client, url(LLMRequestLog, "json"), nothing)) == []
        assert table(take(client, url(LLMRequestLog, "csv"), nothing)) == []

    def test_run_no_formula(self):
        client = clerk("export_books", "view_llmrequestlog")

        (row,) = table(take(client, url(LLMRequestLog, "csv")))
        (same,) = json.loads(take(client, url(LLMRequestLog, "json")))

        assert row["model"] == '\'=cmd|"calc"'
        assert same["model"] == '=cmd|"calc"'
        assert row["flux_charged"] == "7"

    @pytest.mark.parametrize(
        ("value", "cell"),
        [
            ("=1+1", "'=1+1"),
            ("+49 30", "'+49 30"),
            ("-5", "-5"),
            ("-1.5", "-1.5"),
            ("-a", "'-a"),
            ("@x", "'@x"),
            ("\tx", "'\tx"),
            ("\rx", "'\rx"),
            (-5, -5),
            (None, None),
            ("plain", "plain"),
            ({"a": 1}, '{"a":1}'),
        ],
    )
    def test_quote_a_cell_that_a_spreadsheet_would_run(self, value, cell):
        assert exports._cell(value) == cell

    def test_are_named_for_the_list_and_the_day(self):
        client = clerk("export_books", "view_fluxtransaction")

        answer = client.get(url(FluxTransaction, "csv"))

        assert answer["Content-Disposition"].startswith('attachment; filename="ledger-entries-2')
        assert answer["Content-Type"] == "text/csv; charset=utf-8"


@pytest.mark.usefixtures("books")
class TestPermissions:
    @pytest.mark.parametrize("held", [(), ("export_books",), ("view_fluxtransaction",)])
    def test_one_alone_is_not_enough(self, held):
        client = clerk(*held)

        assert client.get(url(FluxTransaction, "csv")).status_code == 403
        assert not AuditEntry.objects.filter(action="billing.export_books").exists()

    def test_decide_about_the_button_as_about_the_address(self):
        listing = reverse("admin:billing_fluxtransaction_changelist")
        user = clerk("view_fluxtransaction")

        assert url(FluxTransaction, "csv") not in user.get(listing).content.decode()
        assert url(FluxTransaction, "csv") in _both().get(listing).content.decode()

    def test_a_file_leaves_a_row_that_says_who_and_what_before_its_first_byte(self):
        client = clerk("export_books", "view_llmrequestlog")
        secret = "sk-airi-" + "k" * 12 + "S" * 40

        client.get(url(LLMRequestLog, "csv"), {"q": secret, "state": "open"})

        entry = AuditEntry.objects.get(action="billing.export_books")
        assert (entry.actor, entry.action) == ("clerk@example.com", "billing.export_books")
        assert entry.subject_kind == "billing.llmrequestlog"
        assert "state=open" in entry.sentence
        assert "SSSS" not in f"{entry.sentence} {entry.facts}"

    @pytest.mark.parametrize("kind", ["xml", "%00"])
    def test_an_unknown_format_is_not_found(self, kind):
        client = clerk("export_books", "view_fluxtransaction")

        address = url(FluxTransaction, "csv").replace("csv", kind)

        assert client.get(address).status_code == 404


def _both():
    client = Client()
    user = accounts.user(is_staff=True)
    names = ("view_fluxtransaction", "export_books")
    user.user_permissions.set(Permission.objects.filter(codename__in=names))
    client.force_login(user)
    return client


@in_thread
def _many(count):
    """Give Mio a long ledger, and return the session of somebody who may export it."""
    make.make_account(0, "mio")
    with connection.cursor() as cursor:
        cursor.execute(
            """
            INSERT INTO flux_transaction (user_id, user_seq, type, amount, balance_before,
                balance_after, description, created_at)
            SELECT 'mio', 1 + n, 'credit', 1, n - 1, n, repeat('x', 200), now()
            FROM generate_series(1, %s) AS n
            """,
            [count],
        )
    client = clerk("export_books", "view_fluxtransaction")
    name = settings.SESSION_COOKIE_NAME
    return {"Cookie": f"{name}={client.cookies[name].value}"}


def resident():
    """Return the bytes of memory this process has, which is server and client at once."""
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * resource.getpagesize()


class TestStreams:
    @pytest.mark.asyncio
    async def test_a_long_file_passes_through_a_small_memory(self, served):
        cookie = await _many(ENTRIES)
        address = served.base_url + url(FluxTransaction, "csv") + "?kind=credit"
        received, parts, lines, most = 0, 0, 0, 0
        # What the first file leaves in memory is code.
        async with served.session.get(f"{address}&user=nobody", headers=cookie) as response:
            await response.read()
        before = resident()

        async with served.session.get(address, headers=cookie) as response:
            assert response.status == 200
            assert "Content-Length" not in response.headers
            async for part in response.content.iter_any():
                received, parts = received + len(part), parts + 1
                lines += part.count(b"\n")
                most = max(most, resident())

        assert lines == ENTRIES + 1
        assert received > 20_000_000
        assert parts > 50
        assert most - before < received / 2

    @pytest.mark.asyncio
    async def test_ends_when_the_client_leaves(self, served, monkeypatch):
        cookie = await _many(FEWER)
        reads = []
        read = exports.Export._read

        def counted(export, after, *, is_first):
            reads.append(after)
            return read(export, after, is_first=is_first)

        monkeypatch.setattr(exports.Export, "_read", counted)
        address = served.base_url + url(FluxTransaction, "csv")

        async with served.session.get(address, headers=cookie) as response:
            await response.content.readany()
            response.close()
        await asyncio.sleep(1)
        seen = len(reads)
        await asyncio.sleep(1)

        assert seen == len(reads)
        assert seen < FEWER / exports.ROWS
