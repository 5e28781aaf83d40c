"""What operators type about people and keys."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Final

from django import forms
from django.contrib.auth.models import Group
from unfold.widgets import UnfoldAdminCheckboxSelectMultipleWidget

from accounts import addresses
from accounts.models import APIKey, User
from airi_server.pages.forms import style

MAX_LISTED: Final = 100
"""What a list of a key may hold; the database insists."""
MAX_QUOTED: Final = 100

KEY_FIELDS: Final = (
    "name",
    "expires_at",
    "allowed_models",
    "allowed_addresses",
    "limit_day",
    "limit_month",
    "limit_total",
    "requests_per_minute",
    "tokens_per_minute",
    "parallel_requests",
)


class PasswordField(forms.CharField):
    widget = forms.PasswordInput(attrs={"autocomplete": "new-password"})

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(max_length=128, strip=False, **kwargs)


class InstantField(forms.SplitDateTimeField):
    """Day and time, with the browser's own pickers: the admin's need scripts."""

    widget = forms.SplitDateTimeWidget(
        date_format="%Y-%m-%d",
        date_attrs={"type": "date"},
        time_attrs={"type": "time", "step": "1"},
    )


class ListField(forms.CharField):
    """Texts, one on each line; commas part them too."""

    widget = forms.Textarea(attrs={"rows": 3})

    def __init__(self, *, longest: int, **kwargs: Any) -> None:
        super().__init__(max_length=MAX_LISTED * (longest + 2), required=False, **kwargs)
        self.longest = longest

    def clean(self, value: Any) -> Any:
        items = self._items(super().clean(value))
        if len(items) > MAX_LISTED:
            raise forms.ValidationError(f"At most {MAX_LISTED}; these are {len(items)}.")
        for item in items:
            if len(item) > self.longest:
                raise forms.ValidationError(
                    f"“{item[:20]}…” is longer than {self.longest} characters."
                )
        return items

    def prepare_value(self, value: Any) -> Any:
        return "\n".join(value) if isinstance(value, list) else value

    def has_changed(self, initial: Any, data: Any) -> bool:
        return list(initial or []) != self._items(data or "")

    def _items(self, text: str) -> list[str]:
        items = (item.strip() for item in re.split(r"[,\r\n]", text))
        return list(dict.fromkeys(filter(None, items)))


class ReasonForm(forms.Form):
    """What asks for nothing but why."""

    reason = forms.CharField(max_length=500, help_text="For whoever reads the history.")


class SureForm(forms.Form):
    """What asks for nothing but a second thought."""


class NewUserForm(forms.Form):
    email = forms.EmailField(max_length=254)
    password = PasswordField(required=False, help_text="Empty: cannot log in with a password.")
    verified = forms.BooleanField(required=False, help_text="The address is known to be theirs.")
    is_staff = forms.BooleanField(
        required=False, label="Make staff", help_text="May enter the console."
    )
    roles = forms.ModelMultipleChoiceField(
        Group.objects.order_by("name"),
        required=False,
        help_text="What staff may do in it; made under “Groups”.",
    )


class PasswordForm(ReasonForm):
    password = PasswordField(label="New password")
    field_order = ("password", "reason")


class BanForm(forms.Form):
    reason = forms.CharField(max_length=500, help_text="For whoever reads the history.")
    until = InstantField(required=False, help_text="UTC. Empty: for good.")


class KeyForm(forms.ModelForm):  # type: ignore[type-arg]  # not generic at run time
    """The settings of a key. Django asks the database's own constraints about them."""

    expires_at = InstantField(required=False, help_text="UTC. Empty: never.")
    allowed_models = ListField(
        longest=200, help_text="Public model names, one on each line. Empty: all."
    )
    allowed_addresses = ListField(
        longest=64, help_text="Addresses or networks, one on each line. Empty: all."
    )

    class Meta:
        model = APIKey
        fields = KEY_FIELDS
        help_texts = {
            "limit_day": "Whole Flux each UTC day. Empty: no limit.",
            "limit_month": "Whole Flux each UTC month. Empty: no limit.",
            "limit_total": "Whole Flux in all. Empty: no limit.",
            "requests_per_minute": "Empty: the default; 0: no limit.",
            "tokens_per_minute": "Empty: the default; 0: no limit.",
            "parallel_requests": "Empty: the default; 0: no limit.",
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        style(self)

    def clean_allowed_addresses(self) -> list[str]:
        texts: list[str] = self.cleaned_data["allowed_addresses"]
        for text in texts:
            if addresses.parse_network(text) is None:
                raise forms.ValidationError(f"“{text}” is not an address or network.")
        return texts

    def clean_expires_at(self) -> datetime | None:
        expires_at: datetime | None = self.cleaned_data["expires_at"]
        is_past = expires_at is not None and expires_at <= datetime.now(UTC)
        if is_past and "expires_at" in self.changed_data:
            raise forms.ValidationError("A key must expire in the future.")
        return expires_at


class NewKeyForm(KeyForm):
    owner = forms.EmailField(help_text="The user's e-mail address.")
    field_order = ("owner", *KEY_FIELDS)


class UserForm(forms.ModelForm):  # type: ignore[type-arg]  # not generic at run time
    class Meta:
        model = User
        fields = (
            "name",
            "email",
            "is_active",
            "is_staff",
            "is_superuser",
            "groups",
            "user_permissions",
        )
        widgets = {
            "groups": UnfoldAdminCheckboxSelectMultipleWidget,
            "user_permissions": forms.SelectMultiple(attrs={"size": 12}),
        }
        help_texts = {
            "groups": "What the operator may do, by role.",
            "user_permissions": "What they may do besides. Better make a group of it.",
        }


def changes_of(form: forms.BaseForm) -> str:
    """Tell what was edited, from what to what; nothing if nothing was."""
    parts = []
    for name in form.changed_data:
        before, after = _quoted(form.initial.get(name)), _quoted(form.cleaned_data.get(name))
        label = (form.fields[name].label or name.replace("_", " ")).lower()
        parts.append(f"{label}: {before} → {after}")
    return "; ".join(parts)


def _quoted(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S} UTC"
    if isinstance(value, Iterable) and not isinstance(value, str):
        value = ", ".join(map(str, value))
    return str(value)[:MAX_QUOTED] if value not in (None, "") else "nothing"
