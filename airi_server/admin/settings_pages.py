"""Operator settings as pages: what is in force, what it does, who changed it when and why.

Going back is publishing an old value again, as a new revision; going back to the default is
publishing the default's value. So the newest revision is always what is in force.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import orjson
from django import forms
from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.db.models import Max
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.utils import timezone

from airi_server.admin import option_fields
from airi_server.kernel.errors import DomainError
from airi_server.pages.forms import style
from airi_server.runtime import audit, options
from airi_server.runtime.options import Option, OptionRevision

PERMISSION: Final = "runtime.change_options"
SEE: Final = (PERMISSION, "runtime.view_optionrevision")
HISTORY: Final = 50
"""Revisions shown for one setting."""
DEFAULT: Final = "default"
"""What `again` names instead of a revision."""


@dataclass(frozen=True, slots=True)
class Row:
    """One setting as its page shows it; values are text."""

    option: Option[Any]
    value: str
    default: str
    range: str
    newest: OptionRevision | None

    @property
    def name(self) -> str:
        return self.option.name

    @property
    def help(self) -> str:
        return self.option.help

    @property
    def is_sealed(self) -> bool:
        return self.option.shown is not None

    @property
    def has_default(self) -> bool:
        return self.option.default is not options.UNSET

    @property
    def is_default(self) -> bool:
        return self.has_default and self.value == self.default

    @property
    def seen(self) -> int:
        return self.newest.pk if self.newest else 0


@dataclass(frozen=True, slots=True)
class Revision:
    """One line of a setting's history."""

    id: int
    changed_at: Any
    changed_by: str
    text: str
    note: str


class SettingReasonForm(forms.Form):
    """Why, and what the operator was looking at when they decided."""

    note = forms.CharField(
        label="Reason", max_length=200, help_text="For whoever reads the history."
    )
    seen = forms.IntegerField(widget=forms.HiddenInput, min_value=0, max_value=2**63 - 1)


class OptionForm(SettingReasonForm):
    """A new value; its field is made from the setting."""

    field_order = ("value",)

    def __init__(self, row: Row, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self.fields["value"] = option_fields.field_of(row.option)
        self.order_fields(self.field_order)


def overview(request: HttpRequest, context: dict[str, Any]) -> HttpResponse:
    """List every setting with its value, its default and its last change."""
    _check_may_see(request)
    shown = {**context, "title": "Settings", "rows": _rows(), "may_change": _may_change(request)}
    return TemplateResponse(request, "console/settings.html", shown)


def setting(request: HttpRequest, context: dict[str, Any], *, name: str) -> HttpResponse:
    """Show one setting with its history, and change it; `?again=` goes back to an old value."""
    _check_may_see(request)
    row = next((row for row in _rows() if row.name == name), None)
    if row is None:
        raise Http404
    may_edit = _may_change(request) and not row.is_sealed
    if request.method == "POST" and not may_edit:
        raise PermissionDenied
    if may_edit and "again" in request.GET:
        return _again(request, context, row)
    form = OptionForm(row, request.POST or None, initial=_initial(row)) if may_edit else None
    is_valid = form is not None and request.method == "POST" and form.is_valid()
    if form and is_valid and _put(request, row, form.cleaned_data["value"], form, at_field="value"):
        return redirect("admin:setting", name)
    if form:
        style(form)
    shown = {
        **context,
        "title": name,
        "row": row,
        "form": form,
        "may_change": _may_change(request),
        "shape": option_fields.shape_of(row.option) if form else "",
        "history": _history(row.option),
    }
    return TemplateResponse(request, "console/setting.html", shown)


def _again(request: HttpRequest, context: dict[str, Any], row: Row) -> HttpResponse:
    """Ask for a reason, then publish an old value, or the default, as a new revision."""
    value = _old_value(row, request.GET["again"])
    form = SettingReasonForm(request.POST or None, initial={"seen": row.seen})
    if request.method == "POST" and form.is_valid() and _put(request, row, value, form):
        return redirect("admin:setting", row.name)
    style(form)
    text = option_fields.shown(row.option, value)
    shown = {
        **context,
        "title": f"Publish {row.name} again",
        "explanation": f"{row.name} is {row.value} now and will be {text}.",
        "form": form,
        "button": "Publish this value again",
        "back": f"../{row.name}/",
    }
    return TemplateResponse(request, "console/form.html", shown)


def _old_value(row: Row, which: str) -> Any:
    if which == DEFAULT and row.has_default:
        return orjson.loads(option_fields.shown(row.option, row.option.default))
    if not which.isascii() or not which.isdigit() or len(which) > 18:
        raise Http404
    old = OptionRevision.objects.filter(name=row.name, pk=int(which)).order_by("pk").first()
    if old is None:
        raise Http404
    return old.value


def _check_may_see(request: HttpRequest) -> None:
    if not any(map(request.user.has_perm, SEE)):
        raise PermissionDenied


def _may_change(request: HttpRequest) -> bool:
    return request.user.has_perm(PERMISSION)


def _initial(row: Row) -> dict[str, Any]:
    value = row.newest.value if row.newest else row.option.default
    return {"value": option_fields.initial_of(row.option, value), "seen": row.seen}


def _put(
    request: HttpRequest, row: Row, value: Any, form: forms.Form, *, at_field: str | None = None
) -> bool:
    """Change the setting; a refusal goes on the form, and nothing is written."""
    try:
        revision = options.put(
            row.name,
            value,
            by=audit.Actor.of(request.user),
            at=timezone.now(),
            note=form.cleaned_data["note"],
            seen=form.cleaned_data["seen"],
        )
    except options.ChangedMeanwhile as refusal:
        form.add_error(None, refusal.message)
        return False
    except DomainError as refusal:
        form.add_error(at_field, refusal.message)
        return False
    text = option_fields.shown(row.option, revision.value)
    if revision.pk == row.seen:
        messages.info(request, f"{row.name} was {text} already: nothing was changed.")
    else:
        messages.success(request, f"{row.name} is {text}.")
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


def _row(option: Option[Any], newest: OptionRevision | None) -> Row:
    default = option_fields.shown(option, option.default)
    value = option_fields.shown(option, newest.value) if newest else default
    return Row(option, value, default, option_fields.range_of(option), newest)


def _history(option: Option[Any]) -> list[Revision]:
    revisions = OptionRevision.objects.filter(name=option.name).order_by("-id")[:HISTORY]
    return [
        Revision(r.pk, r.changed_at, r.changed_by, option_fields.shown(option, r.value), r.note)
        for r in revisions
    ]
