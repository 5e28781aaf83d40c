"""What operators type about people and keys."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

from django import forms

from accounts import addresses
from accounts.models import APIKey, User

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


class NewUserForm(forms.Form):
    email = forms.EmailField(max_length=254)
    password = PasswordField(required=False, help_text="Empty: cannot log in with a password.")
    verified = forms.BooleanField(required=False, help_text="The address is known to be theirs.")
    is_staff = forms.BooleanField(required=False, label="May enter the admin")


class PasswordForm(forms.Form):
    password = PasswordField(label="New password")


class BanForm(forms.Form):
    reason = forms.CharField(max_length=500)
    until = InstantField(required=False, help_text="UTC. Empty: for good.")


class KeyForm(forms.ModelForm):  # type: ignore[type-arg]  # not generic at run time
    """The settings of a key. Django asks the database's own constraints about them."""

    expires_at = InstantField(required=False, help_text="UTC. Empty: never.")

    class Meta:
        model = APIKey
        fields = KEY_FIELDS
        help_texts = {
            "allowed_models": "Public model names, separated by commas. Empty: all.",
            "allowed_addresses": "Addresses or networks, separated by commas. Empty: all.",
            "limit_day": "Whole Flux each UTC day. Empty: no limit.",
            "limit_month": "Whole Flux each UTC month. Empty: no limit.",
            "limit_total": "Whole Flux in all. Empty: no limit.",
            "requests_per_minute": "Empty: the default; 0: no limit.",
            "tokens_per_minute": "Empty: the default; 0: no limit.",
            "parallel_requests": "Empty: the default; 0: no limit.",
        }

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
