"""Who may open and who may use each page of the console, written down a second time.

`look` opens it with GET and `act` lets a POST through: each names the permissions of which any
one is enough, with `+` between those that are only enough together. A page that is not listed
here fails the tests; add a line.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

Needs = tuple[str, ...]
STAFF: Needs = ("",)
NOBODY: Needs = ()
PUBLISH: Needs = ("llmrouter.publish_router_config",)
SUPERUSER = "superuser"
"""Stands for a permission that cannot be given."""
ONLY: Needs = (SUPERUSER,)
SETTINGS: Needs = ("runtime.change_options", "runtime.view_optionrevision")


@dataclass(frozen=True)
class Page:
    """`shown` is what GET answers to those who may look, `refused` what others get.

    `is_taken` marks what GET hands over for good: that it was leaves an audit row. `not_enough`
    names permissions that look as if they were enough.
    """

    look: Needs
    act: Needs
    shown: int = 200
    refused: int = 403
    is_taken: bool = False
    not_enough: Needs = ()


def _model(
    name: str, *, view: Needs, add: Needs = NOBODY, change: Needs = NOBODY, delete: Needs = NOBODY
) -> dict[str, Page]:
    """Return Django's own pages of a model. Its list and history change nothing by themselves."""
    return {
        f"{name}_changelist": Page(view, view),
        f"{name}_add": Page(add, add),
        f"{name}_change": Page(view, change),
        f"{name}_delete": Page(delete, delete),
        f"{name}_history": Page(view, view),
        f"{name}_row": Page(STAFF, STAFF, shown=302),
    }


def _action(name: str, permission: str) -> dict[str, Page]:
    """Return the page of one action: the permission that shows its form is the one that acts."""
    return {name: Page((permission,), (permission,))}


def _either(app: str, model: str, *verbs: str) -> Needs:
    return tuple(f"{app}.{verb}_{model}" for verb in verbs)


_CONSOLE = {
    "index": Page(STAFF, STAFF),
    "search": Page(STAFF, STAFF),
    "settings": Page(SETTINGS, SETTINGS),
    "setting": Page(SETTINGS, SETTINGS[:1]),
    "reconciliation": Page(
        ("billing.view_fluxaccount",), ("billing.view_fluxaccount+billing.reconcile_books",)
    ),
    "reconciliation_run": Page(("billing.view_fluxaccount",), ("billing.view_fluxaccount",)),
    "password_change": Page(STAFF, STAFF),
    "password_change_done": Page(STAFF, NOBODY),
    "jsi18n": Page(STAFF, NOBODY),
    "autocomplete": Page(NOBODY, NOBODY),
    "view_on_site": Page(STAFF, STAFF, shown=404),
    "app_list": Page(("billing.view_priceversion",), ("billing.view_priceversion",), refused=404),
    "nothing": Page(STAFF, STAFF, shown=404),
}
_PEOPLE = {
    **_model(
        "accounts_user",
        view=_either("accounts", "user", "view", "change"),
        add=("accounts.add_user",),
        change=("accounts.change_user",),
    ),
    **_action("accounts_user_ban", "accounts.ban_user"),
    **_action("accounts_user_unban", "accounts.unban_user"),
    **_action("accounts_user_verify", "accounts.verify_user"),
    **_action("accounts_user_password", "accounts.set_user_password"),
    **_model(
        "accounts_apikey",
        view=_either("accounts", "apikey", "view", "change"),
        add=("accounts.add_apikey",),
        change=("accounts.change_apikey",),
        delete=("accounts.delete_apikey",),
    ),
    **_action("accounts_apikey_disable", "accounts.change_apikey"),
    **_action("accounts_apikey_enable", "accounts.change_apikey"),
    **{
        name: replace(page, not_enough=_either("auth", "group", "view", "add", "change", "delete"))
        for name, page in _model(
            "auth_group", view=ONLY, add=ONLY, change=ONLY, delete=ONLY
        ).items()
        if name != "auth_group_row"
    },
    "auth_group_row": Page(STAFF, STAFF, shown=302),
}


def _book(model: str) -> dict[str, Page]:
    """Return the pages of evidence: nobody adds, changes or deletes it, superusers neither."""
    view = f"billing.view_{model}"
    taken = (f"{view}+billing.export_books",)
    return {
        **_model(f"billing_{model}", view=(view,)),
        f"billing_{model}_export": Page(taken, taken, is_taken=True),
    }


_BOOKS = {
    **_action("grant_flux", "billing.grant_flux"),
    # Without what was filled in, it leads back to the form.
    "grant_flux_preview": Page(("billing.grant_flux",), ("billing.grant_flux",), shown=302),
    **_model("billing_fluxgrant", view=("billing.view_fluxgrant", "billing.grant_flux")),
    **_book("fluxaccount"),
    "billing_fluxaccount_grant": Page(("billing.grant_flux",), ("billing.grant_flux",), shown=302),
    **_action("billing_fluxaccount_adjust", "billing.adjust_flux"),
    **_action("billing_fluxaccount_freeze", "billing.freeze_account"),
    **_action("billing_fluxaccount_thaw", "billing.freeze_account"),
    **_action("billing_fluxaccount_check_books", "billing.reconcile_books"),
    **_book("fluxtransaction"),
    **_book("llmrequestlog"),
    **_book("refusedrequest"),
    # The page of a request that has ended leads back to it.
    "billing_llmrequestlog_settle": Page(
        ("billing.settle_requests",), ("billing.settle_requests",), shown=302
    ),
    **_model(
        "billing_priceversion",
        view=("billing.view_priceversion",),
        add=("billing.add_priceversion",),
    ),
}


def _evidence(model: str) -> dict[str, Page]:
    view = f"chats.view_{model}"
    taken = (f"{view}+chats.export_chats",)
    return {
        **_model(f"chats_{model}", view=(view,)),
        f"chats_{model}_export": Page(taken, taken, is_taken=True),
    }


_CHATS = {
    **_evidence("chat"),
    **_action("chats_chat_read", "chats.read_messages"),
    **_action("chats_chat_remove", "chats.delete_chat"),
    **_evidence("chatmessage"),
    **_evidence("character"),
    **_action("chats_character_remove", "chats.delete_character"),
}


def _published(model: str, *, add: Needs = PUBLISH, delete: Needs = PUBLISH) -> dict[str, Page]:
    view = (f"llmrouter.view_{model}", *PUBLISH)
    return _model(f"llmrouter_{model}", view=view, add=add, change=PUBLISH, delete=delete)


_SEE_MODEL = ("llmrouter.view_routermodel", *PUBLISH)
_ROUTER = {
    **_published("routermodel"),
    **_published("routerupstream", add=NOBODY),
    **_published("routerdefaults", add=NOBODY, delete=NOBODY),
    **_model("llmrouter_routerrevision", view=("llmrouter.view_routerrevision", *PUBLISH)),
    "llmrouter_plan": Page(_SEE_MODEL, _SEE_MODEL, shown=404),
    "llmrouter_routermodel_plan": Page(_SEE_MODEL, _SEE_MODEL),
    **_action("llmrouter_routerupstream_test", "llmrouter.probe_upstream"),
    **_action("llmrouter_routerrevision_publish_again", *PUBLISH),
}
_SERVER = _model("runtime_auditentry", view=("runtime.view_auditentry",))

PUBLIC = frozenset({"login", "logout"})
"""Tested by hand: who is not logged in may open these."""
PAGES: dict[str, Page] = {**_CONSOLE, **_PEOPLE, **_BOOKS, **_CHATS, **_ROUTER, **_SERVER}
