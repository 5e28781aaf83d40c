"""Operator settings as pages: what is in force, what it does, who changed it when and why."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

import orjson
from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import Max
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.utils import timezone

from airi_server.kernel.errors import DomainError
from airi_server.runtime import options
from airi_server.runtime.models import OptionRevision

if TYPE_CHECKING:
    ModelAdmin = admin.ModelAdmin[OptionRevision]
else:
    ModelAdmin = admin.ModelAdmin

HISTORY: Final = 50
"""Revisions shown for one setting."""


@dataclass(frozen=True, slots=True)
class Row:
    """One setting as its page shows it; values are JSON."""

    name: str
    value: str
    default: str
    help: str
    newest: OptionRevision | None


@dataclass(frozen=True, slots=True)
class Revision:
    """One line of a setting's history."""

    changed_at: Any
    changed_by: str
    text: str
    note: str


class OptionForm(forms.Form):
    value = forms.CharField(
        help_text='JSON: 5, 2.5, true, "text", ["a"].',
        widget=forms.Textarea(attrs={"rows": 4, "cols": 60}),
    )
    note = forms.CharField(max_length=200, help_text="Why, for whoever reads the history.")

    def clean_value(self) -> Any:
        try:
            return orjson.loads(self.cleaned_data["value"])
        except orjson.JSONDecodeError as malformed:
            raise forms.ValidationError(f"This is not JSON: {malformed}") from None


@admin.register(OptionRevision)
class OptionAdmin(ModelAdmin):
    """Lists settings, not revisions; saving appends a revision through `options.put`."""

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return False: settings are defined in code."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return False: history is kept."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.has_perm("runtime.change_options")

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        if not self.has_view_or_change_permission(request):
            raise PermissionDenied
        if request.method == "POST":
            raise PermissionDenied
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": "Settings",
            "rows": _rows(),
        }
        return TemplateResponse(request, "admin/runtime/options.html", context)

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """Show one setting by its name, and change it."""
        if not self.has_view_or_change_permission(request):
            raise PermissionDenied
        row = next((row for row in _rows() if row.name == object_id), None)
        if row is None:
            raise Http404
        may_change = self.has_change_permission(request)
        if request.method == "POST" and not may_change:
            raise PermissionDenied
        form = OptionForm(request.POST or None, initial={"value": row.value})
        if request.method == "POST" and form.is_valid() and self._put(request, row.name, form):
            return redirect("admin:runtime_optionrevision_changelist")
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": row.name,
            "row": row,
            "form": form if may_change else None,
            "history": _history(row.name),
        }
        return TemplateResponse(request, "admin/runtime/option.html", context)

    def _put(self, request: HttpRequest, name: str, form: OptionForm) -> bool:
        """Change the setting; a refusal goes on the form, and nothing is written."""
        note = form.cleaned_data["note"]
        by = request.user.get_username()
        try:
            revision = options.put(
                name, form.cleaned_data["value"], by=by, at=timezone.now(), note=note
            )
        except DomainError as refusal:
            form.add_error("value", refusal.message)
            return False
        self.log_change(request, revision, f"Set {name} to {_json(revision.value)}: {note}")
        messages.success(request, f"{name} is {_json(revision.value)}.")
        return True


def _rows() -> list[Row]:
    """Return every setting, in the order of the alphabet, in two statements."""
    newest_ids = OptionRevision.objects.values("name").annotate(newest=Max("pk")).order_by()
    newest = {
        revision.name: revision
        for revision in OptionRevision.objects.filter(
            pk__in=[found["newest"] for found in newest_ids]
        )
    }
    return [_row(option, newest.get(name)) for name, option in sorted(options.REGISTRY.items())]


def _row(option: options.Option[Any], newest: OptionRevision | None) -> Row:
    default = "not set" if option.default is options.UNSET else _json(option.default)
    value = _json(newest.value) if newest else default
    return Row(option.name, value, default, option.help, newest)


def _history(name: str) -> list[Revision]:
    revisions = OptionRevision.objects.filter(name=name).order_by("-id")[:HISTORY]
    return [Revision(r.changed_at, r.changed_by, _json(r.value), r.note) for r in revisions]


def _json(value: Any) -> str:
    """Write a value as the form takes it; a decimal as the number it is."""
    if isinstance(value, Decimal):
        return str(value)
    return orjson.dumps(value, default=str).decode()
