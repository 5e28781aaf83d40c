"""Base of the staff pages of people and keys: keyset lists, edits, confirmed actions.

Lists that walk no table, edits told from what to what, and actions on several rows that ask
first and happen to all of them or to none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, ClassVar, Final, NamedTuple, TypeVar
from urllib.parse import urlencode

from django import forms
from django.contrib import messages
from django.contrib.admin import ShowFacets
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.utils import quote
from django.core.exceptions import PermissionDenied
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import NoReverseMatch, reverse

from accounts import credentials, operators
from accounts.admin.forms import changes_of
from accounts.models import APIKey, User
from airi_server.kernel.errors import DomainError
from airi_server.pages.columns import display
from airi_server.pages.operators import OperatorAdmin
from airi_server.runtime import audit


def standing_of(user: User, at: datetime) -> str:
    """Say in words whether somebody is let in."""
    if user.is_banned(at):
        end = user.ban_expires_at
        until = f"until {end:%Y-%m-%d %H:%M} UTC" if end else "for good"
        return f"Banned {until}"
    return "In good standing" if user.is_active else "Switched off"


def state_of(key: APIKey, at: datetime) -> str:
    """Say in a word whether a key works, as far as it depends on the key."""
    if key.disabled_at is not None:
        return "Disabled"
    return "Expired" if key.expires_at is not None and key.expires_at <= at else "Works"


F = TypeVar("F", bound=Callable[..., Any])

MAX_SELECTED: Final = 100
HISTORY: Final = 20
"""What was done to a row, as far as its own page tells."""


def instant(name: str, title: str) -> Callable[[Any, Model], str | None]:
    """Return a column for a time, short enough to stay on one line."""

    @display(description=title)
    def shown(_pages: Any, row: Model) -> str | None:
        at: datetime | None = getattr(row, name)
        return f"{at:%Y-%m-%d %H:%M}" if at else None

    return shown


class PageLink(NamedTuple):
    """A way to another page, for those who may open it."""

    title: str
    url: str


class EditPages(OperatorAdmin):
    """Pages of rows that operators change."""

    list_filter: ClassVar[tuple[str, ...]] = ()
    list_per_page = MAX_SELECTED
    list_disable_select_all = True
    # Each would count or sort the whole table.
    show_facets = ShowFacets.NEVER
    sortable_by = ()

    def may_touch(self, request: HttpRequest, user: User) -> bool:
        """Whoever has powers is left to superusers, and so is everything that is theirs."""
        return bool(request.user.is_superuser) or not operators.has_powers(user)

    def owner_of(self, row: Any) -> User:
        """Return the person whom a row is about."""
        raise NotImplementedError

    def touchable(self, request: HttpRequest, object_id: str) -> Any:
        """Return the row that an action is about, or answer 404 or 403."""
        row = self.found(request, object_id)
        if not self.may_touch(request, self.owner_of(row)):
            raise PermissionDenied
        return row

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest) -> bool:
        """Allow the filters only: Django would also let a hash be guessed, letter by letter."""
        return lookup.removesuffix("__exact") in self.list_filter

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Show the list; a pasted key loses its secret before anything repeats it."""
        term = request.GET.get("q", "").strip()
        public = credentials.without_secret(term)
        if public != term:
            return redirect(f"{request.path}?{urlencode({'q': public})}")
        return super().changelist_view(request, extra_context)

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """Show and edit a row; what another operator made impossible meanwhile is told."""
        try:
            return super().changeform_view(request, object_id, form_url, extra_context)
        except DomainError as refusal:
            messages.error(request, refusal.message)
            return redirect(request.path)

    def construct_change_message(
        self,
        request: HttpRequest,
        form: Any,
        formsets: Any,
        add: bool = False,  # noqa: FBT001, FBT002  Django's own signature
    ) -> Any:
        return changes_of(form)

    def log_change(self, request: HttpRequest, obj: Model, message: Any) -> Any:
        """Leave an audit row, unless nothing was changed."""
        if message:
            super().log_change(request, obj, message)

    def extra_context(self, request: HttpRequest, row: Any) -> dict[str, Any]:
        return {
            "title": str(row),
            "subtitle": None,
            "entries": audit.of(audit.Subject.of(row), limit=HISTORY),
            "show_save_and_add_another": False,
        }

    def list_page(self) -> str:
        return reverse(f"admin:accounts_{self.opts.model_name}_changelist")

    def page_of(self, row: Model) -> str:
        return reverse(f"admin:accounts_{self.opts.model_name}_change", args=[quote(row.pk)])

    def links(self, request: HttpRequest, *wanted: tuple[str, str, str, str]) -> list[PageLink]:
        """Return links that the operator may follow, of pages that there are.

        Each is wanted as a title, the permission that it needs, the name of the page, and what
        comes after its address.
        """
        found = []
        for title, permission, page, query in wanted:
            if not request.user.has_perm(permission):
                continue
            try:
                found.append(PageLink(title, reverse(f"admin:{page}") + query))
            except NoReverseMatch:
                continue
        return found

    def ask_about_selected(
        self,
        request: HttpRequest,
        queryset: QuerySet[Any],
        form_class: type[forms.Form],
        act: Callable[[Any, Mapping[str, Any], datetime], None],
        *,
        title: str,
    ) -> HttpResponse | None:
        """Ask once about the rows that were ticked, and act on all of them or on none."""
        rows = list(queryset[: MAX_SELECTED + 1])
        if len(rows) > MAX_SELECTED:
            messages.error(request, f"Select at most {MAX_SELECTED}.")
            return None
        if not all(self.may_touch(request, self.owner_of(row)) for row in rows):
            messages.error(request, "Only superusers touch operators. Nothing was changed.")
            return None

        def act_on_all(cleaned: Mapping[str, Any], at: datetime) -> HttpResponse:
            for row in rows:
                act(row, cleaned, at)
            messages.success(request, f"{title}: {len(rows)} done.")
            return redirect(request.get_full_path())

        form = form_class(request.POST if "_apply" in request.POST else None)
        _remember(form, request.POST.getlist("action")[-1], [str(row.pk) for row in rows])
        return self.confirm(
            request,
            form,
            act_on_all,
            title=title,
            why=f"{len(rows)} selected: {', '.join(map(str, rows))}.",
            back=request.get_full_path(),
        )


def _remember(form: forms.Form, action: str, selected: list[str]) -> None:
    """Let the form bring the choice along that led to it."""
    form.fields["action"] = forms.CharField(widget=forms.HiddenInput, initial=action)
    form.fields[ACTION_CHECKBOX_NAME] = forms.MultipleChoiceField(
        choices=[(key, key) for key in selected],
        widget=forms.MultipleHiddenInput,
        initial=selected,
    )
