"""Accounts: who has how much Flux, what it is held for, and why it became less."""

from __future__ import annotations

from typing import Any, Final

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils import timezone

from accounts import users
from airi_server.pages.filters import Selection
from airi_server.pages.operators import holds
from airi_server.pages.paging import SCATTERED, Line
from billing import charges, reconciliation
from billing.account_actions import AccountActions
from billing.book_pages import BookPages, action, display, link_to, number
from billing.entry_pages import entries_of
from billing.filters import FrozenFilter, HoldsFilter
from billing.models import FluxAccount, FluxTransaction, LLMRequestLog
from billing.reconciliation import Broken, Scope

CHECK: Final = "billing.reconcile_books"
SHOWN: Final = 20
EXPLAINED: Final = 10
MAX_OPEN: Final = 50
MAX_BROKEN: Final = 100


class AccountPages(AccountActions, BookPages):
    list_display = ("person", "balance_", "held_", "free", "standing", "updated")
    list_display_links = ("balance_",)
    list_filter = (FrozenFilter, HoldsFilter)
    search_fields = ("user_id",)
    search_help_text = "A whole user id or e-mail address"
    empty_title = "No accounts here"
    empty_help = (
        "An account opens with its user's first request, or with the first grant. Search for the "
        "whole user id or e-mail address, or grant Flux to open one."
    )
    change_form_template = "console/account.html"
    actions_detail: Any = (*AccountActions.actions_detail, "check_books")
    has_check_books_permission = holds(CHECK)
    export_columns = (
        "user_id", "email", "balance", "held", "ledger_seq", "frozen", "updated_at", "deleted_at",
    )  # fmt: skip

    @admin.display(description="Balance")
    def balance_(self, row: FluxAccount) -> str:
        return number(row.balance)

    @admin.display(description="Held")
    def held_(self, row: FluxAccount) -> str:
        return number(row.held)

    @admin.display(description="Free")
    def free(self, row: FluxAccount) -> str:
        return number(free_of(row))

    @display(description="Standing", label={"frozen": "danger", "deleted": "warning"})
    def standing(self, row: FluxAccount) -> str:
        return _standing(row)

    @admin.display(description="Changed (UTC)")
    def updated(self, row: FluxAccount) -> str:
        return f"{row.updated_at:%Y-%m-%d %H:%M:%S}"

    def line(self, selection: Selection) -> Line:
        """Return accounts in the order of their users' ids, the only one with an index."""
        rows = FluxAccount.objects.filter(selection.led)
        if selection.user_id is not None:
            rows = rows.filter(user_id=selection.user_id)
        narrowed = selection.narrowed
        return Line(rows, "user_id", descending=False, narrowed=narrowed, slice=SCATTERED)

    @action(description="Check this account", url_path="check", permissions=["check_books"])
    def check_books(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Compare everything the books promise about one account, and show what breaks."""
        account = self.found(request, object_id)
        scope = Scope(user_id=account.user_id)
        broken: list[Broken] = []
        for row in reconciliation.broken_rows(scope):
            broken.append(row)
            if len(broken) == MAX_BROKEN:
                break
        shown = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": "Check of an account",
            "account": account,
            "account_url": link_to("billing_fluxaccount_change", account.user_id),
            "broken": broken,
            "is_cut": len(broken) == MAX_BROKEN,
            "orphans": list(reconciliation.orphans(scope)),
        }
        return TemplateResponse(request, "console/account_check.html", shown)

    def around(self, request: HttpRequest, row: Any) -> dict[str, Any]:
        return _around(row)


def free_of(account: FluxAccount) -> int:
    """Return what new requests can reserve; a frozen account may owe more than it has."""
    return max(0, account.balance - account.held)


def _standing(account: FluxAccount) -> str:
    if account.deleted_at is not None:
        return "deleted"
    return "frozen" if account.frozen else "open"


def _around(account: FluxAccount) -> dict[str, Any]:
    """Return what the page of an account says beside its row."""
    mine = LLMRequestLog.objects.filter(user_id=account.user_id).defer("input_hash")
    at = timezone.now()
    under_way = mine.filter(settled_at__isnull=True).order_by("id")[: MAX_OPEN + 1]
    holds = [(row, _age(at - row.opened_at)) for row in under_way]
    newest = list(mine.order_by("-id")[:SHOWN])
    entries = entries_of(account.user_id, limit=SHOWN)
    return {
        "account": account,
        "email": users.emails_of([account.user_id]).get(account.user_id, ""),
        "free": free_of(account),
        "standing": _standing(account),
        "user_url": link_to("accounts_user_change", account.user_id),
        "holds": holds[:MAX_OPEN],
        "has_more_holds": len(holds) > MAX_OPEN,
        "entries": entries,
        "requests": newest,
        "charges": _charges(mine, account.user_id),
    }


def _charges(
    mine: QuerySet[LLMRequestLog], user_id: str
) -> list[tuple[FluxTransaction, LLMRequestLog, charges.Explanation]]:
    """Explain the newest charges: each with its entry and its request."""
    debits = FluxTransaction.objects.filter(user_id=user_id, kind=FluxTransaction.Kind.DEBIT)
    # Usage is most of any ledger; whoever has none at all has few entries.
    entries = list(debits.order_by("-user_seq")[:EXPLAINED])
    ids = [str(entry.request_id or "").partition(":")[2] for entry in entries]
    rows = mine.in_bulk([each for each in ids if each])
    by_id = {str(key): row for key, row in rows.items()}
    paid = [(entry, by_id[each]) for entry, each in zip(entries, ids, strict=True) if each in by_id]
    explained = charges.explain([row for _, row in paid])
    return [(entry, row, why) for (entry, row), why in zip(paid, explained, strict=True)]


def _age(seconds: Any) -> str:
    """Write how long something has been open."""
    total = max(0, int(seconds.total_seconds()))
    minutes, rest = divmod(total, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
