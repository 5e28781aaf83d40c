"""Finds models by what an operator has in hand."""

from __future__ import annotations

from billing import prices
from llmrouter.configuration import spelling
from llmrouter.configuration.models import RouterModel


def model_ids(name: str) -> list[int]:
    """Return the rows of the models with this public name: one a surface."""
    surfaces = RouterModel.Surface.values
    named = RouterModel.objects.filter(surface__in=surfaces, name=name).order_by("pk")
    return list(named.values_list("pk", flat=True))


def has_models() -> bool:
    return RouterModel.objects.exists()


def names() -> set[str]:
    """Return the public name of every model that is routed, whatever its surface."""
    return set(RouterModel.objects.values_list("name", flat=True))


prices.model_names.append(prices.ModelNames(names, spelling.model_name))
