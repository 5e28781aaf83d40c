"""Login of the console: a password, and a limit on attempts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from django import forms
from django.conf import settings
from django.contrib.admin.forms import AdminAuthenticationForm
from django.core.validators import MaxLengthValidator
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from unfold.forms import AuthenticationForm

from accounts import attempts, auth, devices, logins

if TYPE_CHECKING:
    BaseForm = AdminAuthenticationForm
else:
    BaseForm = AuthenticationForm

MAX_PASSWORD: Final = 4_096
"""In characters: hashing a longer one would cost more than a real password is worth."""


class LoginForm(BaseForm):
    """unfold's form, which counts before it looks at the password."""

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self.fields["password"].validators.append(MaxLengthValidator(MAX_PASSWORD))

    def clean(self) -> dict[str, Any]:
        if self.request is not None:
            try:
                logins.knock(
                    email=self.cleaned_data.get("username", ""),
                    address=auth.address_of(self.request),
                    device_cookie=device_cookie_of(self.request),
                    at=timezone.now(),
                )
            except attempts.TooManyAttempts as refusal:
                raise forms.ValidationError(refusal.message, code="too_many_attempts") from None
        return super().clean()


def device_cookie_of(request: HttpRequest) -> str:
    return request.COOKIES.get(settings.DEVICE_COOKIE_NAME, "")


def remember_device(request: HttpRequest, answer: HttpResponse) -> None:
    """Set the cookie that makes the browser of this login a known device (`accounts.devices`)."""
    user: Any = request.user
    answer.set_cookie(
        settings.DEVICE_COOKIE_NAME,
        devices.remember(user, cookie=device_cookie_of(request), at=timezone.now()),
        max_age=devices.KEEP,
        path="/",
        secure=settings.SESSION_COOKIE_SECURE,
        httponly=True,
        samesite="Lax",
    )
