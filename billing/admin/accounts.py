"""Accounts: who has how much Flux, what it is held for, and why it became less."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.utils import quote, unquote
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.http import urlencode
from unfold.enums import ActionVariant

from accounts import users
from airi_server.kernel import ids
from airi_server.pages.confirm import Comparison, Confirmation, ConfirmPages, filled_in, signed
from airi_server.pages.filters import Selection
from airi_server.pages.operators import holds
from airi_server.pages.paging import SCATTERED, KeysetQuery
from airi_server.runtime import audit
from billing import account_state, adjustments, charges, grants, ledger, options, reconciliation
from billing.admin.base import (
    BookPages,
    FrozenFilter,
    HoldsFilter,
    action,
    display,
    link_to,
    number,
)
from billing.admin.entries import entries_of
from billing.models import FluxAccount, FluxTransaction, LLMRequestLog
from billing.reconciliation import Broken, CheckScope


class AdjustForm(forms.Form):
    """Carries the ledger as the operator saw it, and a key against the second click."""

    change = forms.IntegerField(
        min_value=-adjustments.MAX_CHANGE,
        max_value=adjustments.MAX_CHANGE,
        help_text="Whole Flux to add; with a minus, to take away.",
    )
    reason = forms.CharField(
        max_length=adjustments.MAX_REASON, help_text="The user reads it in their history."
    )
    expected_seq = forms.IntegerField(min_value=0, max_value=2**63 - 1, widget=forms.HiddenInput)
    key = forms.RegexField(r"^[A-Za-z0-9_-]{1,64}$", widget=forms.HiddenInput)

    @classmethod
    def of(cls, account: FluxAccount) -> AdjustForm:
        return cls(initial={"expected_seq": account.ledger_seq, "key": ids.nanoid()})

    def clean_change(self) -> int:
        change: int = self.cleaned_data["change"]
        if change == 0:
            raise forms.ValidationError("Nothing would change.")
        return change

    def look_again(self, account: FluxAccount) -> None:
        """Take what the account is now as seen: the page shows it with the refusal."""
        self.data = filled_in(self, expected_seq=account.ledger_seq)


class AccountReasonForm(forms.Form):
    """For whoever reads the audit log; the user does not see it."""

    reason = forms.CharField(
        max_length=account_state.MAX_REASON,
        help_text="For the audit log; the user does not see it.",
    )


class AccountActions(ConfirmPages):
    """Mixed into the account's page, in front of `ConfirmPages`."""

    actions_detail: Any = ("grant", "adjust", "freeze", "thaw")
    has_grant_permission = holds(grants.PERMISSION)
    has_adjust_permission = holds(adjustments.PERMISSION)
    has_freeze_permission = holds(account_state.PERMISSION)

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

        def compare(cleaned: Mapping[str, Any]) -> Confirmation:
            account.refresh_from_db()
            form.look_again(account)
            return _adjusted(account, cleaned)

        def act(cleaned: Mapping[str, Any], at: datetime) -> HttpResponse:
            by = audit.Actor.of(request.user)
            posting = adjustments.adjust(user_id=account.user_id, **cleaned, by=by, at=at)
            messages.success(
                request, f"The balance is {posting.balance_after}; it was {posting.balance_before}."
            )
            return redirect(_page_of(account))

        why = (
            f"{_name(account)} has {account.balance:,} Flux, of which open requests hold "
            f"{account.held:,}. The next page shows what the change does before it does it."
        )
        return self.confirm_again(
            request,
            form,
            compare,
            act,
            moved=adjustments.LedgerMoved,
            title="Adjust the balance",
            why=why,
            back=_page_of(account),
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
            froze = account_state.freeze(user_id=account.user_id, **cleaned, by=by, at=at)
            messages.success(request, "Frozen." if froze else "It was frozen already.")
            return redirect(_page_of(account))

        why = (
            f"Every new request of {_name(account)} will be refused at once, with 402 "
            "ACCOUNT_FROZEN. What is open ends as usual; the balance stays."
        )
        form = AccountReasonForm(request.POST or None)
        return self.confirm(
            request, form, act, title="Freeze the account", why=why, back=_page_of(account)
        )

    @action(description="Thaw", url_path="thaw", permissions=["freeze"])
    def thaw(self, request: HttpRequest, object_id: str) -> HttpResponse:
        account = self._account(request, object_id)

        def act(cleaned: Mapping[str, Any], at: datetime) -> HttpResponse:
            by = audit.Actor.of(request.user)
            thawed = account_state.thaw(user_id=account.user_id, **cleaned, by=by, at=at)
            messages.success(request, "Thawed." if thawed else "It was not frozen.")
            return redirect(_page_of(account))

        why = f"{_name(account)} will be able to spend Flux again, at once."
        form = AccountReasonForm(request.POST or None)
        return self.confirm(
            request, form, act, title="Thaw the account", why=why, back=_page_of(account)
        )

    def _account(self, request: HttpRequest, object_id: str) -> FluxAccount:
        account: FluxAccount = self.found(request, object_id)
        return account


def _adjusted(account: FluxAccount, cleaned: Mapping[str, Any]) -> Confirmation:
    """Say what an adjustment would do to an account as it is."""
    change: int = cleaned["change"]
    free = account.balance - account.held
    moved = account.ledger_seq != cleaned["expected_seq"]
    is_short = change < 0 and free + change < 0
    return Confirmation(
        f"The balance of {_name(account)} is changed by {signed(change)} Flux, at once. The entry "
        "stays in the ledger; to undo it, adjust the other way.",
        (
            Comparison("Balance", account.balance, account.balance + change),
            Comparison("Free", free, free + change),
            Comparison("Held by open requests", account.held, account.held),
        ),
        facts=(
            ("Whose", f"{_name(account)}, user {account.user_id}"),
            ("Reason, which they read", cleaned["reason"]),
        ),
        notice=adjustments.LedgerMoved(account).message if moved else "",
        refusal=ledger.TOO_MUCH if is_short else "",
        again=("change",) if abs(change) > options.FLUX_TYPED_TWICE_ABOVE.read() else (),
    )


def _name(account: FluxAccount) -> str:
    return users.emails_of([account.user_id]).get(account.user_id, account.user_id)


def _page_of(account: FluxAccount) -> str:
    return reverse("admin:billing_fluxaccount_change", args=[quote(account.pk)])


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

    def line(self, selection: Selection) -> KeysetQuery:
        """Return accounts in the order of their users' ids, the only one with an index."""
        rows = FluxAccount.objects.filter(selection.indexed)
        if selection.user_id is not None:
            rows = rows.filter(user_id=selection.user_id)
        filtered = selection.filtered
        return KeysetQuery(rows, "user_id", descending=False, filtered=filtered, slice=SCATTERED)

    @action(description="Check this account", url_path="check", permissions=["check_books"])
    def check_books(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Compare everything the books promise about one account, and show what breaks."""
        account = self.found(request, object_id)
        scope = CheckScope(user_id=account.user_id)
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

    def extra_context(self, request: HttpRequest, row: Any) -> dict[str, Any]:
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
) -> list[tuple[FluxTransaction, LLMRequestLog, charges.ChargeExplanation]]:
    """Explain the newest charges: each with its entry and its request."""
    debits = FluxTransaction.objects.filter(user_id=user_id, kind=FluxTransaction.Kind.DEBIT)
    # Usage is most of any ledger; without any there are few entries.
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
