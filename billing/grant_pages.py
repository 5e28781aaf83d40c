"""The console's Grant Flux page: a form, a preview of it, and what became of each recipient."""

from __future__ import annotations

from typing import Any, Final

from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils import timezone

from airi_server.pages.forms import dress
from airi_server.runtime import audit
from billing import grants
from billing.grant_forms import GrantForm
from billing.grants import Refusal

TITLE: Final = "Grant Flux"
REASONS: Final = {
    Refusal.DUPLICATE: "Named before in this list",
    Refusal.NOT_FOUND: "No user has this address",
    Refusal.DELETED: "The account was deleted",
}


def page(request: HttpRequest, context: dict[str, Any]) -> HttpResponse:
    """Ask, preview, apply: each is a POST of the same form, told apart by its button.

    The answer to applying is no redirect: a reload posts the same key and shows the same people.
    """
    if not request.user.has_perm(grants.PERMISSION):
        raise PermissionDenied
    if request.method != "POST":
        return _ask(request, context, GrantForm.blank(request.GET.get("email", "")))
    form = GrantForm(request.POST)
    if not form.is_valid() or "_edit" in request.POST:
        return _ask(request, context, form)
    if "_apply" in request.POST:
        return _apply(request, context, form)
    return _preview(request, context, form)


def _ask(request: HttpRequest, context: dict[str, Any], form: GrantForm) -> HttpResponse:
    dress(form)
    shown = {**context, "title": TITLE, "form": form}
    return TemplateResponse(request, "console/grant.html", shown)


def _preview(request: HttpRequest, context: dict[str, Any], form: GrantForm) -> HttpResponse:
    plan = grants.preview(form.order())
    shown = {
        **context,
        "title": TITLE,
        "plan": plan,
        "hidden": _hidden(plan.order),
        "groups": [
            (REASONS[refusal], people) for refusal in Refusal if (people := plan.refused(refusal))
        ],
    }
    return TemplateResponse(request, "console/grant_preview.html", shown)


def _apply(request: HttpRequest, context: dict[str, Any], form: GrantForm) -> HttpResponse:
    result = grants.apply(form.order(), by=audit.Actor.of(request.user), at=timezone.now())
    paid_now = [posting for _, posting in result.granted if not posting.replayed]
    shown = {
        **context,
        "title": TITLE,
        "result": result,
        "paid_now": len(paid_now),
        "paid_before": len(result.granted) - len(paid_now),
        "rows": [(each, _reason(each.recipient)) for each in result.outcomes],
        "hidden": _hidden(result.plan.order),
    }
    return TemplateResponse(request, "console/grant_result.html", shown)


def _reason(recipient: grants.Recipient) -> str:
    return REASONS[recipient.refusal] if recipient.refusal else ""


def _hidden(order: grants.Order) -> dict[str, Any]:
    """Return the form again, as it was understood: what is applied is what was previewed."""
    return {
        "emails": "\n".join(order.emails),
        "amount": order.amount,
        "description": order.description,
        "key": order.key,
    }
