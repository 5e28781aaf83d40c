"""One row of everything that the console has a page for, and the people who may ask for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.apps import apps
from django.contrib.admin.utils import quote
from django.contrib.auth.models import Group, Permission
from django.contrib.contenttypes.models import ContentType
from django.test import Client
from django.utils import timezone

from accounts.models import APIKey, User
from airi_server.kernel import ids
from airi_server.runtime import options
from billing import ledger, reconciliation_runs
from billing.models import FluxGrant, FluxTransaction
from billing.reconciliation import EVERYTHING
from chats.models import ChatMessage
from llmrouter.configuration.models import RouterDefaults, RouterModel, RouterUpstream
from tests.factories import accounts, billing, characters, chats
from tests.factories import llmrouter as routers

SETTING = "FLUX_PER_REQUEST"
SAID = "canary: said in confidence/4b1f0e+c9"
"""What somebody has written in a chat."""
NOW = billing.NOW


@dataclass(frozen=True)
class Rows:
    """`user` is the person most rows are about; `keys` has what addresses are made of.

    An id that people or programs chose may have a `_`, which Django spells `_5F` in an address.
    """

    user: User
    key: APIKey
    keys: dict[str, str]


def make() -> Rows:
    key, _ = accounts.api_key()
    user = key.user
    billing.make_account(100, user_id=user.pk)
    ticket = billing.ticket(user.pk, billing.price())
    billing.open_one(ticket, 10)
    billing.settle_one(billing.settlement(ticket, 5))
    orphan = billing.renamed(ticket, id=ids.uuid7())
    billing.open_one(orphan, 10, deadline_s=-3600)
    older = routers.published(routers.chat_tree("chat-other"))
    nobody = [routers.upstream(base_url=f"http://127.0.0.1:{port}/v1") for port in (1, 2)]
    both = {
        "chat-default": routers.chat_model(*nobody),
        "chat-other": routers.chat_model(name="chat-other"),
    }
    routers.published(routers.chat_tree(**both))
    model = RouterModel.objects.get(name="chat-default")
    upstream = RouterUpstream.objects.filter(model=model).order_by("position")[0]
    defaults, _ = RouterDefaults.objects.get_or_create()
    options.put(SETTING, 7, by="tester", at=timezone.now(), note="test")
    said = message_of(user)
    ledger.grant(
        user_id=user.pk, amount=5, request_id="gift", description="test", by="tester", at=NOW
    )
    run: dict[str, Any] = {"duration_ms": 5, "broken": 0, "orphans": 0}
    keys = {
        "accounts_user": quote(user.pk),
        "accounts_apikey": str(key.pk),
        "auth_group": str(Group.objects.create(name="support").pk),
        "billing_fluxaccount": quote(user.pk),
        "billing_fluxgrant": str(FluxGrant.objects.order_by("id")[0].pk),
        "draft": "gone",
        "run": str(reconciliation_runs.record(scope=EVERYTHING, by="tester", at=NOW, **run).pk),
        "billing_fluxtransaction": str(FluxTransaction.objects.order_by("id")[0].pk),
        "billing_llmrequestlog": str(ticket.id),
        "billing_refusedrequest": str(billing.refused(user.pk).pk),
        "billing_priceversion": str(ticket.price.version),
        "chats_chat": quote(said.chat_id),
        "chats_chatmessage": quote(said.pk),
        "chats_character": quote(characters.character(owner=user.pk).pk),
        "llmrouter_routermodel": str(model.pk),
        "llmrouter_routerupstream": str(upstream.pk),
        "llmrouter_routerrevision": str(older.pk),
        "llmrouter_routerdefaults": str(defaults.pk),
        "orphan": str(orphan.id),
        "name": SETTING,
        "kind": "csv",
        "app_label": "billing",
        "content_type_id": str(ContentType.objects.get_for_model(User).pk),
        "view_on": user.pk,  # of Django's page view_on_site
    }
    audit = apps.get_model("runtime", "AuditEntry").objects.order_by("id")[0]
    return Rows(user, key, {**keys, "runtime_auditentry": str(audit.pk)})


def message_of(user: User) -> ChatMessage:
    """Return the one message of a new chat of this user's."""
    chat = chats.chat(owner=user.pk)
    return chats.stored(chat, 1, content=SAID)


def client_of(*permissions: str, **columns) -> Client:
    """Return the client of somebody with these permissions: `billing.grant_flux`, ...."""
    user = accounts.user()
    User.objects.filter(pk=user.pk).update(email_verified=True, **columns)
    user.refresh_from_db()
    user.user_permissions.set([permission(name) for name in permissions])
    client = Client()
    client.force_login(user)
    return client


def api_key_of(email: str) -> tuple[APIKey, str]:
    """Return a key of a new, verified user with this address, and its plaintext."""
    owner = accounts.user(email=email)
    User.objects.filter(pk=owner.pk).update(email_verified=True)
    return accounts.api_key(owner=owner)


def permission(name: str) -> Permission:
    app, codename = name.split(".")
    return Permission.objects.get(content_type__app_label=app, codename=codename)
