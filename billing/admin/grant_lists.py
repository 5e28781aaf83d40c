"""Grants: what was given, by whom and why, and what became of each person who was named."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from django.contrib import admin
from django.db.models import Count, Q, Sum
from django.db.models.functions import Lower
from django.http import HttpRequest

from accounts import users
from airi_server.pages.filters import KeysetAdmin, Selection, TimeFilter
from airi_server.pages.paging import SCATTERED, KeysetQuery
from billing import grant_rows, grants
from billing.admin.base import link_to, number
from billing.models import FluxGrant, FluxGrantPerson

MAX_SHOWN: Final = 1_000
"""People of one grant that its page lists. A call names 200; a key can be used by several."""
SHOWN_LENGTH: Final = 80
Result = FluxGrantPerson.Result


class GrantPages(KeysetAdmin):
    list_display = ("granted", "why", "flux", "paid", "others", "by", "key_")
    list_display_links = ("granted",)
    list_per_page = 50
    list_filter = (TimeFilter,)
    search_fields = ("key",)
    search_help_text = "A whole idempotency key, e-mail address or user id"
    empty_title = "No grants here"
    empty_help = (
        "Widen the time, or search for a whole idempotency key, e-mail address or user id. "
        "“Grant Flux” gives Flux to people; each grant then has a page here."
    )
    change_form_template = "console/grant_result.html"

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Let whoever grants see what came of it."""
        may_view: bool = super().has_view_permission(request, obj)
        return may_view or request.user.has_perm(grants.PERMISSION)

    @admin.display(description="Time (UTC)")
    def granted(self, row: FluxGrant) -> str:
        return f"{row.granted_at:%Y-%m-%d %H:%M:%S}"

    @admin.display(description="Why")
    def why(self, row: FluxGrant) -> str:
        said = row.description
        return said if len(said) <= SHOWN_LENGTH else f"{said[:SHOWN_LENGTH]}…"

    @admin.display(description="Flux")
    def flux(self, row: Any) -> str:
        return number(row.moved)

    @admin.display(description="Granted")
    def paid(self, row: Any) -> str:
        return number(row.paid_count)

    @admin.display(description="Refused or failed")
    def others(self, row: Any) -> str:
        return number(row.other_count)

    @admin.display(description="By")
    def by(self, row: Any) -> str:
        return str(row.by)

    @admin.display(description="Idempotency key")
    def key_(self, row: FluxGrant) -> str:
        return row.key or ""

    def search(self, selection: Selection, term: str) -> None:
        """Find a grant by its key, and those that name somebody, by address or id."""
        if not term:
            return
        named = Q(user_id=term)
        if "@" in term:
            user = users.with_email(term)
            named = Q(lower_email=term.lower()) | Q(user_id=user.pk if user else term)
        people = FluxGrantPerson.objects.alias(lower_email=Lower("email")).filter(named)
        of_people = people.values("grant_id")
        selection.indexed &= Q(key=term) | Q(pk__in=of_people)

    def line(self, selection: Selection) -> KeysetQuery:
        filtered = selection.filtered
        if selection.begin is not None:
            filtered &= Q(granted_at__gte=selection.begin)
        if selection.end is not None:
            filtered &= Q(granted_at__lt=selection.end)
        rows = FluxGrant.objects.filter(selection.indexed)
        return KeysetQuery(rows, "id", filtered=filtered, slice=SCATTERED)

    def complete(self, rows: Sequence[Any]) -> None:
        """Add up a page's people at once, and look up who granted."""
        granted = Q(result=Result.GRANTED)
        of_page = FluxGrantPerson.objects.filter(grant__in=[row.pk for row in rows])
        counted = of_page.values_list("grant").annotate(
            moved=Sum("amount", filter=granted),
            paid=Count("pk", filter=granted),
            others=Count("pk", filter=~granted),
        )
        sums = {grant: sums for grant, *sums in counted}
        emails = users.emails_of([row.granted_by for row in rows])
        for row in rows:
            moved, row.paid_count, row.other_count = sums.get(row.pk, (0, 0, 0))
            row.moved = moved or 0
            row.by = emails.get(row.granted_by, row.granted_by)

    def extra_context(self, request: HttpRequest, row: Any) -> dict[str, Any]:
        return _around(row)


def _around(grant: FluxGrant) -> dict[str, Any]:
    """Return what the page of a grant says beside its row."""
    rows = FluxGrantPerson.objects.filter(grant=grant).select_related("entry")
    people = list(rows.order_by("position", "id")[: MAX_SHOWN + 1])
    paid = [each for each in people if each.result == Result.GRANTED]
    left = grant_rows.missing(grant)
    emails = users.emails_of([grant.granted_by])
    return {
        "title": str(grant),
        "subtitle": None,
        "grant": grant,
        "people": people[:MAX_SHOWN],
        "is_cut": len(people) > MAX_SHOWN,
        "paid": paid,
        "refused": [each for each in people if each.result in grant_rows.REFUSALS],
        "left": left,
        "may_try_again": bool(left) and grant.key is not None,
        "moved": sum(each.amount for each in paid),
        "granted_by": emails.get(grant.granted_by, grant.granted_by),
        "granted_by_url": link_to("accounts_user_change", grant.granted_by) if emails else "",
    }
