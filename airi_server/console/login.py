"""Entering the console: with a password, and not by trying them all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib.admin.forms import AdminAuthenticationForm
from django.utils import timezone
from unfold.forms import AuthenticationForm

from accounts import attempts, auth

if TYPE_CHECKING:
    BaseForm = AdminAuthenticationForm
else:
    BaseForm = AuthenticationForm


class LoginForm(BaseForm):
    """unfold's form, which counts before it looks at the password."""

    def clean(self) -> dict[str, Any]:
        if self.request is not None:
            try:
                attempts.take(
                    account=self.cleaned_data.get("username", ""),
                    address=auth.address_of(self.request),
                    at=timezone.now(),
                )
            except attempts.TooManyAttempts as refusal:
                raise forms.ValidationError(refusal.message, code="too_many_attempts") from None
        return super().clean()
