"""The router's pages: models, upstreams and keys to edit, revisions to read and publish again.

Saving publishes in the same transaction, under the publishing lock, or changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import orjson
from django.contrib import admin, messages
from django.db import transaction
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils import timezone
from django.utils.decorators import method_decorator
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.views.decorators.debug import sensitive_post_parameters

from airi_server.kernel.errors import DomainError
from llmrouter import forms
from llmrouter.configuration import publishing, rows, tree
from llmrouter.models import (
    RouterDefaults,
    RouterKey,
    RouterModel,
    RouterRevision,
    RouterUpstream,
)

if TYPE_CHECKING:
    ModelAdmin = admin.ModelAdmin[Any]
    StackedInline = admin.StackedInline[Any, Any]
    TabularInline = admin.TabularInline[Any, Any]
else:
    ModelAdmin, StackedInline, TabularInline = (
        admin.ModelAdmin,
        admin.StackedInline,
        admin.TabularInline,
    )

PUBLISH = "llmrouter.publish_router_config"


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


class PublishingAdmin(MayPublish, ModelAdmin):
    """Publishes what was saved or deleted; a refusal rolls the rows back and is shown."""

    show_full_result_count = False

    @method_decorator(sensitive_post_parameters())
    def changeform_view(self, request: HttpRequest, *args: Any, **extra: Any) -> HttpResponse:
        view = super().changeform_view
        return self._locked(request, lambda: view(request, *args, **extra))

    def delete_view(self, request: HttpRequest, *args: Any, **extra: Any) -> HttpResponse:
        view = super().delete_view
        return self._locked(request, lambda: view(request, *args, **extra))

    def changelist_view(self, request: HttpRequest, *args: Any, **extra: Any) -> HttpResponse:
        view = super().changelist_view
        return self._locked(request, lambda: view(request, *args, **extra))

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:  # noqa: FBT001  Django's signature
        super().save_related(request, form, formsets, change)
        self._publish(request, form.cleaned_data["note"], form.cleaned_data["expected"])

    def delete_model(self, request: HttpRequest, obj: Model) -> None:
        super().delete_model(request, obj)
        self._publish(request, f"{obj} deleted", None)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        names = ", ".join(map(str, queryset))
        super().delete_queryset(request, queryset)
        self._publish(request, f"{names} deleted", None)

    def _locked(self, request: HttpRequest, respond: Callable[[], HttpResponse]) -> HttpResponse:
        if request.method != "POST":
            return respond()
        try:
            with transaction.atomic():
                publishing.lock()
                return respond()
        except DomainError as refusal:
            messages.error(request, f"Nothing was saved. {refusal.message}")
            return HttpResponseRedirect(request.path)

    def _publish(self, request: HttpRequest, note: str, expected: int | None) -> None:
        revision = publishing.publish_rows(
            note=note, by=request.user.get_username(), at=timezone.now(), expected=expected
        )
        messages.info(request, f"Published {revision}." if revision else "Nothing to publish.")


class AtLeastOne:
    """An inline of which `min_num` lines have to stay, and not only to be shown at first."""

    def get_formset(self, request: HttpRequest, obj: Any = None, **options: Any) -> Any:
        return super().get_formset(request, obj, **options, validate_min=True)  # type: ignore[misc]


class RouterUpstreamInline(AtLeastOne, MayPublish, StackedInline):
    model = RouterUpstream
    form = forms.RouterUpstreamForm
    formset = forms.UpstreamFormSet
    extra = 0
    min_num = 1
    show_change_link = True
    readonly_fields = ("stored_keys",)

    @admin.display(description="Keys")
    def stored_keys(self, upstream: RouterUpstream) -> SafeString:
        keys = upstream.keys.order_by("position") if upstream.pk else []
        return format_html_join(", ", "{}{}", ((k, " disabled" * k.disabled) for k in keys))


class RouterKeyInline(AtLeastOne, MayPublish, TabularInline):
    model = RouterKey
    form = forms.RouterKeyForm
    extra = 0
    min_num = 1
    readonly_fields = ("fingerprint",)


@admin.register(RouterModel)
class RouterModelAdmin(PublishingAdmin):
    form = forms.RouterModelForm
    inlines = (RouterUpstreamInline,)
    list_display = ("name", "surface", "provider", "max_output_tokens")
    list_filter = ("surface",)
    search_fields = ("name",)
    ordering = ("surface", "name")

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        # The name is part of what seals its keys.
        return ("name", "surface") if obj else ()

    def save_formset(self, request: HttpRequest, form: Any, formset: Any, change: bool) -> None:  # noqa: FBT001  Django's signature
        super().save_formset(request, form, formset, change)
        for upstream_form in formset.forms:
            value = upstream_form.cleaned_data.get("key_value")
            if value and upstream_form not in formset.deleted_forms:
                rows.put_key(
                    upstream_form.instance,
                    key_id=upstream_form.cleaned_data["key_id"],
                    plaintext=value,
                )


@admin.register(RouterUpstream)
class RouterUpstreamAdmin(PublishingAdmin):
    form = forms.UpstreamPageForm
    inlines = (RouterKeyInline,)
    list_display = ("model", "position", "slug", "base_url", "override_model", "weight")
    list_select_related = ("model",)
    search_fields = ("=model__name", "slug")
    ordering = ("model__name", "position", "pk")

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return False: an upstream begins on its model's page."""
        return False

    def save_formset(self, request: HttpRequest, form: Any, formset: Any, change: bool) -> None:  # noqa: FBT001  Django's signature
        for key_form in formset.forms:
            if value := key_form.cleaned_data.get("value"):
                rows.seal_key(key_form.instance, form.instance, plaintext=value)
        super().save_formset(request, form, formset, change)


@admin.register(RouterDefaults)
class RouterDefaultsAdmin(PublishingAdmin):
    form = forms.RouterDefaultsForm

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return super().has_add_permission(request) and not RouterDefaults.objects.exists()

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, Any]:
        return {"fallback_http_codes": list(tree.DEFAULT_CODES)}


@admin.register(RouterRevision)
class RouterRevisionAdmin(MayPublish, ModelAdmin):
    """What was published, by whom and why; never edited."""

    list_display = ("number", "published_at", "published_by", "note")
    search_fields = ("note", "=published_by")
    fields = readonly_fields = (
        "number",
        "published_at",
        "published_by",
        "note",
        "changes",
        "configuration",
    )
    ordering = ("-number",)
    show_full_result_count = False
    actions = ("publish_again",)

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_publish_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm(PUBLISH)

    @admin.display
    def changes(self, revision: RouterRevision) -> SafeString:
        return format_html("<pre>{}</pre>", revision.diff)

    @admin.display
    def configuration(self, revision: RouterRevision) -> SafeString:
        shown = orjson.dumps(tree.redacted(revision.tree), option=orjson.OPT_INDENT_2)
        return format_html("<pre>{}</pre>", shown.decode())

    @admin.action(description="Publish again", permissions=["publish"])
    def publish_again(self, request: HttpRequest, queryset: QuerySet[RouterRevision]) -> None:
        numbers = list(queryset.values_list("number", flat=True)[:2])
        if len(numbers) != 1:
            messages.error(request, "Choose one revision.")
            return
        note = f"revision {numbers[0]} again"
        try:
            revision = publishing.republish(
                numbers[0], note=note, by=request.user.get_username(), at=timezone.now()
            )
        except DomainError as refusal:
            messages.error(request, refusal.message)
            return
        messages.info(request, f"Published {revision}." if revision else "It is in force.")
