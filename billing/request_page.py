"""What happened to one request, from the row itself, and an end for one nobody will end."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from django import forms
from django.contrib import messages
from django.contrib.admin.utils import quote, unquote
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import NoReverseMatch, reverse
from django.utils.http import urlencode

from accounts import keys, users
from airi_server.pages.operators import holds
from airi_server.runtime import audit
from billing import charges, lookup, reconciliation
from billing.book_pages import BookPages, action, link_to
from billing.models import FluxTransaction, LLMRequestLog
from billing.reconciliation import Scope

SETTLE: Final = "billing.settle_requests"
OUTCOMES: Final[Mapping[str, str]] = {
    "completed": "The whole answer was delivered.",
    "failed": "Nobody answered, or the request was refused. Nothing was charged.",
    "client_gone": "The client hung up before the answer was complete.",
    "deadline": "It ran out of time.",
    "shutdown": "The server was stopped meanwhile.",
    "upstream_stalled": "The upstream stopped sending in the middle of the answer.",
    "upstream_broken": "The connection to the upstream broke in the middle of the answer.",
    "upstream_error": "The upstream reported an error in the middle of the answer.",
    "orphaned": "The instance that served it went away; it was ended afterwards.",
}
STATES: Final[Mapping[str, str]] = {
    "open": "Under way: its hold is reserved, and nothing has been delivered yet.",
    "streaming": "Under way: its answer is being delivered.",
    "settled": "Ended, and charged for what was delivered.",
    "voided": "Ended without an answer. Nothing was charged.",
}
SOURCES: Final[Mapping[str, str]] = {
    "reported": "reported by the upstream",
    "counted": "counted by us with the model's tokenizer",
    "estimated": "estimated, because nobody reported them",
    "none": "not known",
}
REASONS: Final[Mapping[str, str]] = {
    "timeout": "did not answer in time",
    "connect": "could not be reached",
    "bad_answer": "answered with something unreadable",
    "decrypt": "its key could not be opened; it was not called",
}


class SettleForm(forms.Form):
    """Nothing to fill in: the page says what will happen."""


class RequestPage(BookPages):
    change_form_template = "console/request.html"
    actions_detail: Any = ("settle",)
    has_settle_permission = holds(SETTLE)

    def get_actions_detail(self, request: HttpRequest, object_id: str) -> list[Any]:
        """Offer to end a request only if nobody else will."""
        offered: list[Any] = super().get_actions_detail(request, object_id)  # type: ignore[misc]
        if not offered:
            return []
        row = self.get_object(request, unquote(object_id))
        return offered if row is not None and orphan_of(row) else []

    @action(description="Settle now", url_path="settle", permissions=["settle"])
    def settle(self, request: HttpRequest, object_id: str) -> HttpResponse:
        row: LLMRequestLog = self.found(request, object_id)
        here = reverse("admin:billing_llmrequestlog_change", args=[quote(str(row.pk))])
        if orphan_of(row) is None:
            messages.info(request, "It has ended, or its instance is still at it.")
            return redirect(here)

        def act(_cleaned: Mapping[str, Any], at: datetime) -> HttpResponse:
            charged = reconciliation.settle_orphan(row.pk)
            if charged is None or charged.replayed:
                messages.info(request, "Somebody else has just ended it.")
                return redirect(here)
            said = f"It is {charged.state}: {charged.charged} Flux charged."
            sentence = f"Ended an orphaned request. {said}"
            facts = {"charged": charged.charged, "unbilled": charged.unbilled}
            audit.record(
                action=SETTLE,
                subject=audit.Subject.of(row),
                by=audit.Actor.of(request.user),
                at=at,
                sentence=sentence,
                facts=facts,
            )
            messages.success(request, said)
            return redirect(here)

        why = (
            "If it had begun to answer it costs its prompt and what was delivered up to its last "
            f"checkpoint, as estimated; if not, nothing. Its hold of {row.hold} Flux is released."
        )
        form = SettleForm(request.POST or None)
        return self.ask(request, form, act, title="Settle now", why=why, back=here)

    def around(self, request: HttpRequest, row: Any) -> dict[str, Any]:
        return _around(row)


def orphan_of(row: LLMRequestLog) -> reconciliation.Orphan | None:
    """Return why nobody will end this request, or None."""
    if row.settled_at is not None:
        return None
    found = reconciliation.orphans(Scope(user_id=row.user_id))
    return next((orphan for orphan in found if orphan.id == row.pk), None)


def _around(row: LLMRequestLog) -> dict[str, Any]:
    """Return what the page of a request says beside its row."""
    entry = FluxTransaction.objects.filter(
        user_id=row.user_id, request_id=f"{lookup.OF_REQUEST}{row.pk}"
    )
    explanation = charges.explain([row])[0]
    key = keys.named(row.api_key_id) if row.api_key_id else ""
    return {
        "row": row,
        "state": STATES.get(row.state, row.state),
        "outcome": OUTCOMES.get(row.outcome or "", row.outcome or ""),
        "orphan": orphan_of(row),
        "source": SOURCES.get(row.usage_source, row.usage_source),
        "attempts": _attempts(row),
        "explanation": explanation,
        "entry": entry.order_by("pk").first(),
        "email": users.emails_of([row.user_id]).get(row.user_id, ""),
        "user_url": link_to("accounts_user_change", row.user_id),
        "account_url": link_to("billing_fluxaccount_change", row.user_id),
        "key": key,
        "key_url": _listed("accounts_apikey_changelist", q=key) if key else "",
        "plan_url": _listed("llmrouter_plan", model=row.model, at=row.opened_at.isoformat()),
        "price_url": link_to("billing_priceversion_change", row.price_version),
    }


def _attempts(row: LLMRequestLog) -> list[dict[str, Any]]:
    """Return the attempts that failed, in order, and the one that answered."""
    kept = row.failures if isinstance(row.failures, list) else []
    tried = [
        {
            "upstream": failure.get("upstream", ""),
            "key": failure.get("key", ""),
            "duration_ms": failure.get("durationMs"),
            "what": _reason(str(failure.get("reason", "")), failure.get("status")),
        }
        for failure in kept
        if isinstance(failure, dict)
    ]
    if row.upstream:
        answered = {"upstream": row.upstream, "key": row.upstream_key_id, "what": "answered"}
        tried.append({**answered, "duration_ms": None})
    return tried


def _reason(reason: str, status: Any) -> str:
    if reason in REASONS:
        return REASONS[reason] + (f" ({status})" if status else "")
    return f"answered {status or reason}"


def _listed(page: str, **query: str) -> str:
    """Return the address of a page with a query, or nowhere while there is no such page."""
    try:
        return f"{reverse(f'admin:{page}')}?{urlencode(query)}"
    except NoReverseMatch:
        return ""
