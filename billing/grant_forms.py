"""What operators type to grant Flux."""

from __future__ import annotations

import re
from typing import Any, Final

from django import forms
from django.core.exceptions import ValidationError
from django.core.validators import validate_email

from airi_server.kernel import ids
from billing import grants

SEPARATORS: Final = re.compile(r"[\s,;]+")
MAX_EMAIL: Final = 254
MAX_TEXT: Final = grants.MAX_EMAILS * (MAX_EMAIL + 2)
SHOWN_MISTAKES: Final = 5
SHOWN_LENGTH: Final = 60


class EmailsField(forms.CharField):
    """Addresses, separated by lines, commas, semicolons or blanks; cleans to a tuple."""

    widget = forms.Textarea(attrs={"rows": 8, "cols": 60, "spellcheck": "false"})

    def __init__(self, **options: Any) -> None:
        super().__init__(max_length=MAX_TEXT, **options)

    def clean(self, value: Any) -> Any:
        text: str = super().clean(value)
        emails = tuple(part for part in SEPARATORS.split(text) if part)
        if not emails:
            raise ValidationError("Name at least one address.")
        if mistakes := [email for email in emails if not _is_address(email)]:
            raise ValidationError(_complaint(mistakes))
        if len(emails) > grants.MAX_EMAILS:
            raise ValidationError(
                f"At most {grants.MAX_EMAILS} addresses at once; these are {len(emails)}."
            )
        return emails


class GrantForm(forms.Form):
    emails = EmailsField(
        label="E-mail addresses",
        help_text=f"At most {grants.MAX_EMAILS}: one on each line, or separated by commas.",
    )
    amount = forms.IntegerField(
        label="Flux for each person", min_value=1, max_value=grants.MAX_AMOUNT
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

    def order(self) -> grants.Order:
        return grants.Order(**self.cleaned_data)


def _is_address(text: str) -> bool:
    try:
        validate_email(text)
    except ValidationError:
        return False
    return len(text) <= MAX_EMAIL


def _complaint(mistakes: list[str]) -> str:
    shown = ", ".join(
        text if len(text) <= SHOWN_LENGTH else f"{text[:SHOWN_LENGTH]}…"
        for text in mistakes[:SHOWN_MISTAKES]
    )
    more = ", …" if len(mistakes) > SHOWN_MISTAKES else ""
    if len(mistakes) == 1:
        return f"This is not an e-mail address: {shown}"
    return f"{len(mistakes)} of these are not e-mail addresses: {shown}{more}"
