"""Says on the page of another app how a model is: `{% model_health name %}`."""

from __future__ import annotations

from typing import Any

from django import template
from django.utils import timezone

from llmrouter import model_health
from llmrouter.configuration import tree

register = template.Library()


@register.inclusion_tag("console/model_health.html", name="model_health")
def of_model(name: str) -> dict[str, Any]:
    """Say how the model of this name is now; nothing if there is none any more."""
    try:
        found = model_health.current(at=timezone.now())
    except tree.InvalidTree:
        return {}
    return {"health": found.models.get(name), "is_whole": found.is_whole}
