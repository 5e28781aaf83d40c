"""Fields of the router's forms that no model has: a key never shown, a button that tests."""

from __future__ import annotations

from typing import Any, Final

from django import forms
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.widgets import UnfoldAdminPasswordWidget

from llmrouter.configuration import provider_keys

PREVIEW: Final = "_preview"
"""Posted with a form to see what publishing it would change."""
PROBE: Final = "_probe"
"""Posted with a form to test an upstream or a key as the form has it: the prefix of its line."""
AGAIN: Final = "_again"
"""Posted with a form to see it again, and nothing else."""


class KeyTextField(forms.CharField):
    """A provider key: checked when it arrives, never rendered."""

    widget = UnfoldAdminPasswordWidget

    def __init__(self, **options: Any) -> None:
        super().__init__(required=False, strip=False, **options)
        self.widget.attrs["autocomplete"] = "new-password"

    def clean(self, value: Any) -> str:
        text: str = super().clean(value)
        try:
            return provider_keys.checked(text) if text else ""
        except provider_keys.UnusableKey as unusable:
            raise forms.ValidationError(unusable.message) from None


class ProbeButton(forms.Widget):
    """Submits the form to test the line it stands in, as it is on the page."""

    def render(
        self, name: str, value: Any, attrs: dict[str, Any] | None = None, renderer: Any = None
    ) -> SafeString:
        return format_html(
            '<button type="submit" name="{}" value="{}" class="console-button">Test</button> '
            '<span class="probe-result" role="status"></span>',
            PROBE,
            name.rpartition("-")[0],
        )

    def id_for_label(self, id_: str) -> str:
        return ""


class ProbeField(forms.Field):
    """A button in the place of a field: takes nothing."""

    widget = ProbeButton

    def __init__(self) -> None:
        super().__init__(
            required=False,
            disabled=True,
            label="Test",
            help_text="Sends one tiny chat request with this key, as entered here, and publishes "
            "nothing.",
        )
