"""The plan of a model as a page: what a request tries in which order, and why."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import reverse

from airi_server.kernel.errors import DomainError
from llmrouter.configuration import publishing, tree
from llmrouter.configuration.models import RouterModel, RouterRevision
from llmrouter.routing import explanation, health
from llmrouter.routing.explanation import RouteExplanation

MAY_LOOK: Final = ("llmrouter.view_routermodel", "llmrouter.publish_router_config")
MAX_DIGITS: Final = 18


def by_name(request: HttpRequest, context: dict[str, Any]) -> HttpResponse:
    """Show the plan of `?model=NAME`, by today's configuration or an older one.

    An older one is that of `&revision=N`, or the one in force at `&at=INSTANT`, in ISO 8601.
    """
    if not any(map(request.user.has_perm, MAY_LOOK)):
        raise PermissionDenied
    return page(request, context, request.GET.get("model", "").replace("\x00", "")[:200])


def page(request: HttpRequest, context: dict[str, Any], model: str) -> HttpResponse:
    """Show the plan of a chat model, or what there is instead."""
    revision, newest = _revision(request), publishing.newest()
    is_newest = newest is None or revision is None or revision.number == newest.number
    explained, problem, known = _explained(revision, model, is_newest=is_newest)
    shown = {
        **context,
        "title": f"Plan of {model}" if model else "Plan",
        "model": model,
        "row": RouterModel.objects.filter(surface=tree.LLM, name=model).first(),
        "revision": revision,
        "is_newest": is_newest,
        "explained": explained,
        "problem": problem,
        "known": known,
        "page_url": reverse("admin:llmrouter_plan"),
    }
    status = 200 if explained else 404
    return TemplateResponse(request, "console/router_plan.html", shown, status=status)


def _revision(request: HttpRequest) -> RouterRevision | None:
    """Return the revision that was asked for, else the newest; None if there was none yet."""
    at = _instant(request.GET.get("at", ""))
    if at is not None:
        return RouterRevision.objects.filter(published_at__lte=at).order_by("-number").first()
    number = request.GET.get("revision", "")
    if not number:
        return publishing.newest()
    if not (number.isascii() and number.isdigit() and len(number) <= MAX_DIGITS):
        raise Http404
    revision = RouterRevision.objects.filter(number=int(number)).first()
    if revision is None:
        raise Http404
    return revision


def _instant(text: str) -> datetime | None:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def _explained(
    revision: RouterRevision | None, model: str, *, is_newest: bool
) -> tuple[RouteExplanation | None, str, list[str]]:
    """Return the explanation, or what stands in its way and which models there are."""
    if revision is None:
        return None, "Nothing has been published yet: add a model first.", []
    # What is held against whom today says nothing about what an older configuration was.
    number = revision.number
    standings = health.standings_from_redis(number) if is_newest else explanation.WELL_NOW
    try:
        config = tree.parse(revision.tree)
        return explanation.explain(config, number, model, standings), "", []
    except explanation.UnknownModel as unknown:
        known: list[str] = (unknown.details or {}).get("available", [])
        return None, f"There is no chat model “{model}” in {revision}.", known
    except DomainError as unreadable:
        return None, f"{revision} cannot be read: {unreadable.message}"[:500], []
