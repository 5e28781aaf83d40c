"""Requests: the list that finds one, and the page that says what happened to it."""

from __future__ import annotations

from datetime import datetime
from typing import Final
from uuid import UUID

from django.contrib import admin
from django.db.models import Q

from accounts import keys
from airi_server.pages.filters import Selection, TimeFilter, UserFilter
from airi_server.pages.paging import SCATTERED, Line
from billing.book_pages import choose, number
from billing.filters import ErrorFilter, ModelFilter, OutcomeFilter, StateFilter, UnbilledFilter
from billing.models import LLMRequestLog
from billing.request_page import RequestPage

MAX_MS: Final = 2**48 - 1


class RequestPages(RequestPage):
    list_display = (
        "when", "person", "model", "state_in_words", "charged", "short", "held", "tokens", "took",
    )  # fmt: skip
    list_display_links = ("when",)
    list_filter = (
        TimeFilter, ModelFilter, StateFilter, OutcomeFilter, ErrorFilter, UnbilledFilter, UserFilter
    )  # fmt: skip
    search_fields = ("id",)
    search_help_text = (
        "A whole request id, user id, e-mail address, how an API key begins, or Idempotency-Key"
    )
    empty_title = "No requests here"
    empty_help = (
        "Widen the time, or search for the whole x-request-id of an answer. A request that was "
        "refused before it was opened, as with too little Flux, has no row: look for its id in "
        "the log."
    )
    export_columns = (
        "id", "opened_at", "user_id", "email", "api_key_id", "kind", "client_key", "model",
        "upstream", "state", "outcome", "error_code", "status", "stream", "attempts",
        "prompt_tokens", "completion_tokens", "cached_tokens", "usage_source", "price_version",
        "hold", "flux_charged", "unbilled", "first_byte_at", "settled_at", "ttft_ms",
        "duration_ms", "instance_id",
    )  # fmt: skip

    @admin.display(description="Opened (UTC)")
    def when(self, row: LLMRequestLog) -> str:
        return f"{row.opened_at:%Y-%m-%d %H:%M:%S}"

    @admin.display(description="State")
    def state_in_words(self, row: LLMRequestLog) -> str:
        return " · ".join(part for part in (row.state, row.outcome, row.error_code) if part)

    @admin.display(description="Charged")
    def charged(self, row: LLMRequestLog) -> str:
        return number(row.flux_charged)

    @admin.display(description="Unbilled")
    def short(self, row: LLMRequestLog) -> str:
        return number(row.unbilled or None)

    @admin.display(description="Hold")
    def held(self, row: LLMRequestLog) -> str:
        return number(row.hold)

    @admin.display(description="Tokens")
    def tokens(self, row: LLMRequestLog) -> str:
        if row.prompt_tokens is None or row.completion_tokens is None:
            return ""
        return number(row.prompt_tokens + row.completion_tokens)

    @admin.display(description="ms")
    def took(self, row: LLMRequestLog) -> str:
        return number(row.duration_ms)

    def search_request(self, selection: Selection, request_id: UUID) -> None:
        selection.led &= Q(pk=request_id)

    def search_api_key(self, selection: Selection, public_id: str) -> None:
        """Look among the requests of the key's owner: there is no index on keys."""
        owner = keys.owner_of(public_id)
        if owner is not None:
            choose(selection, owner)
        selection.narrowed &= Q(api_key_id=public_id)

    def search_key(self, selection: Selection, term: str) -> None:
        """Look for a client's key. Its index begins with the user: choose one to look far back."""
        selection.narrowed &= Q(client_key=term)

    def line(self, selection: Selection) -> Line:
        """Return requests by id, which is the order of time, of one user or of everybody."""
        rows = LLMRequestLog.objects.filter(selection.led).defer("input_hash")
        if selection.begin is not None:
            rows = rows.filter(id__gte=first_id_at(selection.begin))
        if selection.end is not None:
            rows = rows.filter(id__lt=first_id_at(selection.end))
        narrowed = selection.narrowed
        if selection.user_id is not None:
            who = selection.user_id
            return Line(rows, "id", narrowed=narrowed, within="user_id", value=who, slice=SCATTERED)
        column, value = selection.within or ("", None)
        return Line(rows, "id", narrowed=narrowed, within=column, value=value)


def first_id_at(at: datetime) -> UUID:
    """Return what no request that opened from then on is smaller than: ids begin with the time."""
    milliseconds = min(max(0, int(at.timestamp() * 1000)), MAX_MS)
    return UUID(int=milliseconds << 80)
