"""Pages whose saving publishes, in one transaction and under the publishing lock, or does nothing.

A save can be rehearsed: to see what it would change, or to test an upstream as the form has it.
Then it is walked to its end like any other, and undone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.db.models import Model, QuerySet
from django.forms.widgets import Media, Script
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import redirect
from django.template.loader import render_to_string
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.decorators import method_decorator
from django.utils.html import strip_tags
from django.views.decorators.debug import sensitive_post_parameters

from airi_server.kernel.errors import DomainError
from airi_server.pages.columns import action
from airi_server.pages.operators import OperatorAdmin
from airi_server.runtime import audit
from llmrouter.admin import probes
from llmrouter.admin.forms import AGAIN, PREVIEW, PROBE
from llmrouter.configuration import publishing
from llmrouter.configuration.models import RouterKey, RouterRevision, RouterUpstream

PUBLISH: Final = "llmrouter.publish_router_config"
FRAGMENT: Final = "X-Fragment"
"""Header of an answer that is a piece of a page, by which the script knows it from a login page."""

RESULT: Final = "published_page"
"""An attribute of a request: the page of the revision that it has published."""

Respond = Callable[[], HttpResponse]
F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a page: put on top of it, or sent alone to the script that asked for it."""

    name: str
    context: dict[str, Any]

    @property
    def template(self) -> str:
        return f"console/router_{self.name}.html"


class Rehearsed(Exception):
    """A save came to its end and is to be undone. `shown` says later what it came to."""

    def __init__(self, shown: Callable[[], Piece]) -> None:
        super().__init__()
        self.shown = shown


class MayPublish:
    """Editing is publishing, so one permission covers it; looking needs that or the usual one."""

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        seen: bool = super().has_view_permission(request, obj)  # type: ignore[misc]
        return seen or request.user.has_perm(PUBLISH)

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.has_perm(PUBLISH)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.has_perm(PUBLISH)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.has_perm(PUBLISH)


class Scripted:
    """A page with the router's script."""

    @property
    def media(self) -> Media:
        shown: Media = super().media  # type: ignore[misc]
        script: Any = Script("console/router.js", defer=True)
        return shown + Media(js=[script])


class PublishingAdmin(Scripted, MayPublish, OperatorAdmin):
    """Publishes what was saved or deleted; a refusal rolls the rows back and is shown."""

    change_form_template = "admin/llmrouter/publishing_form.html"

    @method_decorator(sensitive_post_parameters())
    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        context = {
            "may_probe": request.user.has_perm(probes.PERMISSION),
            "model_name": self.model_of(request, object_id),
            **(extra_context or {}),
        }
        view = super().changeform_view

        def respond() -> HttpResponse:
            return view(request, object_id, form_url, context)

        if request.method != "POST":
            return respond()
        if PROBE in request.POST and not context["may_probe"]:
            raise PermissionDenied
        piece = None
        try:
            return _locked(respond)
        except Rehearsed as rehearsed:
            piece = rehearsed.shown()
        except DomainError as refusal:
            piece = _refused(request, refusal)
        if request.headers.get("X-Requested-With") == "fetch":
            return fragment(request, piece)
        context["piece"] = piece
        return _again(request, respond)

    def model_of(self, request: HttpRequest, object_id: str | None) -> str:
        """Return the name of the chat model that a page edits, whose health it says; "" if none."""
        return ""

    def delete_view(self, request: HttpRequest, *args: Any, **extra: Any) -> HttpResponse:
        view = super().delete_view
        return self._locked_or_back(request, lambda: view(request, *args, **extra))

    def changelist_view(self, request: HttpRequest, *args: Any, **extra: Any) -> HttpResponse:
        view = super().changelist_view
        answer = self._locked_or_back(request, lambda: view(request, *args, **extra))
        return _result(request) or answer

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:  # noqa: FBT001  Django's signature
        super().save_related(request, form, formsets, change)
        if PROBE in request.POST:
            raise Rehearsed(self._probe(request, formsets))
        revision = self._publish(request, form.cleaned_data["note"], form.cleaned_data["expected"])
        if PREVIEW in request.POST:
            raise Rehearsed(lambda: preview(revision, form_id=f"{self.opts.model_name}_form"))
        _say(request, revision)

    def delete_model(self, request: HttpRequest, obj: Model) -> None:
        super().delete_model(request, obj)
        _say(request, self._publish(request, f"{obj} deleted", None))

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        names = ", ".join(map(str, queryset))
        super().delete_queryset(request, queryset)
        _say(request, self._publish(request, f"{names} deleted", None))

    def response_add(
        self, request: HttpRequest, obj: Model, post_url_continue: str | None = None
    ) -> HttpResponse:
        """Go to the page of the revision, which says what was changed; to the list without one."""
        return _result(request) or self.response_post_save_add(request, obj)

    def response_change(self, request: HttpRequest, obj: Model) -> HttpResponse:
        return _result(request) or self.response_post_save_change(request, obj)

    def response_delete(self, request: HttpRequest, obj_display: str, obj_id: int) -> HttpResponse:
        return _result(request) or super().response_delete(request, obj_display, obj_id)

    def _publish(
        self, request: HttpRequest, note: str, expected: int | None
    ) -> RouterRevision | None:
        return publishing.publish_rows(
            note=note, by=audit.Actor.of(request.user), at=timezone.now(), expected=expected
        )

    def _probe(self, request: HttpRequest, formsets: Any) -> Callable[[], Piece]:
        """Compile, while the rows are there, what the button belongs to; send once they are not."""
        prefix = request.POST[PROBE]
        lines = [line for formset in formsets for line in formset.forms if line.prefix == prefix]
        if not lines or lines[0].cleaned_data.get("DELETE"):
            raise probes.NotTestable("There is nothing to test: it is deleted.")
        row, key_id = lines[0].probed()
        target = probes.target_of(row, key_id)
        return lambda: probed(request, target, row.pk)

    def _locked_or_back(self, request: HttpRequest, respond: Respond) -> HttpResponse:
        if request.method != "POST":
            return respond()
        try:
            return _locked(respond)
        except DomainError as refusal:
            messages.error(request, f"Nothing was saved. {refusal.message}")
            return HttpResponseRedirect(request.path)


def preview(revision: RouterRevision | None, *, form_id: str) -> Piece:
    """Return what publishing would change: None changes nothing."""
    lines = changed_lines(revision.diff) if revision else []
    number = revision.number if revision else None
    return Piece("preview", {"number": number, "lines": lines, "form_id": form_id})


def changed_lines(diff: str) -> list[tuple[str, str]]:
    """Return the sign and the text of each line of a diff."""
    return [(line[:1], line[2:]) for line in diff.split("\n") if line]


def probed(request: HttpRequest, target: probes.ProbeTarget, pk: int) -> Piece:
    """Send the test, leave a row in the audit log, and return what came of it."""
    result = probes.probe(target)
    with transaction.atomic():
        # An upstream that was only rehearsed has no row to speak of.
        is_saved = RouterUpstream.objects.filter(pk=pk).exists()
        audit.record(
            action=probes.PERMISSION,
            subject=audit.Subject("llmrouter.routerupstream", str(pk) if is_saved else ""),
            by=audit.Actor.of(request.user),
            at=timezone.now(),
            sentence=f"Tested upstream {target.upstream.id} of {target.route.name} with key "
            f"{target.key.id}. {result.sentence}",
            facts={
                "model": target.route.name,
                "upstream": target.upstream.id,
                "host": target.upstream.host,
                "key": target.key.id,
                "outcome": result.outcome,
                "latencyMs": result.latency_ms,
            },
        )
    return Piece("probe", {"target": target, "result": result})


def fragment(request: HttpRequest, piece: Piece) -> HttpResponse:
    """Answer with the piece alone."""
    return TemplateResponse(request, piece.template, piece.context, headers={FRAGMENT: piece.name})


def _locked(respond: Respond) -> HttpResponse:
    with transaction.atomic():
        publishing.lock()
        return respond()


def _again(request: HttpRequest, respond: Respond) -> HttpResponse:
    """Show the form as it was posted, without saving it."""
    posted = request.POST.copy()
    posted[AGAIN] = "1"
    request.POST = posted  # type: ignore[assignment]
    return respond()


def _refused(request: HttpRequest, refusal: DomainError) -> Piece:
    name = "probe" if PROBE in request.POST else "preview"
    return Piece(name, {"refusal": refusal.message})


def _say(request: HttpRequest, revision: RouterRevision | None) -> None:
    said = f"Published {revision}." if revision else "Nothing to publish: nothing would change."
    messages.success(request, said)
    if revision:
        setattr(
            request, RESULT, reverse("admin:llmrouter_routerrevision_change", args=[revision.pk])
        )


def _result(request: HttpRequest) -> HttpResponse | None:
    """Lead to what was published by this request."""
    page = getattr(request, RESULT, "")
    return HttpResponseRedirect(page) if page else None


class ProbePages(Scripted, OperatorAdmin):
    actions_detail = ("test",)

    def has_probe_permission(self, request: HttpRequest, _object_id: str | None = None) -> bool:
        return request.user.has_perm(probes.PERMISSION)

    @action(description="Test", url_path="test", permissions=["probe"], icon="network_check")
    def test(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """List the keys of an upstream; send one tiny request with the chosen one."""
        row: RouterUpstream = self.found(request, object_id)
        keys = list(row.keys.order_by("position"))
        if request.method == "POST":
            return _answer(request, _tested(request, row, keys))
        context: dict[str, Any] = {
            **self.admin_site.each_context(request),
            "title": f"Test {row} of {row.model}",
            "opts": self.opts,
            "row": row,
            "keys": keys,
            "media": self.media,
        }
        return TemplateResponse(request, "console/router_test.html", context)


def _answer(request: HttpRequest, piece: Piece) -> HttpResponse:
    """Answer the script with what came of a test; without one, lead back to the page with it."""
    if request.headers.get("X-Requested-With") == "fetch":
        return fragment(request, piece)
    result = piece.context.get("result")
    level = messages.SUCCESS if result and result.is_ok else messages.ERROR
    said = render_to_string(piece.template, piece.context)
    messages.add_message(request, level, strip_tags(said).strip())
    return redirect(request.path)


def _tested(request: HttpRequest, row: RouterUpstream, keys: list[RouterKey]) -> Piece:
    try:
        key = next((key for key in keys if str(key.pk) == request.POST.get(PROBE)), None)
        if key is None:
            raise probes.NotTestable("There is no such key: it may have been replaced.")
        return probed(request, probes.target_of(row, key.key_id), row.pk)
    except DomainError as refusal:
        return Piece("probe", {"refusal": refusal.message})
