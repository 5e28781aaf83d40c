"""Confirm pages: what is now, what would be and by how much, before anything is changed.

A change is three steps of one form, each a POST: what is wanted, what that would do, done.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from django import forms
from django.db import transaction
from django.http import HttpRequest, HttpResponse, QueryDict
from django.template.response import TemplateResponse
from django.utils import timezone

from airi_server.kernel.errors import DomainError
from airi_server.pages.forms import style
from airi_server.pages.operators import Act, OperatorAdmin

MINUS: Final = "\N{MINUS SIGN}"
TIMES: Final = "\N{MULTIPLICATION SIGN}"

Number = Decimal | int


@dataclass(frozen=True, slots=True)
class Comparison:
    """One number of what would change. None is a number that is not known."""

    label: str
    before: Number | None
    after: Number | None

    @property
    def is_changed(self) -> bool:
        return self.before != self.after

    @property
    def now(self) -> str:
        return _written(self.before)

    @property
    def then(self) -> str:
        return _written(self.after)

    @property
    def by(self) -> str:
        """Say by how much, as a difference and as a factor; nothing where nothing changes."""
        if self.before is None or self.after is None or not self.is_changed:
            return ""
        step = Decimal(self.after) - Decimal(self.before)
        factor = _factor(Decimal(self.before), Decimal(self.after))
        return f"{signed(step)} ({factor})" if factor else signed(step)

    def is_beyond(self, factor: int) -> bool:
        """Whether the one is more than so many times the other. Nothing has no multiple."""
        one, other = Decimal(self.before or 0), Decimal(self.after or 0)
        return max(one, other) > factor * min(one, other)


@dataclass(frozen=True, slots=True)
class Confirmation:
    """What a form would do.

    Attributes:
        sentence: What this is about.
        comparisons: What is now and what would be.
        facts: What else to know, each with its name.
        notice: What has changed since the operator looked; empty if nothing has.
        refusal: Why it would be refused as things are; empty if it would not be.
        again: The fields of the form that are to be typed a second time.
    """

    sentence: str
    comparisons: tuple[Comparison, ...]
    facts: tuple[tuple[str, str], ...] = ()
    notice: str = ""
    refusal: str = ""
    again: tuple[str, ...] = ()


def filled_in(form: forms.BaseForm, **values: Any) -> dict[str, Any]:
    """Return what was sent with a form, with other values for some of its fields."""
    sent = form.data.dict() if isinstance(form.data, QueryDict) else form.data
    return {**sent, **values}


class AgainForm(forms.Form):
    """Some fields of a form, empty, to be filled in with the same once more."""

    def __init__(
        self, form: forms.BaseForm, names: Iterable[str], data: Mapping[str, Any] | None
    ) -> None:
        super().__init__(data, prefix="again")
        self.first = form.cleaned_data
        for name in names:
            field = copy.deepcopy(form.fields[name])
            field.label, field.help_text = f"{form[name].label}, once more", ""
            field.required, field.initial = True, None
            field.widget.attrs["autocomplete"] = "off"
            self.fields[name] = field

    def clean(self) -> dict[str, Any]:
        for name, value in list(self.cleaned_data.items()):
            if value != self.first[name]:
                self.add_error(name, "This is not what you entered before.")
        return self.cleaned_data


class ConfirmPages(OperatorAdmin):
    """Pages whose forms show what they would do, and do it when they are sent once more."""

    def confirm_again(  # noqa: PLR0913  a page has this many parts
        self,
        request: HttpRequest,
        form: forms.BaseForm,
        compare: Callable[[Mapping[str, Any]], Confirmation],
        act: Act,
        *,
        moved: type[DomainError],
        title: str,
        why: str = "",
        back: str = "",
        template: str = "console/form.html",
        context: Mapping[str, Any] | None = None,
    ) -> HttpResponse:
        """Show a form, then what it would do, then act on it, in a transaction.

        Args:
            request: Its button says which step is wanted.
            form: Carries in hidden fields what the operator has seen.
            compare: Returns what the form would do to what there is now, and has the form carry
                that as seen.
            act: Has to leave its audit row.
            moved: What `act` raises if there is something else than was seen. It is told on the
                confirm page, which shows what there is now.
            title: Of the page, and what its button does.
            why: What to know before one begins.
            back: Where "Cancel" leads.
            template: Of the first step.
            context: What it shows besides.
        """
        parts = {"title": title, "why": why, "back": back}
        more = {"button": "Continue", **(context or {})}
        posted = request.POST
        if request.method != "POST" or "_edit" in posted or not form.is_valid():
            return self.form_page(request, form, **parts, template=template, context=more)
        shown, is_sure = compare(form.cleaned_data), "_confirm" in posted
        again = AgainForm(form, shown.again, posted if is_sure else None)
        refusal = "" if is_sure else shown.refusal
        notice = shown.notice
        if is_sure and again.is_valid():
            try:
                with transaction.atomic():
                    return act(form.cleaned_data, timezone.now())
            except moved as newer:
                shown, notice = compare(form.cleaned_data), newer.message
                again = AgainForm(form, shown.again, None)
            except DomainError as refused:
                refusal = refused.message
        elif shown.notice:
            # What is to be entered again may be another number now: nothing was left out.
            again = AgainForm(form, shown.again, None)
        if refusal:
            form.add_error(None, refusal)
            return self.form_page(request, form, **parts, template=template, context=more)
        style(again)
        return TemplateResponse(
            request,
            "console/confirm.html",
            {
                **self.admin_site.each_context(request),
                "opts": self.opts,
                "form": form,
                "again": again,
                "confirmation": shown,
                "notice": notice,
                "title": title,
                "back": back,
            },
        )


def signed(change: Number) -> str:
    return f"+{_written(change)}" if change > 0 else f"{MINUS}{_written(-change)}"


def _written(value: Number | None) -> str:
    if value is None:
        return "not known"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value.normalize():,f}"


def _factor(before: Decimal, after: Decimal) -> str:
    if before == 0 or after == 0 or (before < 0) != (after < 0):
        return ""
    ratio = after / before
    sign, times = (TIMES, ratio) if ratio >= 1 else ("÷", 1 / ratio)
    return f"{sign}{times:,.2f}".rstrip("0").rstrip(".")
