"""Base of staff pages: named actions, forms that act once, an audit row for each change.

Whatever a page changes, it changes in one transaction together with its row in the audit log.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from functools import wraps
from typing import TYPE_CHECKING, Any, ClassVar, Final

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.utils import unquote
from django.contrib.admin.views.main import ERROR_FLAG, IGNORED_PARAMS, PAGE_VAR
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.db.models import Model
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect, QueryDict
from django.template.response import TemplateResponse
from django.utils import timezone
from unfold import admin as unfold

from airi_server.kernel.errors import DomainError
from airi_server.pages.forms import style
from airi_server.pages.paging import BoundedPaginator
from airi_server.runtime import audit, used_forms

# unfold has no types of its own: its classes are Django's in other clothes.
if TYPE_CHECKING:
    ModelAdmin = admin.ModelAdmin[Any]
    StackedInline = admin.StackedInline[Any, Any]
    TabularInline = admin.TabularInline[Any, Any]
else:
    ModelAdmin = unfold.ModelAdmin
    StackedInline, TabularInline = unfold.StackedInline, unfold.TabularInline

LISTS = frozenset({*IGNORED_PARAMS, PAGE_VAR, ERROR_FLAG})
"""Parameters of Django's lists that are no filters."""
ONCE: Final = "once"
"""The field with a form's token."""
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

    def get_changelist_instance(self, request: HttpRequest) -> Any:
        """Read the list without what its address has too much: Django would refuse all of it."""
        request.GET = self._understood(request)  # type: ignore[assignment]  # a mutable copy is as good
        return super().get_changelist_instance(request)

    def _understood(self, request: HttpRequest) -> QueryDict:
        asked = QueryDict(mutable=True)
        for name, values in request.GET.lists():
            kept = [value.replace("\x00", "") for value in values]
            if "\x00" not in name and (
                name in LISTS or all(self.lookup_allowed(name, value, request) for value in kept)
            ):
                asked.setlist(name, kept)
        return asked

    def found(self, request: HttpRequest, object_id: str) -> Any:
        """Return the row that a page of an action is about, or answer 404.

        `object_id` as it stands in the URL, where Django spells `_` as `_5F`.
        """
        row = self.get_object(request, unquote(object_id))
        if row is None:
            raise Http404
        return row

    def extra_context(self, request: HttpRequest, row: Any) -> dict[str, Any]:
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
            context.update(self.extra_context(request, obj))
        return super().render_change_form(request, context, add, change, form_url, obj)

    def confirm(  # noqa: PLR0913  a page has this many parts
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

        `back` is where "Cancel" leads. `act` has to leave its audit row. A form that is sent again
        does nothing and leads to where the first time did: to the redirect that `act` returned,
        or to the `Content-Location` of a page that is shown once.
        """
        if request.method == "POST" and form.is_valid():
            try:
                return once(request, lambda at: act(form.cleaned_data, at), back=back)
            except DomainError as refusal:
                form.add_error(None, refusal.message)
        parts = {"title": title, "why": why, "back": back}
        return self.form_page(request, form, **parts, template=template, context=context)

    def form_page(  # noqa: PLR0913  as above
        self,
        request: HttpRequest,
        form: forms.BaseForm,
        *,
        title: str,
        why: str = "",
        back: str = "",
        template: str = "console/form.html",
        context: Mapping[str, Any] | None = None,
    ) -> HttpResponse:
        """Show a form as it is, with what was filled in and what is wrong with it."""
        style(form)
        shown = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "form": form,
            "title": title,
            "explanation": why,
            "back": back,
            "once": _token_of(request) or used_forms.new_token(),
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
    """Read-only: no add, change or delete."""

    actions = None
    search_fields: ClassVar[tuple[str, ...]] = ("user_id__exact",)
    search_help_text: ClassVar[str] = "A whole user id"

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


def once(
    request: HttpRequest, act: Callable[[datetime], HttpResponse], *, back: str
) -> HttpResponse:
    """Act in a transaction, if the form that was posted has not; else lead to where that led."""
    at, answers = timezone.now(), list[HttpResponse]()

    def lead() -> str:
        answer = act(at)
        answers.append(answer)
        return str(answer.get("Location") or answer.get("Content-Location") or back)

    with transaction.atomic():
        token = _token_of(request)
        if not token:
            return act(at)
        led_to = used_forms.first_time(token, at=at, act=lead)
    return answers[0] if led_to is None else _done_before(request, led_to)


def found_done(view: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a page: where the row is gone because this very form was sent before, say so."""

    @wraps(view)
    def shown(request: HttpRequest, *args: Any, **named: Any) -> Any:
        try:
            return view(request, *args, **named)
        except Http404:
            token = _token_of(request)
            led_to = used_forms.location_of(token) if token else None
            if led_to is None:
                raise
            return _done_before(request, led_to)

    return shown


def _token_of(request: HttpRequest) -> str:
    given = request.POST.get(ONCE, "")
    return given if used_forms.is_token(given) else ""


def _done_before(request: HttpRequest, led_to: str) -> HttpResponse:
    messages.info(request, "This was done when the form was first sent; nothing was done again.")
    return HttpResponseRedirect(led_to or request.path)


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
