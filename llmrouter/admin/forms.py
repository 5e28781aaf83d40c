"""What an operator may type into the router's pages; a key's text goes in and never comes out."""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING, Any, ClassVar, Final

from django import forms
from django.forms.models import BaseInlineFormSet
from django.utils.html import format_html
from django.utils.safestring import SafeString
from pydantic import TypeAdapter, ValidationError
from unfold.widgets import (
    UnfoldAdminIntegerFieldWidget,
    UnfoldAdminPasswordWidget,
    UnfoldAdminTextareaWidget,
    UnfoldAdminTextInputWidget,
)

from airi_server.kernel import sealing, validation
from llmrouter.configuration import (
    fields,
    key_origins,
    origins,
    provider_keys,
    publishing,
    spelling,
    tree,
)
from llmrouter.configuration.models import RouterDefaults, RouterKey, RouterModel, RouterUpstream

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


if TYPE_CHECKING:
    ModelForm = forms.ModelForm[Any]
    InlineFormSet = BaseInlineFormSet[Any, Any, ModelForm]
else:
    ModelForm, InlineFormSet = forms.ModelForm, BaseInlineFormSet

Shapes = dict[str, TypeAdapter[Any]]
Widgets = dict[str, Any]
LAST: Final = 32_000


class ShapedForm(ModelForm):
    """Holds fields to the shapes of the tree, so that a fault shows where it was made.

    How a text is spelled is judged where somebody changed it: what is stored may stay.
    """

    shapes: ClassVar[Shapes] = {}
    spellings: ClassVar[dict[str, spelling.Judge]] = {}

    def clean(self) -> dict[str, Any]:
        super().clean()
        for name, shape in self.shapes.items():
            value = self.cleaned_data.get(name)
            if value in (None, ""):
                continue
            try:
                shape.validate_python(value)
            except ValidationError as invalid:
                self.add_error(
                    name, [validation.as_sentence(fault) for fault in tree.faults_of(invalid)]
                )
        for name, judge in self.spellings.items():
            self._spell(name, judge)
        return self.cleaned_data

    def _spell(self, name: str, judge: spelling.Judge) -> None:
        text = self.cleaned_data.get(name)
        try:
            if text and name in self.changed_data:
                judge(text)
        except ValueError as fault:
            self.add_error(name, f"{fault}")

    def _get_validation_exclusions(self) -> set[str]:
        # Two rows may trade places: positions are an order here, and counted anew when saved.
        return {*super()._get_validation_exclusions(), "position"}  # type: ignore[misc]


class PositionedForm(ShapedForm):
    position = forms.IntegerField(
        min_value=1,
        max_value=LAST,
        required=False,
        widget=UnfoldAdminIntegerFieldWidget,
        help_text="Drag to reorder, or enter numbers. Empty: last.",
    )

    def clean_position(self) -> int:
        return self.cleaned_data["position"] or LAST


class PublishingForm(ShapedForm):
    """A form whose saving publishes: it says why, and from which revision it started."""

    note = forms.CharField(
        max_length=200,
        widget=UnfoldAdminTextInputWidget,
        label="Why",
        help_text="What changes, and why. Kept for ever with the revision.",
    )
    expected = forms.IntegerField(widget=forms.HiddenInput)

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.fields["expected"].initial = publishing.current_number()
        self.fields["note"].required = PROBE not in self.data

    def is_valid(self) -> bool:
        return super().is_valid() and AGAIN not in self.data

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean()
        if PROBE not in self.data:
            self._check_expected(cleaned.get("expected"))
        return cleaned

    def _check_expected(self, expected: int | None) -> None:
        """Refuse what was begun from an older revision; the next try is from the newest."""
        newest = publishing.newest()
        number = newest.number if newest else 0
        if expected == number:
            return
        self.data = self.data.copy()  # type: ignore[attr-defined]  # a QueryDict
        self.data[self.add_prefix("expected")] = str(number)  # type: ignore[index]
        who = f" by {newest.published_by} ({newest.note})" if newest else ""
        raise forms.ValidationError(
            f"Revision {number} was published{who} while this page was open. Nothing was saved. "
            "What you entered is still here: preview it again to see what it would change now."
        )


class RouterDefaultsForm(PublishingForm):
    shapes: ClassVar[Shapes] = {
        "per_attempt_timeout_ms": TypeAdapter(fields.AttemptMs),
        "full_chain_timeout_ms": TypeAdapter(fields.ChainMs),
        "first_byte_timeout_ms": TypeAdapter(fields.AttemptMs),
        "idle_timeout_ms": TypeAdapter(fields.AttemptMs),
        "first_event_idle_ms": TypeAdapter(fields.AttemptMs),
        "answer_timeout_ms": TypeAdapter(fields.ChainMs),
        "fallback_http_codes": TypeAdapter(fields.Codes),
    }

    class Meta:
        model = RouterDefaults
        fields = (
            "per_attempt_timeout_ms",
            "full_chain_timeout_ms",
            "first_byte_timeout_ms",
            "idle_timeout_ms",
            "first_event_idle_ms",
            "answer_timeout_ms",
            "fallback_http_codes",
        )
        widgets: ClassVar[Widgets] = {"fallback_http_codes": UnfoldAdminTextInputWidget}


class RouterModelForm(PublishingForm):
    shapes: ClassVar[Shapes] = {
        "name": TypeAdapter(fields.Name),
        "trigger_codes": TypeAdapter(fields.Codes),
        "max_output_tokens": TypeAdapter(fields.Tokens),
        "default_output_tokens": TypeAdapter(fields.Tokens),
    }

    spellings: ClassVar[dict[str, spelling.Judge]] = {"name": spelling.model_name}

    class Meta:
        model = RouterModel
        fields = (
            "name",
            "surface",
            "provider",
            "trigger_codes",
            "on_timeout",
            "ask_again_after_timeout",
            "max_output_tokens",
            "default_output_tokens",
            "max_tokens_field",
            "tokenizer",
        )
        widgets: ClassVar[Widgets] = {"trigger_codes": UnfoldAdminTextInputWidget}

    def clean_name(self) -> str:
        """Compose what a keyboard or a page composed otherwise: it looks the same."""
        return unicodedata.normalize("NFC", self.cleaned_data["name"])

    def clean_trigger_codes(self) -> list[int] | None:
        """Read an empty list as "those of the defaults", unless an import made it empty."""
        codes: list[int] | None = self.cleaned_data["trigger_codes"]
        return codes or ([] if self.instance.trigger_codes == [] else None)

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean()
        surface = cleaned.get("surface") or self.instance.surface
        provider = cleaned.get("provider", "")
        if surface == tree.TTS and not provider:
            self.add_error("provider", "A speech model needs a provider.")
        if surface == tree.LLM and provider:
            self.add_error("provider", "A chat model has none.")
        return cleaned


class RouterUpstreamForm(PositionedForm):
    """An upstream on its model's page, with one key that may come with it."""

    key_id = forms.CharField(
        required=False,
        max_length=200,
        widget=UnfoldAdminTextInputWidget,
        label="Id of a new key",
        help_text="A name for metrics and logs. One that exists is replaced; a new one is tried "
        "last.",
    )
    key_value = KeyTextField(label="New key", help_text="Sealed when saved, and not shown again.")
    probe = ProbeField()

    shapes: ClassVar[Shapes] = {
        "slug": TypeAdapter(fields.Name),
        "base_url": TypeAdapter(fields.HTTPURL),
        "override_model": TypeAdapter(fields.UpstreamModel),
        "header_template": TypeAdapter(fields.HeaderTemplate),
        "timeout_ms": TypeAdapter(fields.AttemptMs),
        "allow": TypeAdapter(list[fields.FieldName]),
        "omit": TypeAdapter(list[fields.Addition]),
        "priority": TypeAdapter(fields.Rank),
        "weight": TypeAdapter(fields.Weight),
        "adapter_params": TypeAdapter(fields.Parameters),
        "key_id": TypeAdapter(fields.Name),
    }
    spellings: ClassVar[dict[str, spelling.Judge]] = {
        "slug": spelling.name,
        "base_url": spelling.base_url,
        "override_model": spelling.upstream_model,
        "key_id": spelling.name,
    }

    class Meta:
        model = RouterUpstream
        fields = (
            "position",
            "slug",
            "base_url",
            "override_model",
            "header_template",
            "timeout_ms",
            "allow",
            "omit",
            "priority",
            "weight",
            "adapter_params",
        )
        widgets: ClassVar[Widgets] = {
            "adapter_params": UnfoldAdminTextareaWidget({"rows": 3}),
            "allow": UnfoldAdminTextInputWidget,
            "omit": UnfoldAdminTextInputWidget,
        }
        labels: ClassVar[dict[str, str]] = {"base_url": "Base URL"}
        help_texts: ClassVar[dict[str, str]] = {
            "base_url": "As the provider gives it, up to /v1: https://api.example.com/v1",
            "priority": "The lowest is tried first. Empty: its position.",
            "weight": "Its share among upstreams of the same priority.",
            "header_template": "The Authorization header; {KEY} stands for the key.",
            "timeout_ms": "Milliseconds until the head of an answer. Empty: that of the defaults.",
        }

    def clean_base_url(self) -> str:
        scheme, colon, rest = self.cleaned_data["base_url"].partition(":")
        return f"{scheme.lower()}{colon}{rest}"

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean()
        value, key_id = cleaned.get("key_value"), cleaned.get("key_id")
        if value and not key_id:
            self.add_error("key_id", "Name the key.")
        if key_id and "key_value" in cleaned and not value:
            self.add_error("key_value", "Enter the key.")
        if not (self.instance.pk or value or self.errors):
            self.add_error("key_value", "A new upstream needs a key.")
        if self.instance.pk and "base_url" in self.changed_data and "base_url" in cleaned:
            self._refuse_another_origin(cleaned, replaced=key_id if value else None)
        return cleaned

    def _refuse_another_origin(self, cleaned: dict[str, Any], *, replaced: str | None) -> None:
        """Say at the field what publishing would refuse: keys stay with the host they are for."""
        stood, wanted = (origins.of(each["base_url"]) for each in (self.initial, cleaned))
        for key in self.instance.keys.exclude(key_id=replaced) if self.prefix else ():
            entered_for = sealing.origin_of(key.sealed) or stood
            if entered_for != wanted:
                self.add_error("base_url", key_origins.enter_again(frozenset({entered_for})))
                return

    def probed(self) -> tuple[RouterUpstream, str | None]:
        """Return what the button of this line tests: the key that was entered, else the first."""
        return self.instance, self.cleaned_data.get("key_id") or None


class UpstreamPageForm(RouterUpstreamForm, PublishingForm):
    """An upstream on its own page, where its keys have lines of their own."""

    key_id = None  # type: ignore[assignment]  # Django's way to leave an inherited field out
    key_value = None  # type: ignore[assignment]
    probe = None  # type: ignore[assignment]


class RouterKeyForm(PositionedForm):
    value = KeyTextField(label="New key", help_text="Leave empty to keep the one that is there.")

    probe = ProbeField()

    shapes: ClassVar[Shapes] = {"key_id": TypeAdapter(fields.Name)}
    spellings: ClassVar[dict[str, spelling.Judge]] = {"key_id": spelling.name}

    class Meta:
        model = RouterKey
        fields = ("position", "key_id", "disabled")

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        # The id is part of what seals the key.
        self.fields["key_id"].disabled = self.instance.pk is not None

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean()
        if self.instance.pk is None and not cleaned.get("value") and "value" not in self.errors:
            self.add_error("value", "Enter the key.")
        return cleaned

    def probed(self) -> tuple[RouterUpstream, str | None]:
        """Return what the button of this line tests."""
        return self.instance.upstream, self.instance.key_id


class LineFormSet(InlineFormSet):
    """The lines of a page, which another revision may have replaced since it was opened."""

    def clean(self) -> None:
        super().clean()
        if any("id" in form.errors for form in self.forms):
            raise forms.ValidationError(
                "Another revision has replaced these lines. Load the page again, and enter what "
                "you changed anew."
            )


class UpstreamFormSet(LineFormSet):
    def clean(self) -> None:
        super().clean()
        kept = [form for form in self.forms if form not in self.deleted_forms]
        slugs = [slug for form in kept if (slug := form.cleaned_data.get("slug"))]
        if len(set(slugs)) != len(slugs):
            raise forms.ValidationError("The slugs of a model's upstreams must differ.")
