"""Requests: the list that finds one, and the page that says what happened to it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.utils import quote, unquote
from django.db.models import Q
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse

from accounts import keys, users
from airi_server.kernel.ids import first_uuid7_at
from airi_server.pages.columns import listed
from airi_server.pages.filters import Selection, TimeFilter, UserFilter
from airi_server.pages.operators import holds
from airi_server.pages.paging import SCATTERED, KeysetQuery
from airi_server.runtime import audit
from billing import charges, reconciliation
from billing.admin import lookup
from billing.admin.base import (
    BookPages,
    ErrorFilter,
    FailedFilter,
    ModelFilter,
    OutcomeFilter,
    RequestStateFilter,
    UnbilledFilter,
    action,
    as_uuid,
    choose,
    link_to,
    number,
)
from billing.models import FluxTransaction, LLMRequestLog
from billing.reconciliation import CheckScope

SETTLE: Final = "billing.settle_requests"
SEE_REFUSED: Final = "billing.view_refusedrequest"
SEE_ROUTES: Final = "llmrouter.view_routermodel"
OUTCOMES: Final[Mapping[str, str]] = {
    "completed": "The whole answer was delivered.",
    "failed": "Nobody answered, or the request was refused. Nothing was charged.",
    "client_gone": "The client hung up before the answer was complete.",
    "deadline": "It ran out of time.",
    "shutdown": "The server was stopped meanwhile.",
    "upstream_stalled": "The upstream stopped sending in the middle of the answer.",
    "upstream_broken": "The connection to the upstream broke in the middle of the answer.",
    "upstream_error": "The upstream reported an error in the middle of the answer.",
    "server_error": "An error of the server ended it.",
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
    "completed": "reported by the upstream in part, and estimated for the rest",
    "bounded": "bounded, because the upstream reported more than was asked for",
    "counted": "counted by us with the model's tokenizer",
    "estimated": "estimated, because nobody reported them",
    "none": "not known",
}
REASONS: Final[Mapping[str, str]] = {
    "timeout": "did not answer in time",
    "connect": "could not be reached",
    "bad_answer": "answered with something unreadable",
    "decrypt": "its key could not be opened; it was not called",
    "origin": "its key was entered for another host; it was not called",
    "broken_off": "began to answer, and reported an error then",
}
BROKEN_OFF: Final = "broken_off"


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

    def _get_obj_does_not_exist_redirect(
        self, request: HttpRequest, opts: Any, object_id: str
    ) -> HttpResponse:
        """Say so where the request was refused before it was opened, and show how."""
        request_id = as_uuid(unquote(object_id))
        if request_id is None or not lookup.is_refused(request_id):
            return super()._get_obj_does_not_exist_redirect(request, opts, object_id)  # type: ignore[misc,no-any-return]
        messages.info(request, f"Request {request_id} was refused before it was opened.")
        if not request.user.has_perm(SEE_REFUSED):
            return redirect("admin:billing_llmrequestlog_changelist")
        return redirect("admin:billing_refusedrequest_change", quote(str(request_id)))

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
        return self.confirm(request, form, act, title="Settle now", why=why, back=here)

    def extra_context(self, request: HttpRequest, row: Any) -> dict[str, Any]:
        return {**_around(row), "may_see_routes": request.user.has_perm(SEE_ROUTES)}


def orphan_of(row: LLMRequestLog) -> reconciliation.Orphan | None:
    """Return why nobody will end this request, or None."""
    if row.settled_at is not None:
        return None
    found = reconciliation.orphans(CheckScope(user_id=row.user_id))
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
        "key_url": listed("accounts_apikey_changelist", q=key) if key else "",
        "plan_url": listed("llmrouter_plan", model=row.model, at=row.opened_at.isoformat()),
        "price_url": link_to("billing_priceversion_change", row.price_version),
    }


def _attempts(row: LLMRequestLog) -> list[dict[str, Any]]:
    """Return the attempts that failed, in order, and the one that answered."""
    kept = row.failures if isinstance(row.failures, list) else []
    failures = [failure for failure in kept if isinstance(failure, dict)]
    tried = [_attempt(failure) for failure in failures]
    is_listed = bool(failures) and failures[-1].get("reason") == BROKEN_OFF
    if row.upstream and not is_listed:
        answered = {"upstream": row.upstream, "key": row.upstream_key_id, "what": "answered"}
        tried.append({**answered, "status": row.status, "duration_ms": None, "words": ""})
    return tried


def _attempt(failure: Mapping[str, Any]) -> dict[str, Any]:
    reason, status = str(failure.get("reason", "")), failure.get("status")
    return {
        "upstream": failure.get("upstream", ""),
        "key": failure.get("key", ""),
        "status": status,
        "duration_ms": failure.get("durationMs"),
        "what": REASONS.get(reason) or f"answered {reason}",
        "words": str(failure.get("words", "")),
    }


class RequestPages(RequestPage):
    list_display = (
        "when", "person", "model", "state_in_words", "charged", "short", "held", "tokens", "took",
    )  # fmt: skip
    list_display_links = ("when",)
    list_filter = (
        TimeFilter, ModelFilter, FailedFilter, RequestStateFilter, OutcomeFilter, ErrorFilter,
        UnbilledFilter, UserFilter,
    )  # fmt: skip
    search_fields = ("id",)
    search_help_text = (
        "A whole request id, user id, e-mail address, how an API key begins, or Idempotency-Key"
    )
    empty_title = "No requests here"
    empty_help = (
        "Widen the time, or search for the whole x-request-id of an answer. A request that was "
        "refused before it was opened, as with too little Flux, is among the refused requests."
    )
    export_columns = (
        "id", "opened_at", "user_id", "email", "api_key_id", "kind", "client_key", "model",
        "upstream", "state", "outcome", "error_code", "status", "stream", "attempts",
        "prompt_tokens", "completion_tokens", "cached_tokens", "usage_source", "price_version",
        "hold", "flux_charged", "unbilled", "first_byte_at", "settled_at", "ttft_ms",
        "duration_ms", "instance_id",
    )  # fmt: skip

    @admin.display(description="Opened (UTC)")
    def when(self, row: LLMRequestLog) -> str:
        return f"{row.opened_at:%Y-%m-%d %H:%M:%S}"

    @admin.display(description="State")
    def state_in_words(self, row: LLMRequestLog) -> str:
        return " · ".join(part for part in (row.state, row.outcome, row.error_code) if part)

    @admin.display(description="Charged")
    def charged(self, row: LLMRequestLog) -> str:
        return number(row.flux_charged)

    @admin.display(description="Unbilled")
    def short(self, row: LLMRequestLog) -> str:
        return number(row.unbilled or None)

    @admin.display(description="Hold")
    def held(self, row: LLMRequestLog) -> str:
        return number(row.hold)

    @admin.display(description="Tokens")
    def tokens(self, row: LLMRequestLog) -> str:
        if row.prompt_tokens is None or row.completion_tokens is None:
            return ""
        return number(row.prompt_tokens + row.completion_tokens)

    @admin.display(description="ms")
    def took(self, row: LLMRequestLog) -> str:
        return number(row.duration_ms)

    def search_request(self, selection: Selection, request_id: UUID) -> None:
        selection.indexed &= Q(pk=request_id)

    def search_api_key(self, selection: Selection, public_id: str) -> None:
        """Look among the requests of the key's owner: there is no index on keys."""
        owner = keys.owner_of(public_id)
        if owner is not None:
            choose(selection, owner)
        selection.filtered &= Q(api_key_id=public_id)

    def search_key(self, selection: Selection, term: str) -> None:
        """Look for a client's key. Its index begins with the user: choose one to look far back."""
        selection.filtered &= Q(client_key=term)

    def line(self, selection: Selection) -> KeysetQuery:
        """Return requests by id, which is the order of time, of one user or of everybody."""
        rows = LLMRequestLog.objects.filter(selection.indexed).defer("input_hash")
        if selection.begin is not None:
            rows = rows.filter(id__gte=first_uuid7_at(selection.begin))
        if selection.end is not None:
            rows = rows.filter(id__lt=first_uuid7_at(selection.end))
        filtered = selection.filtered
        if selection.user_id is not None:
            who, filtered = selection.user_id, filtered & selection.sparse
            return KeysetQuery(
                rows, "id", filtered=filtered, within="user_id", value=who, slice=SCATTERED
            )
        if selection.sparse:
            return KeysetQuery(
                rows.filter(selection.sparse), "id", filtered=filtered, slice=SCATTERED
            )
        column, value = selection.within or ("", None)
        return KeysetQuery(rows, "id", filtered=filtered, within=column, value=value)
