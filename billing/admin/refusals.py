"""Refused requests: the list that finds one for a week, and the page that says why it was."""

from __future__ import annotations

from typing import Any, Final
from uuid import UUID

from django.contrib import admin
from django.db.models import Q
from django.http import HttpRequest
from django.utils.html import format_html

from accounts import keys, users
from airi_server.kernel.ids import first_uuid7_at
from airi_server.pages.columns import instant, listed
from airi_server.pages.filters import Selection, TimeFilter, UserFilter
from airi_server.pages.paging import SCATTERED, KeysetQuery
from billing.admin.base import (
    BookPages,
    CodeFilter,
    KeyFilter,
    ModelFilter,
    StatusFilter,
    choose,
    link_to,
)
from billing.models import RefusedRequest

SEE_ROUTES: Final = "llmrouter.view_routermodel"
UNKNOWN_MODEL: Final = "unknown_model"
"""There is no route to explain."""


class RefusalPages(BookPages):
    list_display = ("when", "person", "model_asked_for", "answered", "message")
    list_display_links = ("when",)
    list_filter = (TimeFilter, ModelFilter, CodeFilter, StatusFilter, UserFilter, KeyFilter)
    search_fields = ("id",)
    search_help_text = "A whole request id, user id, e-mail address, or how an API key begins"
    empty_title = "No refused requests here"
    empty_help = (
        "Widen the time, or search for the whole x-request-id of an answer. They are kept for "
        "seven days, the first hundred an hour of each key and error code. What comes after is "
        "counted, and so are requests without a valid key: look for their ids in the log."
    )
    change_form_template = "console/refusal.html"
    export_columns = (
        "id", "at", "user_id", "email", "api_key_id", "kind", "model", "status", "code", "message",
    )  # fmt: skip

    @admin.display(description="Refused (UTC)")
    def when(self, row: RefusedRequest) -> str:
        return instant(row.at)

    @admin.display(description="Model")
    def model_asked_for(self, row: RefusedRequest) -> str:
        """Show the name so that a long one is broken rather than the page."""
        return format_html('<code class="console-code">{}</code>', row.model) if row.model else ""

    @admin.display(description="Answered")
    def answered(self, row: RefusedRequest) -> str:
        return f"{row.status} {row.code}"

    def search_request(self, selection: Selection, request_id: UUID) -> None:
        selection.indexed &= Q(pk=request_id)

    def search_api_key(self, selection: Selection, public_id: str) -> None:
        """Look among the requests of the key's owner: there is no index on keys."""
        owner = keys.owner_of(public_id)
        if owner is not None:
            choose(selection, owner)
        selection.filtered &= Q(api_key_id=public_id)

    def line(self, selection: Selection) -> KeysetQuery:
        """Return them by id, which is the order of time, of one user or of everybody."""
        rows = RefusedRequest.objects.filter(selection.indexed)
        if selection.begin is not None:
            rows = rows.filter(id__gte=first_uuid7_at(selection.begin))
        if selection.end is not None:
            rows = rows.filter(id__lt=first_uuid7_at(selection.end))
        filtered, who = selection.filtered, selection.user_id
        if who is None:
            return KeysetQuery(rows, "id", filtered=filtered)
        return KeysetQuery(
            rows, "id", filtered=filtered, within="user_id", value=who, slice=SCATTERED
        )

    def extra_context(self, request: HttpRequest, row: Any) -> dict[str, Any]:
        """Return what the page of a refusal says beside its row."""
        key = keys.named(row.api_key_id) if row.api_key_id else ""
        plan_url = listed("llmrouter_plan", model=row.model, at=row.at.isoformat())
        return {
            "row": row,
            "may_see_routes": request.user.has_perm(SEE_ROUTES),
            "email": users.emails_of([row.user_id]).get(row.user_id, ""),
            "user_url": link_to("accounts_user_change", row.user_id),
            "account_url": link_to("billing_fluxaccount_change", row.user_id),
            "key": key,
            "key_url": listed("accounts_apikey_changelist", q=key) if key else "",
            "plan_url": "" if row.code == UNKNOWN_MODEL else plan_url,
            "like_it_url": listed(
                "billing_refusedrequest_changelist", user=row.user_id, code=row.code
            ),
        }
