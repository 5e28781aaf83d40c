"""What every page of the console is made of: named actions, forms that act once, an audit row.

Whatever a page changes, it changes in one transaction together with its row in the audit log.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar

from django import forms
from django.contrib import admin
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.db.models import Model
from django.http import Http404, HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils import timezone
from unfold import admin as unfold

from airi_server.kernel.errors import DomainError
from airi_server.pages.forms import dress
from airi_server.pages.paging import BoundedPaginator
from airi_server.runtime import audit

# unfold has no types of its own: its classes are Django's in other clothes.
if TYPE_CHECKING:
    ModelAdmin = admin.ModelAdmin[Any]
    StackedInline = admin.StackedInline[Any, Any]
    TabularInline = admin.TabularInline[Any, Any]
else:
    ModelAdmin = unfold.ModelAdmin
    StackedInline, TabularInline = unfold.StackedInline, unfold.TabularInline

Act = Callable[[Mapping[str, Any], datetime], HttpResponse]
"""What a valid form does: gets the cleaned data and the instant, returns the answer."""


def holds(permission: str) -> Callable[..., bool]:
    """Return a `has_…_permission` that asks for one permission.

    An action could name the permission itself, but unfold then looks it up in the database
    whenever the server checks itself, also before the migration that adds it.
    """

    def check(_page: Any, request: HttpRequest, _object_id: Any = None) -> bool:
        return request.user.has_perm(permission)

    return check


class OperatorAdmin(ModelAdmin):
    """A page of the console."""

    show_full_result_count = False
    paginator = BoundedPaginator
    list_fullwidth = True
    warn_unsaved_form = True
    list_filter_submit = True

    def get_object(
        self, request: HttpRequest, object_id: str, from_field: str | None = None
    ) -> Any:
        """Find the row; Django lets NUL through to a database that refuses to look for it."""
        return None if "\x00" in object_id else super().get_object(request, object_id, from_field)

    def found(self, request: HttpRequest, object_id: str) -> Any:
        """Return the row that a page of an action is about, or answer 404.

        `object_id` as it stands in the URL, where Django spells `_` as `_5F`.
        """
        row = self.get_object(request, unquote(object_id))
        if row is None:
            raise Http404
        return row

    def around(self, request: HttpRequest, row: Any) -> dict[str, Any]:
        """Return what the page of a row shows beside its columns."""
        return {}

    def render_change_form(
        self,
        request: HttpRequest,
        context: dict[str, Any],
        add: bool = False,  # noqa: FBT001, FBT002  Django's own signature
        change: bool = False,  # noqa: FBT001, FBT002
        form_url: str = "",
        obj: Any = None,
    ) -> HttpResponse:
        if obj is not None:
            context.update(self.around(request, obj))
        return super().render_change_form(request, context, add, change, form_url, obj)

    def ask(  # noqa: PLR0913  a page has this many parts
        self,
        request: HttpRequest,
        form: forms.BaseForm,
        act: Act,
        *,
        title: str,
        why: str = "",
        back: str = "",
        template: str = "console/form.html",
        context: Mapping[str, Any] | None = None,
    ) -> HttpResponse:
        """Show a form; act on a valid one in a transaction, and show a refusal on the form.

        `back` is where "Cancel" leads. `act` has to leave its audit row.
        """
        dress(form)
        if request.method == "POST" and form.is_valid():
            try:
                with transaction.atomic():
                    return act(form.cleaned_data, timezone.now())
            except DomainError as refusal:
                form.add_error(None, refusal.message)
        shown = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "form": form,
            "title": title,
            "explanation": why,
            "back": back,
            "media": self.media + form.media,
            **(context or {}),
        }
        return TemplateResponse(request, template, shown)

    def record(
        self,
        request: HttpRequest,
        action: str,
        row: Model,
        sentence: str,
        *,
        facts: dict[str, Any] | None = None,
    ) -> None:
        """Leave an audit row about `row`, in the transaction that changes it."""
        audit.record(
            action=action,
            subject=audit.Subject.of(row),
            by=audit.Actor.of(request.user),
            at=timezone.now(),
            sentence=sentence,
            facts=facts,
        )

    # Django's own log has a foreign key that deletes it with its author: ours is kept instead.

    def log_addition(self, request: HttpRequest, obj: Model, message: Any) -> Any:
        self.record(request, self._permission("add"), obj, f"Added {obj}. {_said(message)}")

    def log_change(self, request: HttpRequest, obj: Model, message: Any) -> Any:
        self.record(request, self._permission("change"), obj, f"Changed {obj}. {_said(message)}")

    def log_deletions(self, request: HttpRequest, queryset: Any) -> Any:
        for row in queryset:
            self.record(request, self._permission("delete"), row, f"Deleted {row}.")

    def history_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Show what was done to this row, from the audit log."""
        row = self.found(request, object_id)
        if not self.has_view_or_change_permission(request, row):
            raise PermissionDenied
        context = {
            **self.admin_site.each_context(request),
            "title": f"History of {row}",
            "opts": self.opts,
            "object": row,
            "entries": audit.of(audit.Subject.of(row)),
            **(extra_context or {}),
        }
        return TemplateResponse(request, "console/history.html", context)

    def _permission(self, verb: str) -> str:
        return f"{self.opts.app_label}.{verb}_{self.opts.model_name}"


class ReadOnlyAdmin(OperatorAdmin):
    """Evidence: to be found and read, never changed here, by nobody."""

    actions = None
    search_fields: ClassVar[tuple[str, ...]] = ("user_id__exact",)
    search_help_text: ClassVar[str] = "A whole user id"

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


def _said(message: Any) -> str:
    """Spell out what Django's forms say they changed, in one sentence."""
    if isinstance(message, str):
        return message
    parts = []
    for step in message:
        for verb, what in step.items():
            fields = ", ".join(map(str, what.get("fields", [])))
            about = f"{what['name']} {what['object']}" if "name" in what else ""
            parts.append(" ".join(part for part in (verb, about, fields) if part))
    return "; ".join(parts)
