"""Onboarding: what a fresh server still lacks before it can serve, each with a link."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import accounts.admin.lookup
import billing.admin.lookup
import llmrouter.configuration.lookup


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to do. `page` is the name of the admin page where it is done."""

    sentence: str
    page: str
    is_done: bool


_Step = tuple[str, str, str, Callable[[], bool]]
STEPS: tuple[_Step, ...] = (
    (
        "Add a model with an upstream and a key, and publish it",
        "llmrouter_routermodel_changelist",
        "llmrouter.view_routermodel",
        llmrouter.configuration.lookup.has_models,
    ),
    (
        "Set prices: without any, the default settings count",
        "billing_priceversion_changelist",
        "billing.view_priceversion",
        billing.admin.lookup.has_prices,
    ),
    (
        "Create a user",
        "accounts_user_changelist",
        "accounts.view_user",
        accounts.admin.lookup.has_customers,
    ),
    (
        "Grant the user Flux",
        "grant_flux",
        "billing.grant_flux",
        billing.admin.lookup.has_flux,
    ),
)


def of(may: Callable[[str], bool]) -> list[Step]:
    """Return the steps this operator has to do with, in their order; empty once all are done."""
    steps = [
        Step(sentence, page, is_done())
        for sentence, page, permission, is_done in STEPS
        if may(permission)
    ]
    return [] if all(step.is_done for step in steps) else steps
