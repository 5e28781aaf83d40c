"""The ledger: every movement of Flux, and where each came from."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

import orjson
from django.contrib import admin
from django.db import connection
from django.db.models import Q
from django.http import HttpRequest

from accounts import users
from airi_server.kernel import resources
from airi_server.pages.filters import Selection, TimeFilter, UserFilter
from airi_server.pages.paging import SCATTERED, KeysetQuery
from billing.admin import lookup
from billing.admin.base import BookPages, KindFilter, as_uuid, link_to, number
from billing.models import FluxGrantPerson, FluxTransaction

FIND_ENTRY_AT_SQL: Final = resources.read_text("billing", "sql/find_entry_at.sql")
FIND_ENTRY_OF_USER_AT_SQL: Final = resources.read_text("billing", "sql/find_entry_of_user_at.sql")
SLACK: Final = timedelta(minutes=1)
"""How far ids and times may be apart: longer than any transaction that posts an entry."""


class EntryPages(BookPages):
    list_display = (
        "when", "person", "user_seq", "kind_in_words", "amount_signed", "balance", "description",
    )  # fmt: skip
    list_display_links = ("when",)
    list_filter = (TimeFilter, KindFilter, UserFilter)
    search_fields = ("request_id",)
    search_help_text = "A whole user id, e-mail address, request id or ledger key"
    empty_title = "No entries here"
    empty_help = (
        "Widen the time, or search for a whole user id, e-mail address, request id or ledger key. "
        "Flux enters the ledger with “Grant Flux” on an account's page."
    )
    change_form_template = "console/entry.html"
    export_columns = (
        "id", "created_at", "user_id", "email", "user_seq", "kind", "amount", "balance_before",
        "balance_after", "request_id", "reverses_seq", "description", "metadata",
    )  # fmt: skip

    @admin.display(description="Time (UTC)")
    def when(self, row: FluxTransaction) -> str:
        return f"{row.created_at:%Y-%m-%d %H:%M:%S}"

    @admin.display(description="Kind")
    def kind_in_words(self, row: FluxTransaction) -> str:
        return row.get_kind_display()

    @admin.display(description="Seq")
    def seq(self, row: FluxTransaction) -> str:
        return number(row.user_seq)

    @admin.display(description="Flux")
    def amount_signed(self, row: FluxTransaction) -> str:
        return number(row.balance_after - row.balance_before)

    @admin.display(description="Balance after")
    def balance(self, row: FluxTransaction) -> str:
        return number(row.balance_after)

    def search_request(self, selection: Selection, request_id: UUID) -> None:
        self.search_key(selection, f"{lookup.OF_REQUEST}{request_id}")

    def search_key(self, selection: Selection, term: str) -> None:
        if selection.user_id is not None:
            selection.indexed &= Q(request_id=term)
            return
        entry = lookup.entry_keyed(term)
        selection.indexed &= Q(pk=entry)
        selection.is_empty = entry is None

    def line(self, selection: Selection) -> KeysetQuery:
        """Return one user's entries by their sequence, or everybody's by id."""
        user_id = selection.user_id
        place = FIND_ENTRY_AT_SQL if user_id is None else FIND_ENTRY_OF_USER_AT_SQL
        key = "id" if user_id is None else "user_seq"
        rows = FluxTransaction.objects.filter(selection.indexed)
        if selection.begin is not None:
            first = _find(place, user_id, selection.begin - SLACK)
            rows = rows.filter(**{f"{key}__gte": first}, created_at__gte=selection.begin)
        if selection.end is not None:
            first = _find(place, user_id, selection.end + SLACK)
            rows = rows.filter(**{f"{key}__lt": first}, created_at__lt=selection.end)
        filtered = selection.filtered
        column, value = selection.within or ("", None)
        if user_id is None:
            return KeysetQuery(rows, key, filtered=filtered, within=column, value=value)
        if column:
            filtered &= Q(**{column: value})
        # No other index is in this order, so the planner needs no help to take this one.
        return KeysetQuery(rows.filter(user_id=user_id), key, filtered=filtered, slice=SCATTERED)

    def extra_context(self, request: HttpRequest, row: Any) -> dict[str, Any]:
        return _around(row)


def entries_of(user_id: str, *, limit: int) -> list[FluxTransaction]:
    """Return a user's newest entries."""
    rows = FluxTransaction.objects.filter(user_id=user_id)
    return list(rows.order_by("-user_seq")[:limit])


def _around(entry: FluxTransaction) -> dict[str, Any]:
    """Return what the page of an entry says beside its row."""
    mine = FluxTransaction.objects.filter(user_id=entry.user_id)
    reversed_by = mine.filter(reverses_seq=entry.user_seq).order_by("pk").first()
    reverses = None
    if entry.reverses_seq is not None:
        reverses = mine.filter(user_seq=entry.reverses_seq).order_by("pk").first()
    kept = entry.metadata or {}
    granted_by = str(kept.get("issuedByUserId", "")) if isinstance(kept, dict) else ""
    key = entry.request_id or ""
    request_id = as_uuid(key.removeprefix(lookup.OF_REQUEST))
    is_of_request = request_id is not None and lookup.is_request(request_id)
    emails = users.emails_of([entry.user_id, granted_by])
    named = FluxGrantPerson.objects.filter(entry=entry).order_by("pk").first()
    return {
        "entry": entry,
        "moved": entry.balance_after - entry.balance_before,
        "email": emails.get(entry.user_id, ""),
        "user_url": link_to("accounts_user_change", entry.user_id),
        "account_url": link_to("billing_fluxaccount_change", entry.user_id),
        "request_url": link_to("billing_llmrequestlog_change", request_id) if is_of_request else "",
        "grant_url": link_to("billing_fluxgrant_change", named.grant_id) if named else "",
        "request_id": request_id,
        "reverses": reverses,
        "reversed_by": reversed_by,
        "metadata": orjson.dumps(kept, option=orjson.OPT_INDENT_2).decode() if kept else "",
        "granted_by": emails.get(granted_by, granted_by),
        "granted_by_url": link_to("accounts_user_change", granted_by) if granted_by else "",
    }


def _find(sql: str, user_id: str | None, at: datetime) -> int:
    """Return the first place in a ledger that is not older: there is no index on the time."""
    params: dict[str, Any] = {"user_id": user_id, "at": at}
    with connection.cursor() as cursor:
        cursor.execute(sql, params)
        (found,) = cursor.fetchone() or (None,)
    return found or 0
