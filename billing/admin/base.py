"""Base of the staff pages of billing: whose a row is, and the filters that find it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar
from uuid import UUID

from django.contrib import admin
from django.db.models import Q
from django.utils.html import format_html

from accounts import keys, users
from accounts.credentials import without_secret
from airi_server.pages.columns import action, display, link_to, number
from airi_server.pages.exports import ExportPages
from airi_server.pages.filters import ChoiceFilter, Selection, TextFilter
from billing.models import FAILED_OUTCOMES, FluxTransaction, LLMRequestLog

__all__ = ["BookPages", "action", "as_uuid", "choose", "display", "link_to", "number"]


class BookPages(ExportPages):
    """A list of rows that belong to users, by an id that is no foreign key."""

    export_permission: ClassVar[str] = "billing.export_books"

    @admin.display(description="User")
    def person(self, row: Any) -> str:
        """Show whose the row is: the address of today, over the id that never changes."""
        return format_html(
            '<a href="{}">{}</a><br><code>{}</code>',
            link_to("accounts_user_change", row.user_id),
            row.email or "no such user any more",
            row.user_id,
        )

    def complete(self, rows: Sequence[Any]) -> None:
        """Look up the addresses of a page at once."""
        emails = users.emails_of([row.user_id for row in rows]) if rows else {}
        for row in rows:
            row.email = emails.get(row.user_id, "")

    def search(self, selection: Selection, term: str) -> None:
        """Find whole things only, each kind through its own index."""
        term = without_secret(term)
        if not term:
            return
        request_id = as_uuid(term.removeprefix("llm:"))
        public_id = keys.public_id_in(term)
        if "@" in term:
            found = users.with_email(term)
            choose(selection, found.pk if found else None)
        elif request_id is not None:
            self.search_request(selection, request_id)
        elif public_id is not None:
            self.search_api_key(selection, public_id)
        elif self.is_user(term):
            choose(selection, term)
        else:
            self.search_key(selection, term)

    def is_user(self, term: str) -> bool:
        """Whether somebody is called that, or has rows here, or had."""
        return bool(users.emails_of([term])) or (self.model.objects.filter(user_id=term).exists())

    def search_request(self, selection: Selection, request_id: UUID) -> None:
        selection.is_empty = True

    def search_api_key(self, selection: Selection, public_id: str) -> None:
        choose(selection, keys.owner_of(public_id))

    def search_key(self, selection: Selection, term: str) -> None:
        selection.is_empty = True

    def spoken(self, value: str) -> str:
        return without_secret(super().spoken(value))


def choose(selection: Selection, user_id: str | None) -> None:
    """Narrow a selection to one user; none, or two at once, have no rows."""
    if user_id is None or selection.user_id not in (None, user_id):
        selection.is_empty = True
    else:
        selection.user_id = user_id


def as_uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


State = LLMRequestLog.State
UNDER_WAY = "under-way"
MAX_BUSY = 10_000
"""Users with open requests that are looked at: more than the server can serve at once."""


class ModelFilter(TextFilter):
    title, names, column = "Model", ("model",), "model"


class OutcomeFilter(TextFilter):
    title, names, column = "Outcome", ("outcome",), "outcome"


class ErrorFilter(TextFilter):
    title, names, column = "Error code", ("error",), "error_code"


class CodeFilter(TextFilter):
    title, names, column = "Error code", ("code",), "code"


class StatusFilter(TextFilter):
    title, names = "Status", ("status",)

    def select(self, selection: Selection) -> None:
        if self.value():
            status = int(self.value()) if self.value().isdecimal() else 0
            selection.filtered &= Q(status=min(status, 999))


class KeyFilter(TextFilter):
    """Takes a key as it is shown, as far as it may be kept, or its public part alone."""

    title, names = "API key", ("key",)

    def select(self, selection: Selection) -> None:
        if given := without_secret(self.value()):
            selection.filtered &= Q(api_key_id=keys.public_id_in(given) or given)


class RequestStateFilter(ChoiceFilter):
    title, names = "State", ("state",)
    options = (*State.choices, (UNDER_WAY, "Open or streaming"))

    def choose(self, selection: Selection, value: str) -> None:
        if value in (State.OPEN, State.STREAMING, UNDER_WAY):
            # The index of what is under way is as small as the server is busy.
            selection.indexed &= Q(settled_at__isnull=True)
        if value != UNDER_WAY:
            selection.filtered &= Q(state=value)


class UnbilledFilter(ChoiceFilter):
    title, names = "Unbilled", ("unbilled",)
    options = (("yes", "More than 0"),)

    def choose(self, selection: Selection, value: str) -> None:
        selection.indexed &= Q(unbilled__gt=0)
        selection.within = ("state", State.SETTLED)


class FailedFilter(ChoiceFilter):
    title, names = "Failed", ("failed",)
    options = (("yes", "Failed, whatever the outcome"),)

    def choose(self, selection: Selection, value: str) -> None:
        selection.sparse &= Q(outcome__in=FAILED_OUTCOMES)


class KindFilter(ChoiceFilter):
    title, names = "Kind", ("kind",)
    options = FluxTransaction.Kind.choices

    def choose(self, selection: Selection, value: str) -> None:
        if value == FluxTransaction.Kind.DEBIT:
            selection.filtered &= Q(kind=value)
        else:
            selection.indexed &= ~Q(kind=FluxTransaction.Kind.DEBIT)
            selection.within = ("kind", value)


class FrozenFilter(ChoiceFilter):
    title, names = "Frozen", ("frozen",)
    options = (("yes", "Frozen"), ("no", "Not frozen"))

    def choose(self, selection: Selection, value: str) -> None:
        if value == "yes":
            selection.indexed &= Q(frozen=True)
        else:
            selection.filtered &= Q(frozen=False)


class HoldsFilter(ChoiceFilter):
    title, names = "Holds", ("holds",)
    options = (("yes", "With open holds"),)

    def choose(self, selection: Selection, value: str) -> None:
        # Names rather than a subquery, which a planner may join by walking every account.
        under_way = LLMRequestLog.objects.filter(settled_at__isnull=True)
        users = under_way.order_by("user_id").values_list("user_id", flat=True).distinct()
        selection.indexed &= Q(user_id__in=list(users[:MAX_BUSY]))
