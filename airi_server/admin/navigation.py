"""What the sidebar lists: only what the operator may open."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.http import HttpRequest
from django.urls import reverse

from airi_server.admin import reconciliation, settings_pages

Item = dict[str, Any]
Group = dict[str, Any]


def groups(_request: HttpRequest) -> list[Group]:
    """Return the sidebar for unfold, which leaves out what `permission` refuses."""
    return [
        {"title": "", "items": [_item("Start", "index", "home")]},
        {
            "title": "Money",
            "separator": True,
            "items": [
                _item("Grant Flux", "grant_flux", "redeem", may("billing.grant_flux")),
                _item("Grants", "billing_fluxgrant_changelist", "list_alt"),
                _item("Accounts", "billing_fluxaccount_changelist", "account_balance_wallet"),
                _item("Ledger", "billing_fluxtransaction_changelist", "receipt_long"),
                _item("Requests", "billing_llmrequestlog_changelist", "swap_vert"),
                _item("Refused requests", "billing_refusedrequest_changelist", "block"),
                _item("Prices", "billing_priceversion_changelist", "sell"),
                _item("Check the books", "reconciliation", "balance", may(reconciliation.SEE)),
            ],
        },
        {
            "title": "Router",
            "separator": True,
            "items": [
                _item("Models", "llmrouter_routermodel_changelist", "alt_route"),
                _item("Upstreams", "llmrouter_routerupstream_changelist", "dns"),
                _item("Defaults", "llmrouter_routerdefaults_changelist", "timer"),
                _item("Revisions", "llmrouter_routerrevision_changelist", "history"),
            ],
        },
        {
            "title": "People",
            "separator": True,
            "items": [
                _item("Users", "accounts_user_changelist", "person"),
                _item("API keys", "accounts_apikey_changelist", "key"),
                _item("Groups", "auth_group_changelist", "group"),
            ],
        },
        {
            "title": "Chats",
            "separator": True,
            "items": [
                _item("Chats", "chats_chat_changelist", "forum"),
                _item("Messages", "chats_chatmessage_changelist", "chat_bubble"),
                _item("Characters", "chats_character_changelist", "face"),
            ],
        },
        {
            "title": "Server",
            "separator": True,
            "items": [
                _item("Settings", "settings", "tune", may(*settings_pages.SEE)),
                _item("Audit log", "runtime_auditentry_changelist", "policy"),
            ],
        },
    ]


def may(*permissions: str) -> Callable[[HttpRequest], bool]:
    """Return a check for any one of these permissions."""
    return lambda request: any(map(request.user.has_perm, permissions))


def environment(_request: HttpRequest) -> list[str]:
    """Name the environment in the header: red where the money is real."""
    kind = {"production": "danger", "development": "info", "test": "info"}
    return [settings.ENVIRONMENT, kind.get(settings.ENVIRONMENT, "warning")]


def _item(
    title: str, page: str, icon: str, permission: Callable[[HttpRequest], bool] | None = None
) -> Item:
    return {
        "title": title,
        "icon": icon,
        "link": reverse(f"admin:{page}"),
        "permission": permission or _may_list(page),
    }


def _may_list(page: str) -> Callable[[HttpRequest], bool]:
    """Return a check that asks the model's own page."""

    def check(request: HttpRequest) -> bool:
        from django.contrib import admin  # noqa: PLC0415  the site imports this module

        for model, model_admin in admin.site._registry.items():  # noqa: SLF001  Django has no other way
            options = model._meta  # noqa: SLF001  public in all but name
            if page == f"{options.app_label}_{options.model_name}_changelist":
                return model_admin.has_view_or_change_permission(request)
        return True

    return check
