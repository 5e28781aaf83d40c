"""Everything an operator does leaves a row in the audit log, by whom and by which permission.

Generated from `pages.py`: a page that lets a POST through either changes nothing, and is named as
such here, or has an example that has to leave its row.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client

from accounts import users
from airi_server.runtime.audit import AuditEntry
from billing.models import FluxAccount
from llmrouter.configuration.models import RouterKey
from tests.console import rows
from tests.console.pages import PAGES, STAFF, SUPERUSER
from tests.console.rows import Rows
from tests.console.walk import places
from tests.llmrouter.admin_pages import NEW, form_of

Values = dict[str, Any]
PLACES = places()
READS = (
    "changelist",
    "history",
    "export",
    "plan",
    "app_list",
    "settings",
    "check_books",
    "grant",
    "preview",
    "reconciliation_run",
)
"""Ends of the names of pages that change nothing, whatever is posted to them."""
WHY = {"reason": "because"}
NOTE = {"note": "because"}


def example(name: str, world: Rows) -> Values:
    """Return what an operator would fill in on this page."""
    filled: dict[str, Callable[[], Values]] = {
        "accounts_user_add": lambda: {"email": "new@example.com"},
        "accounts_user_change": lambda: {"name": "Somebody"},
        "accounts_user_verify": dict,
        "accounts_user_password": lambda: {**WHY, "password": "correct horse"},
        "accounts_apikey_add": lambda: {"owner": world.user.email, "name": "another"},
        "accounts_apikey_change": lambda: {"name": "renamed"},
        "auth_group_add": lambda: {"name": "finance"},
        "auth_group_change": lambda: {"name": "renamed", "permissions": []},
        "auth_group_delete": lambda: {"post": "yes"},
        "billing_fluxaccount_adjust": lambda: {**WHY, "change": 5, "_confirm": "1"},
        "billing_priceversion_add": lambda: {
            **NOTE, "model": "chat-other", "seen": "", "seen_model": "chat-other", "_confirm": "1"
        },
        "grant_flux": lambda: {
            "emails": world.user.email, "amount": 5, "description": "why", "_apply": "1"
        },
        "llmrouter_routerdefaults_change": lambda: {**NOTE, "per_attempt_timeout_ms": 9_000},
        "llmrouter_routermodel_add": lambda: {**NEW, **NOTE, "name": "chat-new"},
        "llmrouter_routermodel_change": lambda: {**NOTE, "max_output_tokens": 99},
        "llmrouter_routermodel_delete": lambda: {"post": "yes"},
        "llmrouter_routerupstream_change": lambda: {**NOTE, "weight": 3},
        "llmrouter_routerupstream_delete": lambda: {"post": "yes"},
        "llmrouter_routerupstream_test": lambda: {"_probe": key_of(world)},
        "llmrouter_routerrevision_publish_again": lambda: NOTE,
        "reconciliation": dict,
        "setting": lambda: {**NOTE, "value": 9},
    }  # fmt: skip
    return filled.get(name, lambda: WHY)()


def key_of(world: Rows) -> int:
    upstream = int(world.keys["llmrouter_routerupstream"])
    return RouterKey.objects.filter(upstream=upstream).order_by("position")[0].pk


def prepare(name: str, world: Rows) -> None:
    """Make the row what the action is about."""
    if name == "accounts_user_unban":
        users.ban(user_id=world.user.pk, reason="test", until=None, at=rows.NOW)
    if name == "billing_fluxaccount_thaw":
        FluxAccount.objects.filter(pk=world.user.pk).update(frozen=True)
    if name == "billing_llmrequestlog_settle":
        world.keys["billing_llmrequestlog"] = world.keys["orphan"]


ACTING = [
    pytest.param(name, marks=pytest.mark.django_db(transaction=name == "reconciliation"))
    for name, page in sorted(PAGES.items())
    if page.act and page.act != STAFF and not name.endswith(READS)
]


@pytest.mark.parametrize("name", ACTING)
def test_an_action_leaves_a_row(name: str):
    world, needed = rows.make(), PAGES[name].act[0]
    prepare(name, world)
    url = PLACES[name].url(world.keys)
    powers = {"is_superuser": True} if needed == SUPERUSER else {}
    permissions = () if needed == SUPERUSER else needed.split("+")
    client = rows.client_of(*permissions, is_staff=True, **powers)
    before = set(AuditEntry.objects.values_list("pk", flat=True))

    answer = client.post(url, {**as_shown(client, url), **example(name, world)})

    left = list(AuditEntry.objects.exclude(pk__in=before))
    assert left, f"answered {answer.status_code} and left no row"
    assert {row.actor_id for row in left} == {client.session["_auth_user_id"]}
    if needed != SUPERUSER:
        assert {row.action for row in left} & set(needed.split("+"))
    assert all(row.sentence and row.at for row in left)


def as_shown(client: Client, url: str) -> Values:
    """Return what a browser would post from this page as it stands: hidden fields above all."""
    context = client.get(url).context
    if "adminform" in context:
        return form_of(client, url)
    if context.get("form") is None:
        return {}
    values = {bound.html_name: bound.value() for bound in context["form"]}
    return {name: value for name, value in values.items() if value is not None}
