"""What an operator does to one account: the buttons on its page, and the pages behind them.

Each has its own permission, which unfold asks about for the button and for the URL.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from django.contrib import messages
from django.contrib.admin.utils import quote, unquote
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.http import urlencode
from unfold.enums import ActionVariant

from accounts import users
from airi_server.pages.operators import holds
from airi_server.runtime import audit
from billing import adjustments, freezes, grants
from billing.account_forms import AdjustForm, ReasonForm
from billing.models import FluxAccount

# unfold has no types of its own.
if TYPE_CHECKING:
    from airi_server.pages.operators import OperatorAdmin

    Page = Callable[..., HttpResponse]

    def action(**options: Any) -> Callable[[Page], Page]: ...
else:
    from unfold.decorators import action

    OperatorAdmin = object


class AccountActions(OperatorAdmin):
    """Mixed into the account's page, in front of `OperatorAdmin`."""

    actions_detail: Any = ("grant", "adjust", "freeze", "thaw")
    has_grant_permission = holds(grants.PERMISSION)
    has_adjust_permission = holds(adjustments.PERMISSION)
    has_freeze_permission = holds(freezes.PERMISSION)

    def get_actions_detail(self, request: HttpRequest, object_id: str) -> list[Any]:
        """Offer what can be done to this account as it is."""
        account = self.get_object(request, unquote(object_id))
        offered: list[Any] = super().get_actions_detail(request, object_id)  # type: ignore[misc]
        if account is None or account.deleted_at is not None:
            pointless = set(AccountActions.actions_detail)
        else:
            pointless = {"freeze" if account.frozen else "thaw"}
        return [one for one in offered if one.path not in pointless]

    @action(description="Grant Flux", url_path="grant", permissions=["grant"])
    def grant(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Lead to the page for many people, with this one filled in."""
        account = self._account(request, object_id)
        found = users.emails_of([account.user_id])
        query = "?" + urlencode({"email": found[account.user_id]}) if found else ""
        return redirect(reverse("admin:grant_flux") + query)

    @action(description="Adjust", url_path="adjust", permissions=["adjust"])
    def adjust(self, request: HttpRequest, object_id: str) -> HttpResponse:
        account = self._account(request, object_id)
        form = AdjustForm(request.POST) if request.method == "POST" else AdjustForm.of(account)

        def act(cleaned: Mapping[str, Any], at: datetime) -> HttpResponse:
            by = audit.Actor.of(request.user)
            try:
                posting = adjustments.adjust(user_id=account.user_id, **cleaned, by=by, at=at)
            except adjustments.LedgerMoved as moved:
                form.look_again(moved.account)
                raise
            messages.success(
                request, f"The balance is {posting.balance_after}; it was {posting.balance_before}."
            )
            return redirect(_page_of(account))

        why = (
            f"{_name(account)} has {account.balance} Flux, of which open requests hold "
            f"{account.held}. The entry stays in the ledger; to undo it, adjust the other way."
        )
        return self.ask(
            request, form, act, title="Adjust the balance", why=why, back=_page_of(account)
        )

    @action(
        description="Freeze",
        url_path="freeze",
        permissions=["freeze"],
        variant=ActionVariant.DANGER,
    )
    def freeze(self, request: HttpRequest, object_id: str) -> HttpResponse:
        account = self._account(request, object_id)

        def act(cleaned: Mapping[str, Any], at: datetime) -> HttpResponse:
            by = audit.Actor.of(request.user)
            froze = freezes.freeze(user_id=account.user_id, **cleaned, by=by, at=at)
            messages.success(request, "Frozen." if froze else "It was frozen already.")
            return redirect(_page_of(account))

        why = (
            f"Every new request of {_name(account)} will be refused at once, with 402 "
            "ACCOUNT_FROZEN. What is open ends as usual; the balance stays."
        )
        form = ReasonForm(request.POST or None)
        return self.ask(
            request, form, act, title="Freeze the account", why=why, back=_page_of(account)
        )

    @action(description="Thaw", url_path="thaw", permissions=["freeze"])
    def thaw(self, request: HttpRequest, object_id: str) -> HttpResponse:
        account = self._account(request, object_id)

        def act(cleaned: Mapping[str, Any], at: datetime) -> HttpResponse:
            by = audit.Actor.of(request.user)
            thawed = freezes.thaw(user_id=account.user_id, **cleaned, by=by, at=at)
            messages.success(request, "Thawed." if thawed else "It was not frozen.")
            return redirect(_page_of(account))

        why = f"{_name(account)} will be able to spend Flux again, at once."
        form = ReasonForm(request.POST or None)
        return self.ask(
            request, form, act, title="Thaw the account", why=why, back=_page_of(account)
        )

    def _account(self, request: HttpRequest, object_id: str) -> FluxAccount:
        account: FluxAccount = self.found(request, object_id)
        return account


def _name(account: FluxAccount) -> str:
    return users.emails_of([account.user_id]).get(account.user_id, account.user_id)


def _page_of(account: FluxAccount) -> str:
    return reverse("admin:billing_fluxaccount_change", args=[quote(account.pk)])
