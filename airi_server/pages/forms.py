"""Plain forms in the console's clothes."""

from __future__ import annotations

from typing import Any, Final

from django import forms
from unfold import widgets

CLOTHES: Final[dict[type[forms.Widget], list[str]]] = {
    forms.Textarea: [*widgets.TEXTAREA_CLASSES],
    forms.CheckboxInput: [*widgets.CHECKBOX_CLASSES],
    forms.Select: [*widgets.SELECT_CLASSES],
    forms.TextInput: [*widgets.INPUT_CLASSES],
}
"""The classes of unfold's own widgets, by the kind of widget; the first that fits."""


def style(form: forms.BaseForm) -> None:
    """Give the widgets of a plain form the look of the console's own."""
    for field in form.fields.values():
        parts: list[Any] = list(getattr(field.widget, "widgets", [field.widget]))
        for widget in parts:
            _dress(widget)


def _dress(widget: forms.Widget) -> None:
    if widget.attrs.get("class"):
        return
    for kind, classes in CLOTHES.items():
        if isinstance(widget, kind):
            widget.attrs["class"] = " ".join(classes)
            return
    if getattr(widget, "input_type", "hidden") != "hidden":
        widget.attrs["class"] = " ".join(widgets.INPUT_CLASSES)
