"""The console's Grant Flux page: a form, a preview of it, and the way to the grant's own page.

What was filled in waits in the session, so that the preview has an address: a reload, or the way
back to it, asks nobody to send a form again. Nothing is paid by it. What pays is one POST, which
carries the whole form and is safe to repeat by the grant's key.
"""

from __future__ import annotations

import codecs
from typing import Any, Final

from django import forms
from django.contrib import messages
from django.core.exceptions import PermissionDenied, ValidationError
from django.core.files.base import File
from django.core.validators import ProhibitNullCharactersValidator
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.utils import timezone

from airi_server.kernel import ids
from airi_server.pages.forms import style
from airi_server.runtime import audit
from billing import address_lists, grants
from billing.address_lists import AddressList
from billing.grants import GrantRefusal
from billing.models import FluxGrant, FluxGrantPerson

MAX_EMAIL: Final = 254
MAX_TEXT: Final = 100_000
"""Characters of a list: 200 people with what stands around their addresses."""
SHOWN_MISTAKES: Final = 20
DRAFTED: Final = ("emails", "amount", "description", "key")
TOO_LONG: Final = f"This file is longer than {MAX_TEXT:,} characters."


class EmailsField(forms.CharField):
    """A list of addresses in any shape that people paste; cleans to an `AddressList`."""

    widget = forms.Textarea(attrs={"rows": 8, "cols": 60, "spellcheck": "false"})

    def __init__(self, **options: Any) -> None:
        super().__init__(max_length=MAX_TEXT, **options)

    def clean(self, value: Any) -> Any:
        text: str = super().clean(value)
        return understood(text) if text else None


class ListFileField(forms.FileField):
    """The same from a file; cleans to its text."""

    widget = forms.FileInput(attrs={"accept": ".csv,.tsv,.txt,text/csv,text/plain"})

    def to_python(self, data: Any) -> Any:
        upload = super().to_python(data)
        return None if upload is None else _text_of(upload)


class GrantForm(forms.Form):
    emails = EmailsField(
        label="E-mail addresses",
        required=False,
        help_text=f"At most {grants.MAX_EMAILS}, as they come: one on each line, separated by "
        "commas or semicolons, with or without names, or a table whose first line names its "
        "columns, as in “name, email, amount”.",
    )
    file = ListFileField(
        label="Or a CSV file",
        required=False,
        help_text="UTF-8. The columns “email” and “amount” are read.",
    )
    amount = forms.IntegerField(
        label="Flux for each person",
        required=False,
        min_value=1,
        max_value=grants.MAX_AMOUNT,
        help_text="Empty where the list has amounts of its own.",
    )
    description = forms.CharField(
        max_length=grants.MAX_DESCRIPTION, help_text="Why. They read it in their history."
    )
    key = forms.CharField(
        label="Idempotency key",
        max_length=grants.MAX_KEY,
        help_text="Nobody is paid twice under one key. To finish a grant that failed in part, "
        "use its key again.",
    )

    @classmethod
    def blank(cls, email: str = "") -> GrantForm:
        """Return a form to fill in, with a key of its own."""
        email = email.replace("\x00", "")[:MAX_EMAIL]
        return cls(initial={"key": ids.nanoid(), "emails": email})

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = self.cleaned_data
        if "emails" in cleaned and "file" in cleaned:
            self._choose(cleaned.get("emails"), cleaned.get("file"))
        listed: AddressList | None = cleaned.get("emails")
        if listed is not None and "amount" in cleaned:
            self._compare(listed, cleaned["amount"])
        return cleaned

    def draft(self) -> dict[str, str]:
        """Return a valid form as it was filled in, with the file's text in its place."""
        kept = {name: str(self[name].value() or "") for name in DRAFTED}
        return kept | {"emails": self.cleaned_data["file"] or kept["emails"]}

    def order(self) -> grants.GrantOrder:
        listed: AddressList = self.cleaned_data["emails"]
        people = listed.people(self.cleaned_data["amount"])
        return grants.GrantOrder(people, self.cleaned_data["description"], self.cleaned_data["key"])

    def _choose(self, pasted: AddressList | None, uploaded: str | None) -> None:
        """Take the list from where it is; there has to be one."""
        if pasted is not None and uploaded:
            self.add_error("file", "Paste a list or upload one, not both.")
        elif uploaded:
            try:
                self.cleaned_data["emails"] = understood(uploaded)
            except ValidationError as wrong:
                self.add_error("file", wrong)
        elif pasted is None:
            self.add_error("emails", "Name at least one address.")

    def _compare(self, listed: AddressList, amount: int | None) -> None:
        """Hold the amounts of the list against the one for everybody: either counts, not both."""
        without = [each.line for each in listed.found if each.amount is None]
        if listed.has_amounts and amount is not None:
            self.add_error(
                "amount", "The list has amounts of its own: empty this field, or take them out."
            )
        elif listed.has_amounts and without:
            self.add_error("amount", f"Line {without[0]} of the list has no amount.")
        elif not listed.has_amounts and amount is None:
            self.add_error("amount", "How much does each person get?")


def understood(text: str) -> AddressList:
    """Return what a list says.

    Raises:
        ValidationError: It says something that is no address, nothing, or too much.
    """
    listed = address_lists.read(text)
    if listed.mistakes:
        raise ValidationError(_complaints(listed))
    if not listed.found:
        raise ValidationError("Name at least one address.")
    if len(listed.found) > grants.MAX_EMAILS:
        raise ValidationError(
            f"At most {grants.MAX_EMAILS} addresses at once; these are {len(listed.found)}."
        )
    return listed


def _complaints(listed: AddressList) -> list[str]:
    shown = [str(each) for each in listed.mistakes[:SHOWN_MISTAKES]]
    if more := len(listed.mistakes) - SHOWN_MISTAKES:
        shown += [f"And {more} more."] if more > 0 else []
    return shown


def _text_of(upload: File[Any]) -> str:
    """Return the text of a file as spreadsheets save them.

    Raises:
        ValidationError: It is too long, or neither UTF-8 nor marked as UTF-16.
    """
    if upload.size > 4 * MAX_TEXT:
        raise ValidationError(TOO_LONG)
    content: bytes = upload.read()
    is_wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = content.decode("utf-16" if is_wide else "utf-8-sig")
    except UnicodeDecodeError:
        raise ValidationError("This file is not UTF-8. Save it as “CSV UTF-8”.") from None
    if len(text) > MAX_TEXT:
        raise ValidationError(TOO_LONG)
    ProhibitNullCharactersValidator()(text)
    return text


TITLE: Final = "Grant Flux"
REASONS: Final = {each: FluxGrantPerson.Result(each.value).label for each in GrantRefusal}
DRAFTS: Final = "grant_drafts"
MAX_DRAFTS: Final = 3
"""Tabs in which somebody fills in a grant at once."""


def page(request: HttpRequest, context: dict[str, Any]) -> HttpResponse:
    """Ask; a POST leads on to the preview, or pays and leads to the grant."""
    _check_may_grant(request)
    if request.method != "POST":
        return _ask(request, context, _begun(request))
    if "_again" in request.POST:
        return _try_again(request)
    form = GrantForm(request.POST, request.FILES)
    if not form.is_valid():
        return _ask(request, context, form)
    if "_apply" in request.POST:
        return _apply(request, form.order())
    return redirect("admin:grant_flux_preview", _keep(request, form.draft()))


def preview(request: HttpRequest, context: dict[str, Any], *, draft: str) -> HttpResponse:
    """Show who would be paid by what was filled in."""
    _check_may_grant(request)
    kept = request.session.get(DRAFTS, {}).get(draft)
    form = GrantForm(kept)
    if not form.is_valid():
        messages.info(request, "That preview is gone, and nobody was paid by it. Fill it in again.")
        return redirect("admin:grant_flux")
    plan = grants.preview(form.order())
    shown = {
        **context,
        "title": TITLE,
        "plan": plan,
        "draft": draft,
        "hidden": kept,
        "unused": form.cleaned_data["emails"].unused,
        "groups": [
            (REASONS[refusal], people)
            for refusal in GrantRefusal
            if (people := plan.refused(refusal))
        ],
    }
    return TemplateResponse(request, "console/grant_preview.html", shown)


def _check_may_grant(request: HttpRequest) -> None:
    if not request.user.has_perm(grants.PERMISSION):
        raise PermissionDenied


def _begun(request: HttpRequest) -> GrantForm:
    """Return the form to fill in: empty, for one person, or as it was before its preview."""
    kept = request.session.get(DRAFTS, {}).get(request.GET.get("draft", ""))
    return GrantForm(initial=kept) if kept else GrantForm.blank(request.GET.get("email", ""))


def _ask(request: HttpRequest, context: dict[str, Any], form: GrantForm) -> HttpResponse:
    style(form)
    shown = {**context, "title": TITLE, "form": form}
    return TemplateResponse(request, "console/grant.html", shown)


def _keep(request: HttpRequest, filled_in: dict[str, str]) -> str:
    """Keep what was filled in, and return by what name; the oldest are forgotten."""
    name = ids.nanoid()
    kept = list(request.session.get(DRAFTS, {}).items())
    request.session[DRAFTS] = dict([*kept[1 - MAX_DRAFTS :], (name, filled_in)])
    return name


def _apply(request: HttpRequest, order: grants.GrantOrder) -> HttpResponse:
    result = grants.apply(order, by=audit.Actor.of(request.user), at=timezone.now())
    paid = [posting for _, posting in result.granted if not posting.replayed]
    said = f"{len(paid)} granted now, {result.flux_moved:,} Flux in all"
    if before := len(result.granted) - len(paid):
        said += f"; {before} had it already by this key"
    if result.failed:
        said += f"; {len(result.failed)} failed"
    level = messages.WARNING if result.failed else messages.SUCCESS
    messages.add_message(request, level, f"{said}.")
    return redirect("admin:billing_fluxgrant_change", result.grant_id)


def _try_again(request: HttpRequest) -> HttpResponse:
    """Pay whoever failed in a grant and has nothing by it; by its key, so nobody is paid twice."""
    named = request.POST["_again"]
    is_number = named.isascii() and named.isdigit() and len(named) <= 18
    if not is_number or not FluxGrant.objects.filter(pk=int(named)).exists():
        messages.error(request, "There is no such grant.")
        return redirect("admin:grant_flux")
    order = grants.again(int(named))
    if order.people:
        return _apply(request, order)
    messages.info(request, "Nobody is left to pay by this grant.")
    return redirect("admin:billing_fluxgrant_change", int(named))
